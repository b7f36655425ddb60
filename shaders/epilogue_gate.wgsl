// What becomes of v: a factor of the output.

fn epilogue(col: u32, v: vec4<f32>) -> vec4<f32> {
    return v * silu(after_at(col));
}

// The gradients of v and of the epilogue's other operand.
struct OfOutput {
    value: vec4<f32>,
    after: vec4<f32>,
}

// From that of the output.
fn of_output(col: u32, g: vec4<f32>, v: vec4<f32>) -> OfOutput {
    let z = after_at(col);
    let s = sigma(z);
    return OfOutput(opaque4(g * opaque4(z * s.same)), opaque4(opaque4(g * v) * silu_slope(z, s)));
}
