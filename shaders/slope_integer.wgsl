// The magnitude of the norm's derivative with respect to an element.
fn slope(hat: vec4<f32>) -> vec4<f32> {
    return integer_power(bitcast<vec4<f32>>(magnitude4(hat)), u32(DEGREE) - 1u);
}
