@group(0) @binding(BINDING) var<storage, ACCESS> NAME: array<f32>;

// The k-th number of each current row.
fn NAME_get(k: u32) -> vec4<f32> {
    return vec4<f32>(NAME[BASE_0 + k], NAME[BASE_1 + k], NAME[BASE_2 + k], NAME[BASE_3 + k]);
}
