
fn NAME_set(k: u32, x: vec4<f32>) {
    NAME[BASE_0 + k] = x.x;
    if alive > 1u {
        NAME[BASE_1 + k] = x.y;
    }
    if alive > 2u {
        NAME[BASE_2 + k] = x.z;
    }
    if alive > 3u {
        NAME[BASE_3 + k] = x.w;
    }
}
