// The gradient of an element from the numbers of its row: the saved statistics and the sums of all of the row.

// Exponents taken out of the gradient of v and of the weight.
var<private> g_exponent: INT;
var<private> w_exponent: INT;
var<private> c1: REAL;
var<private> c2: REAL;
// The weight that is the same in all of the row, as a number of ordinary size and a power of two.
var<private> outer_weight: REAL;
var<private> outer_exponent: INT;

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

fn is_ordinary(bits: BITS) -> TRUTH {
    return (bits > BITS(0u)) & (bits < BITS(INFINITY));
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
    if HAS_MASK || !COMPUTE || BRANCH {
        inv = nearest_recip(sums.count, REAL(0.0));
    }
    c1 = opaque(sums.s1 * inv);
    c2 = opaque(sums.s2 * inv);
    if OUTSIDE && MOMENTS {
        // The root's share of the divisor, which has not been saved.
        let share = opaque(1.0 - opaque(s.rstd * scale(REAL(params.eps), -s.exponent)));
        c2 = select(REAL(0.0), opaque(c2 * nearest_recip(share, REAL(0.0))), share > REAL(0.0));
    } else if OUTSIDE {
        c2 = select(opaque(c2 * nearest_recip(opaque(s.rstd * s.mean), REAL(0.0))), REAL(0.0), s.mean == REAL(0.0));
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

fn enter_weight(col: u32) {
    let w = row_number(full_weight(col));
    let bits = magnitude(w);
    // Within 2^-63 and 2^63.
    let usual = ((bits >= BITS(0x20000000u)) & (bits < BITS(0x5f000000u))) | !is_ordinary(bits);
    outer_exponent = select(exponent_of(bits), INT(0), usual);
    outer_weight = scale(w, -outer_exponent);
}

// The sums of all of the row are known; `col` is one of its columns. Whether the row needs scaling.
fn enter_row(sums: RowSums, col: u32) -> bool {
    row_constants(sums);
    outer_exponent = INT(0);
    if OUTER_WEIGHT {
        enter_weight(col);
    }
    return some((g_exponent | w_exponent | s.exponent | outer_exponent) != INT(0));
}

// The gradient of what is normalized.
fn gradient_of(col: u32, ghat: vec4<f32>, hat: vec4<f32>, slow: bool) -> vec4<f32> {
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
    return d;
}

// From that to the gradients of what a scaled branch is, and of the prologue's other operand.
fn of_parts(col: u32, d: vec4<f32>, input: vec4<f32>, before: vec4<f32>) -> OfHidden {
    var both = of_hidden(d, input, before);
    if DROPOUT {
        both.input = select(vec4<f32>(0.0), both.input, kept_at(col));
    }
    return both;
}

// The terms of the gradients of a branch's bias and of its scale.
struct OfBranch {
    bias: vec4<f32>,
    scale: vec4<f32>,
}

fn of_branch(col: u32, ghat: vec4<f32>, hat: vec4<f32>, slow: bool) -> OfBranch {
    let none = vec4<f32>(0.0);
    let d = of_parts(col, gradient_of(col, ghat, hat, slow), none, none).input;
    return OfBranch(scaled_branch(col, d), opaque4(d * shifted_at(col)));
}
