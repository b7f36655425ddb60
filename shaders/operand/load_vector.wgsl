@group(0) @binding(BINDING) var<storage, ACCESS> NAME: array<WORDS>;

// Columns beyond the last repeat the last four: a load stays in its row.
fn NAME_at(col: u32) -> vec4<f32> {
    return widen_DTYPE(NAME[(START + min(col, params.cols - 4u)) >> 2u]);
}
