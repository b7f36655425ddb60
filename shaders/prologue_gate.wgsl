// What is normalized: the hidden value, a product. See `prologue_residual`.

fn x_at(col: u32) -> vec4<f32> {
    return opaque4(input_at(col) * silu(before_at(col)));
}

struct OfHidden {
    input: vec4<f32>,
    before: vec4<f32>,
}

fn of_hidden(col: u32, d: vec4<f32>) -> OfHidden {
    let z = before_at(col);
    let s = sigma(z);
    return OfHidden(
        opaque4(d * opaque4(z * s.same)), opaque4(opaque4(d * input_at(col)) * silu_slope(z, s)));
}
