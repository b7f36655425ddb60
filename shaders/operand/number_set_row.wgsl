
fn NAME_set(k: u32, x: f32) {
    NAME[BASE_0 + k] = x;
}
