@group(0) @binding(BINDING) var<storage, read_write> NAME: array<WORDS>;

fn NAME_set(col: u32, count: u32, x: vec4<f32>) {
    NAME[(BASE_0 + SAFE_QUAD) >> 2u] = words_DTYPE(x);
}
