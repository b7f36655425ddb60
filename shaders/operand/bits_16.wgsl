@group(0) @binding(BINDING) var<storage, ACCESS> NAME: array<u32>;

fn NAME_bits(index: u32) -> u32 {
    return (NAME[index >> 1u] >> (16u * (index & 1u))) & 0xffffu;
}
