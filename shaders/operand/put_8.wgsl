@group(0) @binding(BINDING) var<storage, read_write> NAME: array<atomic<u32>>;

// The word's other codes may be other threads', other rows' or another tensor's.
fn NAME_put(index: u32, bits: u32) {
    let shift = 8u * (index & 3u);
    atomicAnd(&NAME[index >> 2u], ~(0xffu << shift));
    atomicOr(&NAME[index >> 2u], bits << shift);
}
