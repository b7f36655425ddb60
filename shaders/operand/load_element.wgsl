
// Columns beyond the last repeat it: a load stays in its row.
fn NAME_at(col: u32) -> vec4<f32> {
    let last = params.cols - 1u;
    return bits_DTYPE(vec4<u32>(
        NAME_bits(min(col, last)),
        NAME_bits(min(col + 1u, last)),
        NAME_bits(min(col + 2u, last)),
        NAME_bits(min(col + 3u, last)),
    ));
}
