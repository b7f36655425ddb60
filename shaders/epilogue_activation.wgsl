// What becomes of v: the argument of a function. See `epilogue_gate`.

fn epilogue(col: u32, v: vec4<f32>) -> vec4<f32> {
    return activation(v);
}

fn of_value(col: u32, g: vec4<f32>, v: vec4<f32>) -> vec4<f32> {
    return activation_slope(g, v);
}

fn of_after(col: u32, g: vec4<f32>, v: vec4<f32>) -> vec4<f32> {
    return g;
}
