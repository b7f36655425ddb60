
fn NAME_bits(index: u32) -> u32 {
    return NAME[index];
}
