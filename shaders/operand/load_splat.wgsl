
// Four elements are the same one.
fn NAME_at(column: u32) -> vec4<f32> {
    let col = min(column, params.cols - 1u);
    return bits_DTYPE(vec4<u32>(NAME_bits(BASE_0 + ALONG)));
}
