// The norm of the residual that is mixed with that of a branch.

fn residual_at(col: u32) -> vec4<f32> {
    return of_mix(col, before_at(col));
}
