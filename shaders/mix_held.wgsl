
// The residual of the current rows, which stays in registers if it fits.
var<private> held_residual: array<vec4<f32>, HELD_QUADS + 1u>;

// A thread's i-th four elements.
fn residual_first(i: u32, col: u32) -> vec4<f32> {
    return of_mix_kept(i, col, held_residual[i]);
}
