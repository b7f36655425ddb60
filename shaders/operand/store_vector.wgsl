@group(0) @binding(BINDING) var<storage, read_write> NAME: array<WORDS>;

fn NAME_set(col: u32, cols: u32, x: vec4<f32>) {
    NAME[(START + col) >> 2u] = words_DTYPE(x);
}
