fn NAME_of(columns: vec4<u32>, away: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(1.0);
}
