// What becomes of v: a term of the output. See `epilogue_gate`.

fn epilogue(col: u32, v: vec4<f32>) -> vec4<f32> {
    return after_at(col) + v;
}

struct OfOutput {
    value: vec4<f32>,
    after: vec4<f32>,
}

fn of_output(col: u32, g: vec4<f32>, v: vec4<f32>) -> OfOutput {
    return OfOutput(g, g);
}
