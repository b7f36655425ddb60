
fn NAME_set(index: u32, x: f32) {
    NAME[START + index] = x;
}
