// The backward pass by chunks of rows, with the partial sums of the parameters' gradients in registers beside the row
// itself: see `affine` for the sums and `columns` for where they go.

var<private> weight_leaf: array<vec4<f32>, HELD_QUADS>;
var<private> bias_leaf: array<vec4<f32>, HELD_QUADS>;
var<private> weight_sum: array<vec4<f32>, HELD_QUADS>;
var<private> bias_sum: array<vec4<f32>, HELD_QUADS>;

// The current row's terms of the weight's and the bias's gradients.
fn add_terms(i: u32, column: u32) {
    let g = select(vec4<f32>(0.0), only_part(column, held_g[i]), vec4<bool>(live));
    bias_leaf[i] += g;
    var hat = held_hat[i];
    if ROUND {
        hat = round_input(hat);
    }
    let product = only_part(column, opaque4(held_g[i] * hat));
    weight_leaf[i] += select(vec4<f32>(0.0), product, vec4<bool>(live));
}

@compute @workgroup_size(GROUP)
fn norm_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(INVOCATION) invocation: u32,
) {
    chunk = params.first_chunk + number_of(group, groups, invocation);
    let there_is = chunk < params.chunks;
    chunk = min(chunk, params.chunks - 1u);
    let first = first_row_of_chunk();
    let end = end_row_of_chunk();
    locate(first);
    for (var step = 0u; step < HELD; step++) { // unrolled
        for (var quad = 0u; quad < QUADS; quad++) { // unrolled
            kept_weight[step * QUADS + quad] = full_weight(column(step, quad));
            kept_bias[step * QUADS + quad] = bias_at(column(step, quad));
            keep_inner(step * QUADS + quad, column(step, quad));
            keep_mix(step * QUADS + quad, column(step, quad));
            weight_sum[step * QUADS + quad] = zero4();
            bias_sum[step * QUADS + quad] = zero4();
        }
    }
    // As many for all, so that all threads meet wherever a row's threads do.
    let most = min(params.chunk_rows, params.rows);
    for (var at = 0u; at < most; at += ROW_LEAF) {
        for (var i = 0u; i < HELD_QUADS; i++) { // unrolled
            weight_leaf[i] = zero4();
            bias_leaf[i] = zero4();
        }
        for (var row = at; row < min(at + ROW_LEAF, most); row++) {
            live = there_is && first + row < end;
            slot = min(first + row, end - 1u) - params.first_row;
            locate(params.first_row + slot);
            backward_leaf();
            for (var step = 0u; step < HELD; step++) { // unrolled
                for (var quad = 0u; quad < QUADS; quad++) { // unrolled
                    add_terms(step * QUADS + quad, column(step, quad));
                }
            }
        }
        for (var i = 0u; i < HELD_QUADS; i++) { // unrolled
            weight_sum[i] += weight_leaf[i];
            bias_sum[i] += bias_leaf[i];
        }
    }
    for (var step = 0u; step < HELD; step++) { // unrolled
        for (var quad = 0u; quad < QUADS; quad++) { // unrolled
            col = column(step, quad);
            if there_is && col < params.end_col {
                if SUM_WEIGHT {
                    store_partial(OF_WEIGHT, chunk, weight_sum[step * QUADS + quad]);
                }
                if SUM_BIAS {
                    store_partial(OF_BIAS, chunk, bias_sum[step * QUADS + quad]);
                }
            }
        }
    }
}
