// grad_input = grad_output * weight * the function's derivative, and partial sums of the parameters' gradients over the
// rows of a chunk, all from one reading.

@compute @workgroup_size(GROUP)
fn pointwise_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    if !enter_columns(group, groups, invocation) {
        return;
    }
    locate(first_row_of_chunk());
    let alpha = alpha_at(0u).x;
    // Ones where there is no weight: multiplying by them changes nothing.
    let weight = weight_at(col);
    let of_column = begin_slopes(alpha, weight);
    var weight_sum = begin_partial(OF_WEIGHT);
    var bias_sum = begin_partial(OF_BIAS);
    var alpha_sum = begin_partial(OF_ALPHA);
    let end = end_row_of_chunk();
    for (var leaf = first_row_of_chunk(); leaf < end; leaf += ROW_LEAF) {
        var weight_leaf = zero4();
        var bias_leaf = zero4();
        var alpha_leaf = zero4();
        for (var row = leaf; row < min(leaf + ROW_LEAF, end); row++) {
            locate(row);
            let g = grad_output_at(col);
            let s = slopes(alpha, of_column, weight, input_at(col), g);
            weight_leaf += opaque4(g * s.value);
            bias_leaf += g;
            alpha_leaf += s.grad_alpha;
            if HAS_GRAD_INPUT {
                grad_input_set(col, min(params.cols - col, 4u), s.grad_input);
            }
        }
        weight_sum += weight_leaf;
        bias_sum += bias_leaf;
        alpha_sum += alpha_leaf;
    }
    if SUM_WEIGHT {
        store_partial(OF_WEIGHT, chunk, weight_sum);
    }
    if SUM_BIAS {
        store_partial(OF_BIAS, chunk, bias_sum);
    }
    if SUM_ALPHA {
        store_partial(OF_ALPHA, chunk, alpha_sum);
    }
}
