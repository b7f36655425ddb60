// What is normalized: the input. See `prologue_residual`.

fn x_at(col: u32) -> vec4<f32> {
    return input_at(col);
}

struct OfHidden {
    input: vec4<f32>,
    before: vec4<f32>,
}

fn of_hidden(col: u32, d: vec4<f32>) -> OfHidden {
    return OfHidden(d, d);
}
