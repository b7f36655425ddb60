// The magnitude of the norm's derivative with respect to an element: one for the 1-norm.
fn slope(hat: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(1.0);
}
