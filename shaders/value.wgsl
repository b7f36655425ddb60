// From the input to what is normalized, and from x_hat to v, which is the output unless an epilogue follows.

// The input, shifted, or zero where dropout leaves it out of the sum: what the branch's scale multiplies.
fn shifted_at(col: u32) -> vec4<f32> {
    var x = input_at(col);
    if HAS_BEFORE && HAS_BRANCH_BIAS {
        x = opaque4(x + branch_bias_at(col));
    }
    if DROPOUT && HAS_BEFORE {
        x = select(vec4<f32>(0.0), x, kept_at(col));
    }
    return x;
}

fn scaled_branch(col: u32, x: vec4<f32>) -> vec4<f32> {
    if HAS_BRANCH_SCALE {
        return opaque4(x * branch_scale_at(col));
    }
    return x;
}

// What the prologue takes of the input.
fn branch_at(col: u32) -> vec4<f32> {
    if HAS_BEFORE {
        return scaled_branch(col, shifted_at(col));
    }
    return input_at(col);
}

fn x_at(col: u32) -> vec4<f32> {
    return hidden_of(branch_at(col), before_at(col));
}

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
