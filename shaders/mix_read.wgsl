
// A thread's i-th four elements.
fn residual_first(i: u32, col: u32) -> vec4<f32> {
    return of_mix_kept(i, col, before_at(col));
}
