
// The integers of one column, in each current row.
fn NAME_of(columns: vec4<u32>) -> vec4<u32> {
    let col = columns.x;
    let along = ALONG;
    return vec4<u32>(
        NAME_bits(BASE_0 + along), NAME_bits(BASE_1 + along), NAME_bits(BASE_2 + along), NAME_bits(BASE_3 + along));
}
