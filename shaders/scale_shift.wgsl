// What a normalized value is multiplied by and what is added to it.

fn full_weight(col: u32) -> vec4<f32> {
    if OFFSET {
        return opaque4(weight_at(col) + params.weight_offset);
    }
    return weight_at(col);
}

fn affine(col: u32, x: vec4<f32>) -> vec4<f32> {
    var y = x;
    if HAS_WEIGHT {
        y = opaque4(y * full_weight(col));
    }
    if HAS_BIAS {
        y += bias_at(col);
    }
    return y;
}
