fn NAME_set(col: u32, count: u32, x: vec4<f32>) {}
