// Whether it is zero or less, by its bits; NaN is not.
fn is_not_above_zero(v: vec4<f32>) -> vec4<bool> {
    let bits = bitcast<vec4<u32>>(v);
    let negative = (bits >= vec4<u32>(0x80000000u)) & (bits <= vec4<u32>(0xff800000u));
    return negative | (bits == vec4<u32>(0u));
}

fn activation(v: vec4<f32>) -> vec4<f32> {
    return select(v, vec4<f32>(0.0), is_not_above_zero(v));
}

fn activation_slope(g: vec4<f32>, v: vec4<f32>) -> vec4<f32> {
    return select(g, vec4<f32>(0.0), is_not_above_zero(v));
}
