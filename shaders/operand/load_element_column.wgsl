
fn NAME_at(col: u32) -> vec4<f32> {
    let along = ALONG;
    return bits_DTYPE(vec4<u32>(
        NAME_bits(BASE_0 + along), NAME_bits(BASE_1 + along), NAME_bits(BASE_2 + along), NAME_bits(BASE_3 + along)));
}
