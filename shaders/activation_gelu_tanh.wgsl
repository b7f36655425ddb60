fn activation(v: vec4<f32>) -> vec4<f32> {
    return gelu(v);
}

fn activation_slope(g: vec4<f32>, v: vec4<f32>) -> vec4<f32> {
    return opaque4(g * gelu_slope(v));
}
