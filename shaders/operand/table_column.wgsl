
// The elements of one column, so far from those of each current row.
fn NAME_of(columns: vec4<u32>, away: vec4<u32>) -> vec4<f32> {
    let col = columns.x;
    let at = vec4<u32>(ALONG) + away;
    return bits_DTYPE(vec4<u32>(
        NAME_bits(BASE_0 + at.x), NAME_bits(BASE_1 + at.y), NAME_bits(BASE_2 + at.z), NAME_bits(BASE_3 + at.w)));
}
