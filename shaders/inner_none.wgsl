// The branch of a residual, if there is one, has no norm of its own: see `inner` and `inner_kept`.

fn enter_inner() {}

fn keep_inner(i: u32, col: u32) {}

fn of_inner(col: u32, x: vec4<f32>) -> vec4<f32> {
    return x;
}

fn of_inner_kept(i: u32, col: u32, x: vec4<f32>) -> vec4<f32> {
    return x;
}
