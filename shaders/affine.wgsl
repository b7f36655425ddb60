// Partial sums of g * x_hat and of g over the rows of a chunk, g being the gradient of v: x_hat from the saved
// statistics, or, where the elements that share a parameter in a row have been summed already, both FROM_SUMS.

fn scale_each(x: vec4<f32>, p: vec4<i32>) -> vec4<f32> {
    return vec4<f32>(scale(x.x, p.x), scale(x.y, p.y), scale(x.z, p.z), scale(x.w, p.w));
}

fn exponents(x: vec4<f32>) -> vec4<i32> {
    return vec4<i32>(x);
}

// x_hat of the current row.
fn x_hat() -> vec4<f32> {
    let e = exponents(statistics_at(col, 3u));
    var x = x_at(col);
    if any(e != vec4<i32>(0)) {
        x = scale_each(x, -e);
    }
    if MOMENTS {
        x = opaque4(opaque4(x - statistics_at(col, 0u)) - statistics_at(col, 1u));
    }
    return opaque4(x * statistics_at(col, 2u));
}

fn only_part(x: vec4<f32>) -> vec4<f32> {
    if HAS_MASK {
        return select(vec4<f32>(0.0), x, magnitude4(mask_at(col)) != vec4<u32>(0u));
    }
    return x;
}

struct Both {
    weight: vec4<f32>,
    bias: vec4<f32>,
}

// The current row's terms.
fn both() -> Both {
    if FROM_SUMS {
        let g = exponents(sums_at(col, 4u));
        let p = select(g + exponents(sums_at(col, 5u)), vec4<i32>(0), g == vec4<i32>(NONE));
        var sums = Both(sums_at(col, 2u), sums_at(col, 1u));
        if any(p != vec4<i32>(0)) {
            sums = Both(scale_each(sums.weight, p), scale_each(sums.bias, p));
        }
        return sums;
    }
    var hat = x_hat();
    let g = of_output(col, grad_output_at(col), value(col, hat, full_weight(col), bias_at(col))).value;
    if SUM_WEIGHT {
        if ROUND {
            hat = round_input(hat);
        }
        return Both(only_part(opaque4(g * hat)), only_part(g));
    }
    return Both(g, only_part(g));
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
            let terms = both();
            weight_leaf += terms.weight;
            bias_leaf += terms.bias;
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
