// Weight and bias beside a row.

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
