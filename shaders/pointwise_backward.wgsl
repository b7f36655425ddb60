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
    locate(first_row_of_chunk());
    let alpha = alpha_at(0u).x;
    // Ones where there is no weight: multiplying by them changes nothing.
    let weight = weight_at(col);
    let b = two_prod4(weight, vec4<f32>(alpha));
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
                let slope = opaque4(opaque4(s.h * x) + opaque4(s.hl * x));
                alpha_leaf += times_power(opaque4(opaque4(g * weight) * slope), s.k);
            }
            if HAS_GRAD_INPUT {
                let t = two_prod4(b.hi, s.h);
                let tl = opaque4(t.lo + opaque4(opaque4(b.hi * s.hl) + opaque4(b.lo * s.h)));
                let high = opaque4(g * t.hi);
                let low = opaque4(g * tl);
                // An infinite gradient has no low part to add: it would only meet the high part as inf - inf.
                let sum = select(high, opaque4(high + low), magnitude4(low) < vec4<u32>(INFINITY));
                grad_input_set(col, min(params.cols - col, 4u), times_power(sum, s.k));
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
