// grad_input = rstd * (ghat - mean(ghat) - x_hat * mean(ghat * x_hat)), ghat = grad_output * weight, by leaves of rows, in
// up to two stages: COMPUTE the leaf's sums, APPLY those of the row. PLAIN sums are those of the parameters' gradients,
// over the part of a row that shares a parameter, or, BRANCH, those of what shifts and scales a residual's branch. A row that
// fits is read once and held in registers.

var<private> held_hat: array<vec4<f32>, HELD_QUADS + 1u>;
// The gradient of v, which is grad_output unless there is an epilogue, times the weight unless that is KEPT.
var<private> held_g: array<vec4<f32>, HELD_QUADS + 1u>;
// What is normalized is made of.
var<private> held_input: array<vec4<f32>, HELD_QUADS + 1u>;
var<private> held_before: array<vec4<f32>, HELD_QUADS + 1u>;
var<private> kept_weight: array<vec4<f32>, HELD_QUADS + 1u>;
var<private> kept_bias: array<vec4<f32>, HELD_QUADS + 1u>;
// OR of the magnitude bits of all ghat; the largest of the gradient of v and of the weight.
var<private> seen: vec4<u32>;
var<private> most_g: vec4<u32>;
var<private> most_w: vec4<u32>;
// What is known of a row needs scaling.
var<private> row_is_scaled: bool;
// The pass counts elements, and those that attain the infinity norm.
var<private> counting: bool;

// As `x_hat`, for a row of exponent 0; others are read again.
fn fast_hat(x: vec4<f32>) -> vec4<f32> {
    if PLAIN || FUSED {
        return x_hat(x);
    }
    if MOMENTS {
        return opaque4(opaque4(opaque4(x - s.mean) - s.correction) * s.rstd);
    }
    return opaque4(x * s.rstd);
}

// The gradient of v. That of the epilogue's other operand, which needs no more, `is_written` beside it: it is apart from
// all that is read.
fn g_at(col: u32, hat: vec4<f32>, weight: vec4<f32>, bias: vec4<f32>, is_written: bool) -> vec4<f32> {
    let both = of_output(col, grad_output_at(col), value(col, hat, weight, bias));
    if HAS_GRAD_AFTER && is_written {
        let count = there(col);
        if count > 0u {
            grad_after_set(col, count, both.after);
        }
    }
    return both.value;
}

fn plain_ghat(col: u32, hat: vec4<f32>, is_written: bool) -> vec4<f32> {
    let weight = full_weight(col);
    let g = g_at(col, hat, weight, bias_at(col), is_written);
    if INNER_WEIGHT {
        return opaque4(g * weight);
    }
    return g;
}

fn only_part(col: u32, x: vec4<f32>) -> vec4<f32> {
    if EXACT && !HAS_MASK {
        return x;
    }
    return select(vec4<f32>(0.0), x, takes_part(col));
}

fn terms(col: u32, ghat: vec4<f32>, hat: vec4<f32>) -> Terms {
    let g = only_part(col, ghat);
    seen |= magnitude4(g);
    if ROUND && PLAIN {
        return Terms(g, only_part(col, opaque4(ghat * round_input(hat))));
    }
    return Terms(g, only_part(col, opaque4(ghat * hat)));
}

fn held_ghat(i: u32) -> vec4<f32> {
    if KEPT && INNER_WEIGHT {
        return opaque4(held_g[i] * kept_weight[i]);
    }
    return held_g[i];
}

// Of a part of a row whose sums are known.
fn branch_term(col: u32) -> Terms {
    let read = read_again(col, row_is_scaled);
    let both = of_branch(col, read.ghat, read.hat, row_is_scaled);
    let inside = is_inside(col);
    return Terms(select(vec4<f32>(0.0), both.bias, inside), select(vec4<f32>(0.0), both.scale, inside));
}

fn fast_term(i: u32, col: u32) -> Terms {
    if BRANCH {
        return branch_term(col);
    }
    if HELD > 0u {
        return terms(col, held_ghat(i), held_hat[i]);
    }
    let hat = fast_hat(x_at(col));
    return terms(col, plain_ghat(col, hat, false), hat);
}

fn slow_term(col: u32) -> Terms {
    let x = x_at(col);
    if (HAS_MASK || LARGEST_ONE) && counting {
        let part = takes_part(col);
        let count = select(vec4<f32>(0.0), vec4<f32>(1.0), part & is_within(col, params.prefix));
        return Terms(count, select(vec4<f32>(0.0), vec4<f32>(1.0), part & attains(x)));
    }
    let hat = x_hat(x);
    let weight = full_weight(col);
    let g = g_at(col, hat, weight, bias_at(col), false);
    most_g = max(most_g, magnitude4(only_part(col, g)));
    if INNER_WEIGHT {
        most_w = max(most_w, magnitude4(only_part(col, weight)));
    }
    return terms(col, scaled_ghat(g, weight), hat);
}

// 2^100
fn is_small(x: REAL) -> TRUTH {
    return magnitude(x) < BITS(0x71800000u);
}

// As far as this pass has seen.
fn is_regular(sums: Sums) -> TRUTH {
    // Some |ghat| is at least 2^-63.
    let large = (fold_all(seen) & BITS(0x60000000u)) != BITS(0u);
    return is_small(sums.a) & is_small(sums.b) & large;
}

