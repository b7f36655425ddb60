// The norm of the branch that a residual is added to. What ends in `_of_inner` is what other files say of any norm, said once more
// of this one; a norm of the residual beside it, `_of_mix`, is this text once more.

// What it gives of the input at `col`.
fn of_inner(col: u32, x: vec4<f32>) -> vec4<f32> {
    return value_of_inner(col, x_hat_of_inner(x), full_weight_of_inner(col), inner_bias_at(col));
}
