
// The integers of four columns.
fn NAME_of(columns: vec4<u32>) -> vec4<u32> {
    var col = columns.x;
    let x = NAME_bits(BASE_0 + ALONG);
    col = columns.y;
    let y = NAME_bits(BASE_0 + ALONG);
    col = columns.z;
    let z = NAME_bits(BASE_0 + ALONG);
    col = columns.w;
    let w = NAME_bits(BASE_0 + ALONG);
    return vec4<u32>(x, y, z, w);
}