fn leaf_sums() -> RowSums {
    if !BRANCH {
        g_exponent = INT(0);
        w_exponent = INT(0);
    }
    seen = vec4<u32>(0u);
    counting = false;
    var sums = fast_sums();
    var of_row = RowSums(REAL(f32(leaf_length())), sums.a, sums.b, REAL(0.0), INT(0), INT(0));
    if PREFIX {
        of_row.count = REAL(f32(min(max(params.prefix, leaf_start()) - leaf_start(), leaf_length())));
    }
    if (HAS_MASK || LARGEST_ONE) && !BRANCH {
        counting = true;
        let counts = slow_sums();
        counting = false;
        of_row.ties = counts.b;
        if HAS_MASK {
            of_row.count = counts.a;
        }
    }
    if PLAIN {
        return of_row;
    }
    let good = is_regular(sums) & (s.exponent == INT(0));
    if any_row(!good) {
        most_g = vec4<u32>(0u);
        most_w = vec4<u32>(select(0x3f800000u, 0u, INNER_WEIGHT));
        var scales = !good;
        for (var round = 0u; round < 2u; round++) {
            seen = vec4<u32>(0u);
            sums = slow_sums();
            of_row.s1 = select(of_row.s1, sums.a, scales);
            of_row.s2 = select(of_row.s2, sums.b, scales);
            let g = fold_most(most_g);
            let w = fold_most(most_w);
            let finite = (g < BITS(INFINITY)) & (w < BITS(INFINITY));
            let zero = (g == BITS(0u)) | (w == BITS(0u));
            scales = scales & !is_regular(sums) & finite & (g_exponent == INT(0)) & (w_exponent == INT(0));
            of_row.g_exponent = select(of_row.g_exponent, select(exponent_of(g), INT(NONE), zero), scales);
            scales = scales & !zero;
            of_row.w_exponent = select(of_row.w_exponent, exponent_of(w), scales);
            g_exponent = select(g_exponent, exponent_of(g), scales);
            w_exponent = select(w_exponent, exponent_of(w), scales);
        }
    }
    return of_row;
}

// What the elements at `col` were made of.
struct Parts {
    input: vec4<f32>,
    before: vec4<f32>,
}

fn parts_at(col: u32) -> Parts {
    return Parts(branch_at(col), residual_at(col));
}

// The same of a thread's i-th four elements.
fn parts_first(i: u32, col: u32) -> Parts {
    if HAS_INNER {
        return Parts(of_inner_kept(i, col, input_at(col)), residual_first(i, col));
    }
    return parts_at(col);
}

// The elements at `col`, and the gradient that reaches the norm.
struct Read {
    parts: Parts,
    hat: vec4<f32>,
    ghat: vec4<f32>,
}

// Reads them again, at any scale if `slow`.
fn read_again(col: u32, slow: bool) -> Read {
    let parts = parts_at(col);
    let hidden = hidden_of(parts.input, parts.before);
    if !slow {
        let hat = fast_hat(hidden);
        return Read(parts, hat, plain_ghat(col, hat, true));
    }
    let hat = x_hat(hidden);
    let weight = full_weight(col);
    return Read(parts, hat, scaled_ghat(g_at(col, hat, weight, bias_at(col), true), weight));
}

// Writes the gradients of `count` elements from `col` on.
fn write(col: u32, count: u32, read: Read, slow: bool) {
    let both = of_parts(col, gradient_of(col, read.ghat, read.hat, slow), read.parts.input, read.parts.before);
    // Everything has been read: a gradient may be written in the place of another.
    if count > 0u {
        grad_input_set(col, count, scaled_branch(col, both.input));
        grad_before_set(col, count, both.before);
    }
}

fn fast_write(i: u32, col: u32) {
    // Threads that read the gradient for each other meet in the sums, before any of it is overwritten.
    if HELD > 0u && (COMPUTE || !PAIRS) {
        write(col, there(col), Read(Parts(held_input[i], held_before[i]), held_hat[i], held_ghat(i)), false);
    } else {
        again(col, false);
    }
}

fn slow_write(col: u32) {
    again(col, true);
}

// What is to be done for the current rows' leaf.
fn backward_leaf() {
    s = Statistics(statistics_get(0u), statistics_get(1u), statistics_get(2u), INT(statistics_get(3u)));
    enter_inner();
    enter_mix();
    for (var step = 0u; step < HELD; step++) { // unrolled
        for (var quad = 0u; quad < QUADS; quad++) { // unrolled
            let col = column(step, quad);
            let i = step * QUADS + quad;
            let parts = parts_first(i, col);
            let hat = fast_hat(hidden_of(parts.input, parts.before));
            held_hat[i] = hat;
            if IS_PRODUCT {
                held_input[i] = parts.input;
                held_before[i] = parts.before;
            }
            if KEPT {
                held_g[i] = g_at(col, hat, kept_weight[i], kept_bias[i], true);
            } else {
                held_g[i] = plain_ghat(col, hat, true);
            }
        }
    }
    var sums = RowSums(REAL(0.0), REAL(0.0), REAL(0.0), REAL(0.0), INT(0), INT(0));
    if HAS_GIVEN {
        sums = RowSums(given_get(0u), given_get(1u), given_get(2u), given_get(3u), INT(given_get(4u)),
            INT(given_get(5u)));
    }
    if BRANCH {
        row_is_scaled = enter_row(sums, 0u);
    }
    if COMPUTE {
        sums = leaf_sums();
        if HAS_SUMS && is_first() {
            let at = SUMS_SIZE * leaf;
            sums_set(at, sums.count);
            sums_set(at + 1u, sums.s1);
            sums_set(at + 2u, sums.s2);
            sums_set(at + 3u, sums.ties);
            sums_set(at + 4u, REAL(sums.g_exponent));
            sums_set(at + 5u, REAL(sums.w_exponent));
        }
    }
    if APPLY {
        if enter_row(sums, 0u) {
            slow_apply();
        } else {
            fast_apply();
        }
    }
}
