// From x_hat to v, which is the output unless an epilogue follows.

// The weight that multiplies: what is stored, plus the offset.
fn full_weight(col: u32) -> vec4<f32> {
    if OFFSET {
        return opaque4(weight_at(col) + params.weight_offset);
    }
    return weight_at(col);
}

fn value(col: u32, hat: vec4<f32>, weight: vec4<f32>, bias: vec4<f32>) -> vec4<f32> {
    var v = hat;
    if ROUND {
        v = round_input(v);
    }
    if HAS_WEIGHT {
        v = opaque4(v * weight);
    }
    if HAS_BIAS {
        v += bias;
    }
    if HAS_MASK {
        v = select(vec4<f32>(0.0), v, magnitude4(mask_at(col)) != vec4<u32>(0u));
    }
    if HAS_EPILOGUE {
        return opaque4(v);
    }
    return v;
}
