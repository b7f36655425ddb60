// From the input to what is normalized: see `value` for what becomes of that.

// The input, normalized for itself or shifted, or zero where dropout leaves it out of the sum: what the branch's scale
// multiplies.
fn shifted_at(col: u32) -> vec4<f32> {
    var x = of_inner(col, input_at(col));
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
    return hidden_of(branch_at(col), residual_at(col));
}
