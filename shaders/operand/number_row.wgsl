@group(0) @binding(BINDING) var<storage, ACCESS> NAME: array<f32>;

// The k-th number of the current row.
fn NAME_get(k: u32) -> f32 {
    return NAME[BASE_0 + k];
}
