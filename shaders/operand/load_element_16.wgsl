@group(0) @binding(BINDING) var<storage, ACCESS> NAME: array<u32>;

fn NAME_bits(col: u32) -> u32 {
    let index = START + ALONG;
    return (NAME[index >> 1u] >> (16u * (index & 1u))) & 0xffffu;
}
