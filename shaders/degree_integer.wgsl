// What of an element is summed.
fn degree(x: vec4<f32>) -> vec4<f32> {
    return integer_power(bitcast<vec4<f32>>(magnitude4(x)), u32(DEGREE));
}
