// grad_input = rstd * (ghat - mean(ghat) - x_hat * mean(ghat * x_hat)), ghat = grad_output * weight, by leaves of rows, in
// up to two stages: COMPUTE the leaf's sums, APPLY those of the row. PLAIN sums are those of the parameters' gradients,
// over the part of a row that shares a parameter. A row that fits is read once and held in registers.

var<private> held_hat: array<vec4<f32>, HELD_QUADS + 1u>;
// The gradient of v, which is grad_output unless there is an epilogue, times the weight unless that is KEPT.
var<private> held_g: array<vec4<f32>, HELD_QUADS + 1u>;
// What is normalized is made of.
var<private> held_input: array<vec4<f32>, HELD_QUADS + 1u>;
var<private> held_before: array<vec4<f32>, HELD_QUADS + 1u>;
var<private> kept_weight: array<vec4<f32>, HELD_QUADS + 1u>;
var<private> kept_bias: array<vec4<f32>, HELD_QUADS + 1u>;
var<private> s: Statistics;
// Exponents taken out of the gradient of v and of the weight.
var<private> g_exponent: INT;
var<private> w_exponent: INT;
// OR of the magnitude bits of all ghat; the largest of the gradient of v and of the weight.
var<private> seen: vec4<u32>;
var<private> most_g: vec4<u32>;
var<private> most_w: vec4<u32>;
// The pass counts elements, and those that attain the infinity norm.
var<private> counting: bool;
var<private> c1: REAL;
var<private> c2: REAL;
// The weight that is the same in all of the row, as a number of ordinary size and a power of two.
var<private> outer_weight: REAL;
var<private> outer_exponent: INT;

fn x_hat(x: vec4<f32>) -> vec4<f32> {
    let scaled = scale_row(x, -s.exponent);
    if MOMENTS {
        return opaque4(opaque4(opaque4(scaled - s.mean) - s.correction) * s.rstd);
    }
    return opaque4(scaled * s.rstd);
}

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

fn scaled_ghat(g: vec4<f32>, weight: vec4<f32>) -> vec4<f32> {
    let scaled = scale4(g, -g_exponent);
    if INNER_WEIGHT {
        return opaque4(scaled * scale4(weight, -w_exponent));
    }
    return scaled;
}

// Whether it attains the infinity norm.
fn attains(x: vec4<f32>) -> vec4<bool> {
    return magnitude4(scale_row(x, -s.exponent)) == vec4<u32>(magnitude(s.mean));
}

