fn NAME_get(k: u32) -> REAL {
    return REAL(0.0);
}

fn NAME_set(k: u32, x: REAL) {}

fn NAME_at(col: u32, k: u32) -> vec4<f32> {
    return vec4<f32>(0.0);
}
