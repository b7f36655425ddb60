// y = f(alpha, x) * weight + bias. A thread owns four columns, reads their weight and bias once and takes
// `turns` rows one after the other; a workgroup's threads are neighbours in a row.

@compute @workgroup_size(GROUP)
fn pointwise_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    // Workgroups are counted along a row first; `col_groups` of them cover it.
    let index = group.x + group.y * groups.x;
    let col = 4u * ((index % params.col_groups) * GROUP + invocation);
    if col >= params.cols {
        return;
    }
    locate(params.first_row);
    let alpha = alpha_at(0u).x;
    let weight = weight_at(col);
    let bias = bias_at(col);
    let first = (index / params.col_groups) * params.turns;
    for (var row = first; row < min(first + params.turns, params.rows); row++) {
        locate(params.first_row + row);
        var y = value(alpha, input_at(col));
        if HAS_WEIGHT {
            y = opaque4(y * weight);
        }
        if HAS_BIAS {
            y += bias;
        }
        output_set(col, min(params.cols - col, 4u), y);
    }
}
