// What is normalized: the hidden value, a sum.

fn x_at(col: u32) -> vec4<f32> {
    if !HAS_BEFORE {
        // The sum itself.
        return input_at(col);
    }
    if SCALED {
        return opaque4(
            opaque4(input_at(col) * params.input_scale) + opaque4(before_at(col) * params.residual_scale));
    }
    return opaque4(input_at(col) + before_at(col));
}

// The gradients of the input and of the prologue's other operand.
struct OfHidden {
    input: vec4<f32>,
    before: vec4<f32>,
}

// From that of the hidden value.
fn of_hidden(col: u32, d: vec4<f32>) -> OfHidden {
    if SCALED {
        return OfHidden(opaque4(d * params.input_scale), opaque4(d * params.residual_scale));
    }
    return OfHidden(d, d);
}
