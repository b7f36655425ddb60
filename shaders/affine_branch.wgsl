// The terms of a branch's scale and bias, in the places of those of weight and bias. The sums of all rows are given.

fn is_within(column: u32, end: u32) -> vec4<bool> {
    return columns_of(column) < vec4<u32>(end);
}

// What is summed of other columns is not stored.
fn is_inside(column: u32) -> vec4<bool> {
    return vec4<bool>(true);
}

struct Both {
    weight: vec4<f32>,
    bias: vec4<f32>,
}

// The current row's terms.
fn both() -> Both {
    s = Statistics(statistics_at(col, 0u), statistics_at(col, 1u), statistics_at(col, 2u), INT(statistics_at(col, 3u)));
    let of_row = RowSums(given_at(col, 0u), given_at(col, 1u), given_at(col, 2u), given_at(col, 3u),
        INT(given_at(col, 4u)), INT(given_at(col, 5u)));
    let slow = enter_row(of_row, col);
    let hat = x_hat(x_at(col));
    let weight = full_weight(col);
    let g = of_output(col, grad_output_at(col), value(col, hat, weight, bias_at(col))).value;
    let terms = of_branch(col, scaled_ghat(g, weight), hat, slow);
    return Both(terms.scale, terms.bias);
}
