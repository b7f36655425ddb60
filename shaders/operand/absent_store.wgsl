fn NAME_set(col: u32, cols: u32, x: vec4<f32>) {}
