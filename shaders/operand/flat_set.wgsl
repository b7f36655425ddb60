
fn NAME_set(index: u32, x: f32) {
    NAME[BASE_0 + index] = x;
}
