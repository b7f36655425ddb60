fn NAME_get(index: u32) -> f32 {
    return 0.0;
}

fn NAME_set(index: u32, x: f32) {}
