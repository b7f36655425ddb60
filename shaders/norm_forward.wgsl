// y = (x - mean) * rstd * weight + bias, by leaves of rows, in up to three stages: COMPUTE the leaf's moments, FINISH
// them to statistics, APPLY those. A row that fits is read once and held in registers; a workgroup that takes several such
// rows, one each turn, keeps weight and bias as well. What x is made of and what becomes of y is the prologue's and the
// epilogue's.

var<private> held: array<vec4<f32>, HELD_QUADS + 1u>;
var<private> kept_weight: array<vec4<f32>, HELD_QUADS + 1u>;
var<private> kept_bias: array<vec4<f32>, HELD_QUADS + 1u>;
// Those of all of the row, where they do not vary in it.
var<private> row_weight: vec4<f32>;
var<private> row_bias: vec4<f32>;
var<private> statistics_of_row: Statistics;

// What the norm gives of the scaled elements at `col`.
fn normed(col: u32, x: vec4<f32>, weight: vec4<f32>, bias: vec4<f32>) -> vec4<f32> {
    let s = statistics_of_row;
    var y = x;
    if MOMENTS {
        y = opaque4(opaque4(y - s.mean) - s.correction);
    }
    return value(col, opaque4(y * s.rstd), weight, bias);
}

fn normed_any(col: u32, x: vec4<f32>) -> vec4<f32> {
    if CONSTANT_IN_ROW {
        return normed(col, x, row_weight, row_bias);
    }
    return normed(col, x, full_weight(col), bias_at(col));
}

// Of elements that are not scaled yet.
fn normed_again(col: u32, x: vec4<f32>) -> vec4<f32> {
    return normed_any(col, scale_row(x, -statistics_of_row.exponent));
}

// Writes what is normalized.
fn write_hidden(col: u32, x: vec4<f32>) {
    let count = there(col);
    if count > 0u && is_delivered() {
        hidden_set(col, count, x);
    }
}

fn fast_write(i: u32, col: u32) {
    let x = element(i, col);
    if KEPT {
        emit(col, x, normed(col, x, kept_weight[i], kept_bias[i]));
    } else {
        emit(col, x, normed_any(col, x));
    }
}

fn slow_write(col: u32) {
    let x = x_at(col);
    emit(col, x, normed_again(col, x));
}

// What is normalized, of operands that are in registers if they have been normalized for themselves.
fn x_first(i: u32, col: u32) -> vec4<f32> {
    if INNER_COMPUTED {
        return hidden_of(of_inner_kept(i, col, held[i]), residual_first(i, col));
    }
    return x_at(col);
}

// What is to be done for the current rows' leaf.
fn forward_leaf() {
    var s: Statistics;
    enter_inner();
    enter_mix();
    if COMPUTE {
        for (var step = 0u; step < HELD; step++) { // unrolled
            for (var quad = 0u; quad < QUADS; quad++) { // unrolled
                held[step * QUADS + quad] = x_first(step * QUADS + quad, column(step, quad));
            }
        }
        let m = leaf_moments();
        if HAS_MOMENTS && is_first() {
            let at = MOMENTS_SIZE * leaf;
            moments_set(at, m.count);
            moments_set(at + 1u, m.mean);
            moments_set(at + 2u, m.correction);
            moments_set(at + 3u, m.m2);
            moments_set(at + 4u, REAL(m.exponent));
        }
        if FINISH {
            s = finish(m);
        }
    } else {
        s = Statistics(given_get(0u), given_get(1u), given_get(2u), INT(given_get(3u)));
    }
    if HAS_STATISTICS && is_first() && leaf == 0u {
        statistics_set(0u, s.mean);
        statistics_set(1u, s.correction);
        statistics_set(2u, s.rstd);
        statistics_set(3u, REAL(s.exponent));
    }
    if APPLY {
        statistics_of_row = s;
        if CONSTANT_IN_ROW {
            row_weight = full_weight(0u);
            row_bias = bias_at(0u);
        }
        apply_all(some(s.exponent != INT(0)));
    }
}

@compute @workgroup_size(GROUP)
fn norm_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(INVOCATION) invocation: u32,
) {
    if !enter(group, groups, invocation, 0u) {
        return;
    }
    if KEPT {
        for (var step = 0u; step < HELD; step++) { // unrolled
            for (var quad = 0u; quad < QUADS; quad++) { // unrolled
                kept_weight[step * QUADS + quad] = full_weight(column(step, quad));
                kept_bias[step * QUADS + quad] = bias_at(column(step, quad));
                keep_inner(step * QUADS + quad, column(step, quad));
                keep_mix(step * QUADS + quad, column(step, quad));
            }
        }
    }
    if KEPT {
        for (var turn = 0u; turn < params.turns; turn++) {
            enter(group, groups, invocation, turn);
            forward_leaf();
        }
    } else {
        forward_leaf();
    }
}
