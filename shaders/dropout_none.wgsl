fn kept_at(col: u32) -> vec4<bool> {
    return vec4<bool>(true);
}
