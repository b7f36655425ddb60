// What becomes of v: a factor of the output.

fn epilogue(col: u32, v: vec4<f32>) -> vec4<f32> {
    return v * silu(after_at(col));
}

// The gradient of v, from that of the output.
fn of_value(col: u32, g: vec4<f32>, v: vec4<f32>) -> vec4<f32> {
    return opaque4(g * silu(after_at(col)));
}

// The gradient of the epilogue's other operand.
fn of_after(col: u32, g: vec4<f32>, v: vec4<f32>) -> vec4<f32> {
    let z = after_at(col);
    return opaque4(g * v) * silu_slope(z, sigma(z));
}
