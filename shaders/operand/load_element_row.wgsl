
// Columns beyond the last repeat it: a load stays in its row.
fn NAME_at(column: u32) -> vec4<f32> {
    let last = params.cols - 1u;
    var col = min(column, last);
    let x = NAME_bits(BASE_0 + ALONG);
    col = min(column + 1u, last);
    let y = NAME_bits(BASE_0 + ALONG);
    col = min(column + 2u, last);
    let z = NAME_bits(BASE_0 + ALONG);
    col = min(column + 3u, last);
    let w = NAME_bits(BASE_0 + ALONG);
    return bits_DTYPE(vec4<u32>(x, y, z, w));
}
