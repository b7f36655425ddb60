// The terms of weight and bias: g * x_hat and g, g being the gradient of v and x_hat from the saved statistics, or, where the
// elements that share a parameter in a row have been summed already, both FROM_SUMS.

// x_hat of the current row.
fn x_hat() -> vec4<f32> {
    let e = INT(statistics_at(col, 3u));
    var x = x_at(col);
    if any(e != INT(0)) {
        x = scale4(x, -e);
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
        let g = INT(sums_at(col, 4u));
        let p = select(g + INT(sums_at(col, 5u)), INT(0), g == INT(NONE));
        var sums = Both(sums_at(col, 2u), sums_at(col, 1u));
        if any(p != INT(0)) {
            sums = Both(scale4(sums.weight, p), scale4(sums.bias, p));
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
