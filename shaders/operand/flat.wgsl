@group(0) @binding(BINDING) var<storage, ACCESS> NAME: array<f32>;

fn NAME_get(index: u32) -> f32 {
    return NAME[BASE_0 + index];
}
