@group(0) @binding(BINDING) var<storage, read_write> NAME: array<u32>;

fn NAME_put(index: u32, bits: u32) {
    NAME[index] = bits;
}