fn takes_part(col: u32) -> vec4<bool> {
    if HAS_MASK {
        return is_inside(col) & (magnitude4(mask_at(col)) != vec4<u32>(0u));
    }
    return is_inside(col);
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

fn fast_term(i: u32, col: u32) -> Terms {
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

fn is_ordinary(bits: BITS) -> TRUTH {
    return (bits > BITS(0u)) & (bits < BITS(INFINITY));
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
    g_exponent = INT(0);
    w_exponent = INT(0);
    seen = vec4<u32>(0u);
    counting = false;
    var sums = fast_sums();
    var of_row = RowSums(REAL(f32(leaf_length())), sums.a, sums.b, REAL(0.0), INT(0), INT(0));
    if PREFIX {
        of_row.count = REAL(f32(min(max(params.prefix, leaf_start()) - leaf_start(), leaf_length())));
    }
    if HAS_MASK || LARGEST_ONE {
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

fn row_constants(sums: RowSums) {
    g_exponent = select(sums.g_exponent, INT(0), sums.g_exponent == INT(NONE));
    w_exponent = select(sums.w_exponent, INT(0), sums.g_exponent == INT(NONE));
    // Zeros that the products know nothing of: what is not finite stays so.
    c1 = bitcast<REAL>(BITS(params.zero));
    c2 = c1;
    if FROZEN {
        return;
    }
    if NORM {
        c2 = sums.s2;
        if LARGEST_ONE {
            c2 = opaque(sums.s2 * nearest_recip(max(sums.ties, REAL(1.0)), REAL(0.0)));
        }
        c2 = select(c2, REAL(0.0), s.mean == REAL(0.0));
        return;
    }
    var inv = REAL(params.inv_count);
    if HAS_MASK || !COMPUTE {
        inv = nearest_recip(sums.count, REAL(0.0));
    }
    c1 = opaque(sums.s1 * inv);
    c2 = opaque(sums.s2 * inv);
    if OUTSIDE && MOMENTS {
        // The root's share of the divisor, which has not been saved.
        let share = opaque(1.0 - opaque(s.rstd * scale(REAL(params.eps), -s.exponent)));
        c2 = select(REAL(0.0), opaque(c2 * nearest_recip(share, REAL(0.0))), share > REAL(0.0));
    } else if OUTSIDE {
        c2 = select(opaque(c2 * nearest_recip_product(s.rstd, s.mean)), REAL(0.0), s.mean == REAL(0.0));
    }
}

// What multiplies c2.
fn direction(col: u32, hat: vec4<f32>) -> vec4<f32> {
    if !SIGNED {
        return hat;
    }
    let x = x_at(col);
    let bits = magnitude4(x);
    let sign = bitcast<vec4<u32>>(x) & vec4<u32>(0x80000000u);
    if LARGEST_ONE {
        return select(vec4<f32>(0.0), bitcast<vec4<f32>>(vec4<u32>(0x3f800000u) | sign), attains(x));
    }
    let of_power = bitcast<vec4<f32>>(magnitude4(slope(hat)) | sign);
    return select(of_power, x, bits == vec4<u32>(0u));
}

// What the elements at `col` were made of.
struct Parts {
    input: vec4<f32>,
    before: vec4<f32>,
}

fn parts_at(col: u32) -> Parts {
    return Parts(branch_at(col), before_at(col));
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
    let ghat = read.ghat;
    let hat = read.hat;
    var d = ghat;
    let product = opaque4(direction(col, hat) * c2);
    if MOMENTS {
        d = opaque4(opaque4(ghat - c1) - product);
    } else if PREFIX {
        d = select(ghat, opaque4(ghat - product), is_within(col, params.prefix));
    } else {
        d = opaque4(ghat - product);
    }
    d = opaque4(s.rstd * d);
    if OUTER_WEIGHT {
        d = opaque4(d * outer_weight);
    }
    if slow {
        d = scale4(d, g_exponent + w_exponent - s.exponent + outer_exponent);
    }
    if HAS_MASK {
        d = select(vec4<f32>(0.0), d, takes_part(col));
    }
    if HAS_GRAD_HIDDEN {
        d = opaque4(d + grad_hidden_at(col));
    }
    var both = of_hidden(d, read.parts.input, read.parts.before);
    if DROPOUT {
        both.input = select(vec4<f32>(0.0), both.input, kept_at(col));
    }
    // Everything has been read: a gradient may be written in the place of another.
    if count > 0u {
        grad_input_set(col, count, both.input);
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

fn enter_weight() {
    // The same in every column of a row.
    let w = row_number(full_weight(0u));
    let bits = magnitude(w);
    // Within 2^-63 and 2^63.
    let usual = ((bits >= BITS(0x20000000u)) & (bits < BITS(0x5f000000u))) | !is_ordinary(bits);
    outer_exponent = select(exponent_of(bits), INT(0), usual);
    outer_weight = scale(w, -outer_exponent);
}

// What is to be done for the current rows' leaf.
fn backward_leaf() {
    s = Statistics(statistics_get(0u), statistics_get(1u), statistics_get(2u), INT(statistics_get(3u)));
    for (var step = 0u; step < HELD; step++) { // unrolled
        for (var quad = 0u; quad < QUADS; quad++) { // unrolled
            let col = column(step, quad);
            let i = step * QUADS + quad;
            let parts = parts_at(col);
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
    } else if HAS_GIVEN {
        sums = RowSums(given_get(0u), given_get(1u), given_get(2u), given_get(3u), INT(given_get(4u)),
            INT(given_get(5u)));
    }
    if APPLY {
        row_constants(sums);
        outer_exponent = INT(0);
        if OUTER_WEIGHT {
            enter_weight();
        }
        if some((g_exponent | w_exponent | s.exponent | outer_exponent) != INT(0)) {
            slow_apply();
        } else {
            fast_apply();
        }
    }
}
