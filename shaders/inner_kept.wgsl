// The weight and the bias of the branch's norm, where a thread keeps them from one row to the next.

var<private> kept_inner_weight: array<vec4<f32>, HELD_QUADS + 1u>;
var<private> kept_inner_bias: array<vec4<f32>, HELD_QUADS + 1u>;

fn keep_inner(i: u32, col: u32) {
    kept_inner_weight[i] = full_weight_of_inner(col);
    kept_inner_bias[i] = inner_bias_at(col);
}

// As `of_inner`, of a thread's i-th four elements.
fn of_inner_kept(i: u32, col: u32, x: vec4<f32>) -> vec4<f32> {
    if KEPT {
        return value_of_inner(col, x_hat_of_inner(x), kept_inner_weight[i], kept_inner_bias[i]);
    }
    return of_inner(col, x);
}
