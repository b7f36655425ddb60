
fn NAME_set(col: u32, count: u32, x: vec4<f32>) {
    let bits = narrow_DTYPE(x);
    let along = ALONG;
    NAME_put(BASE_0 + along, bits.x);
    if count > 1u {
        NAME_put(BASE_1 + along, bits.y);
    }
    if count > 2u {
        NAME_put(BASE_2 + along, bits.z);
    }
    if count > 3u {
        NAME_put(BASE_3 + along, bits.w);
    }
}
