// What of an element is summed.
fn degree(x: vec4<f32>) -> vec4<f32> {
    let a = bitcast<vec4<f32>>(magnitude4(x));
    return real_power4(a, vec2<f32>(params.power, params.power_low));
}
