// What is normalized: the hidden value, a product. See `prologue_residual`.

const IS_PRODUCT = true;

fn hidden_of(input: vec4<f32>, before: vec4<f32>) -> vec4<f32> {
    return opaque4(input * silu(before));
}

struct OfHidden {
    input: vec4<f32>,
    before: vec4<f32>,
}

fn of_hidden(d: vec4<f32>, input: vec4<f32>, before: vec4<f32>) -> OfHidden {
    let s = sigma(before);
    return OfHidden(opaque4(d * opaque4(before * s.same)), opaque4(opaque4(d * input) * silu_slope(before, s)));
}
