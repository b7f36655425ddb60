@group(0) @binding(BINDING) var<storage, ACCESS> NAME: array<u32>;

// Of an integer of 64 bits; of one that 32 do not hold, the largest of those.
fn NAME_bits(index: u32) -> u32 {
    return select(0xffffffffu, NAME[2u * index], NAME[2u * index + 1u] == 0u);
}
