@group(0) @binding(BINDING) var<storage, ACCESS> NAME: array<f32>;

// The k-th number of what four columns belong to.
fn NAME_at(column: u32, k: u32) -> vec4<f32> {
    let col = min(column, params.cols - 1u);
    return vec4<f32>(NAME[BASE_0 + ALONG + k]);
}
