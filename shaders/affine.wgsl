// Partial sums of grad_output * x_hat and of grad_output over the rows of a chunk, x_hat from the saved statistics.

fn x_hat(row: u32) -> vec4<f32> {
    let at = 4u * (row - params.first_row);
    let x = scale_row(input_at(col), -i32(statistics_get(at + 3u)));
    var e = x;
    if MOMENTS {
        e = opaque4(opaque4(x - statistics_get(at)) - statistics_get(at + 1u));
    }
    let hat = opaque4(e * statistics_get(at + 2u));
    if ROUND {
        return round_input(hat);
    }
    return hat;
}

@compute @workgroup_size(GROUP)
fn affine(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    if !enter_columns(group, groups, invocation) {
        return;
    }
    var weight_sum = begin_partial(OF_WEIGHT);
    var bias_sum = begin_partial(OF_BIAS);
    let end = end_row_of_chunk();
    for (var leaf = first_row_of_chunk(); leaf < end; leaf += ROW_LEAF) {
        var weight_leaf = zero4();
        var bias_leaf = zero4();
        for (var row = leaf; row < min(leaf + ROW_LEAF, end); row++) {
            locate(row);
            let g = grad_output_at(col);
            if SUM_WEIGHT {
                weight_leaf += opaque4(g * x_hat(row));
            }
            bias_leaf += g;
        }
        weight_sum += weight_leaf;
        bias_sum += bias_leaf;
    }
    if SUM_WEIGHT {
        store_partial(OF_WEIGHT, chunk, weight_sum);
    }
    if SUM_BIAS {
        store_partial(OF_BIAS, chunk, bias_sum);
    }
}
