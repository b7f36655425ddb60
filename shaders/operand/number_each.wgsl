@group(0) @binding(BINDING) var<storage, ACCESS> NAME: array<f32>;

// The k-th number of what each of four columns belongs to.
fn NAME_at(column: u32, k: u32) -> vec4<f32> {
    let last = params.cols - 1u;
    var col = min(column, last);
    let x = NAME[BASE_0 + ALONG + k];
    col = min(column + 1u, last);
    let y = NAME[BASE_0 + ALONG + k];
    col = min(column + 2u, last);
    let z = NAME[BASE_0 + ALONG + k];
    col = min(column + 3u, last);
    let w = NAME[BASE_0 + ALONG + k];
    return vec4<f32>(x, y, z, w);
}
