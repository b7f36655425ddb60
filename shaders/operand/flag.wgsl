@group(0) @binding(BINDING) var<storage, read_write> NAME: array<atomic<u32>>;

// Marks a column. Threads that have it in other rows write the same.
fn NAME_raise(col: u32) {
    atomicStore(&NAME[BASE_0 + col], 1u);
}
