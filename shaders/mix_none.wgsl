// The residual, if there is one, has no norm of its own: see `mix` and `inner_kept`.

fn enter_mix() {}

fn keep_mix(i: u32, col: u32) {}

fn residual_at(col: u32) -> vec4<f32> {
    return before_at(col);
}

fn residual_first(i: u32, col: u32) -> vec4<f32> {
    return before_at(col);
}
