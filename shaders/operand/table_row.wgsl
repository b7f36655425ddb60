
// The elements of four columns, wherever they are, each so far from the current row's.
fn NAME_of(columns: vec4<u32>, away: vec4<u32>) -> vec4<f32> {
    var col = columns.x;
    let x = NAME_bits(BASE_0 + away.x + ALONG);
    col = columns.y;
    let y = NAME_bits(BASE_0 + away.y + ALONG);
    col = columns.z;
    let z = NAME_bits(BASE_0 + away.z + ALONG);
    col = columns.w;
    let w = NAME_bits(BASE_0 + away.w + ALONG);
    return bits_DTYPE(vec4<u32>(x, y, z, w));
}
