// The weight that multiplies: what is stored, plus the offset.
fn full_weight(col: u32) -> vec4<f32> {
    if OFFSET {
        return opaque4(weight_at(col) + params.weight_offset);
    }
    return weight_at(col);
}
