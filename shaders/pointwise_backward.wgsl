// grad_input = grad_output * weight * alpha * sech(alpha x)^2, and partial sums of the parameters' gradients over the
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
    let alpha = alpha_at(0u).x;
    let weight = weight_at(col);
    var b = Two4(vec4<f32>(alpha), vec4<f32>(0.0));
    if HAS_WEIGHT {
        b = two_prod4(weight, vec4<f32>(alpha));
    }
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
            let x = input_at(col);
            let z = scaled_input(alpha, x);
            let s = tanh_backward(z.hi, z.lo);
            if SUM_WEIGHT {
                weight_leaf += opaque4(g * s.t);
            }
            bias_leaf += g;
            if SUM_ALPHA {
                let slope = scale_each(opaque4(opaque4(s.h * x) + opaque4(s.hl * x)), s.k);
                var gw = g;
                if HAS_WEIGHT {
                    gw = opaque4(g * weight);
                }
                alpha_leaf += opaque4(gw * slope);
            }
            if HAS_GRAD_INPUT {
                let t = two_prod4(b.hi, s.h);
                let tl = opaque4(t.lo + opaque4(opaque4(b.hi * s.hl) + opaque4(b.lo * s.h)));
                let d = scale_each(opaque4(opaque4(g * t.hi) + opaque4(g * tl)), s.k);
                grad_input_set(col, params.cols, d);
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
