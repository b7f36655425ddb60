
fn NAME_bits(index: u32) -> u32 {
    return (atomicLoad(&NAME[index >> 1u]) >> (16u * (index & 1u))) & 0xffffu;
}
