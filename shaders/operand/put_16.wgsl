@group(0) @binding(BINDING) var<storage, read_write> NAME: array<atomic<u32>>;

// The word's other half may be another thread's, another row's or another tensor's.
fn NAME_put(index: u32, bits: u32) {
    let shift = 16u * (index & 1u);
    atomicAnd(&NAME[index >> 1u], ~(0xffffu << shift));
    atomicOr(&NAME[index >> 1u], bits << shift);
}
