// What is normalized: the hidden value, a sum.

// Its gradients depend on its operands.
const IS_PRODUCT = false;

fn hidden_of(input: vec4<f32>, before: vec4<f32>) -> vec4<f32> {
    if !HAS_BEFORE {
        // The sum itself.
        return input;
    }
    if SCALED {
        return opaque4(opaque4(input * params.input_scale) + opaque4(before * params.residual_scale));
    }
    return opaque4(input + before);
}

// The gradients of the input and of the prologue's other operand.
struct OfHidden {
    input: vec4<f32>,
    before: vec4<f32>,
}

// From that of the hidden value.
fn of_hidden(d: vec4<f32>, input: vec4<f32>, before: vec4<f32>) -> OfHidden {
    if SCALED {
        return OfHidden(opaque4(d * params.input_scale), opaque4(d * params.residual_scale));
    }
    return OfHidden(d, d);
}
