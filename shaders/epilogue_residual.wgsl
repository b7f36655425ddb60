// What becomes of v: a term of the output. See `epilogue_gate`.

fn epilogue(col: u32, v: vec4<f32>) -> vec4<f32> {
    return after_at(col) + v;
}

fn of_value(col: u32, g: vec4<f32>, v: vec4<f32>) -> vec4<f32> {
    return g;
}

fn of_after(col: u32, g: vec4<f32>, v: vec4<f32>) -> vec4<f32> {
    return g;
}
