@group(0) @binding(BINDING) var<storage, ACCESS> NAME: array<WORDS>;

fn NAME_at(col: u32) -> vec4<f32> {
    return widen_DTYPE(NAME[(BASE_0 + QUAD) >> 2u]);
}
