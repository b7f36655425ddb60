
fn NAME_set(column: u32, count: u32, x: vec4<f32>) {
    let bits = narrow_DTYPE(x);
    var col = column;
    NAME_put(BASE_0 + ALONG, bits.x);
    if count > 1u {
        col = column + 1u;
        NAME_put(BASE_0 + ALONG, bits.y);
    }
    if count > 2u {
        col = column + 2u;
        NAME_put(BASE_0 + ALONG, bits.z);
    }
    if count > 3u {
        col = column + 3u;
        NAME_put(BASE_0 + ALONG, bits.w);
    }
}
