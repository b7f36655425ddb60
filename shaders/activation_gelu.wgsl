fn activation(v: vec4<f32>) -> vec4<f32> {
    return opaque4(v * normal(v).below);
}

fn activation_slope(g: vec4<f32>, v: vec4<f32>) -> vec4<f32> {
    let n = normal(v);
    return opaque4(g * opaque4(n.below + opaque4(opaque4(v * n.bell) * BELL)));
}
