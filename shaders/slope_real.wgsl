// The magnitude of the norm's derivative with respect to an element.
fn slope(hat: vec4<f32>) -> vec4<f32> {
    let a = bitcast<vec4<f32>>(magnitude4(hat));
    return real_power4(a, vec2<f32>(params.slope_power, params.slope_power_low));
}
