// Results rounded once from two float32 numbers. Arguments are (hi, lo) with lo of at most about an ulp of hi, not negative.

// An ordinary number's exponent, and zero for those that have none.
fn usual_exponent(bits: BITS) -> INT {
    return select(INT(0), exponent_of(bits), (bits >= BITS(SMALLEST)) & (bits < BITS(INFINITY)));
}

// `result` for ordinary numbers of magnitude bits `bits`; else `of_zero` and `of_infinity`, and NaN for NaN.
fn unless_special(result: REAL, x: REAL, of_zero: REAL, of_infinity: REAL) -> REAL {
    let bits = magnitude(x);
    let special = select(select(of_infinity, x, bits > BITS(INFINITY)), of_zero, bits < BITS(SMALLEST));
    return select(special, result, (bits >= BITS(SMALLEST)) & (bits < BITS(INFINITY)));
}

// A quotient as two numbers.
fn quotient_parts(x: REAL, y: REAL) -> Two {
    let q = opaque(x / y);
    let product = two_prod(q, y);
    let rest = opaque(opaque(opaque(x - product.hi) - product.lo) / y);
    let sum = two_sum(q, rest);
    let plain = magnitude(q) < BITS(INFINITY);
    return Two(select(q, sum.hi, plain), select(REAL(0.0), sum.lo, plain));
}

// 1 / sqrt(d + l) for d in [1, 4), l tiny, as a float32 and a rest: a Newton step from the built-in, then one from
// the exact residual.
fn rsqrt_parts(d: REAL, l: REAL) -> Two {
    let guess = inverseSqrt(d);
    let r = opaque(guess * (1.5 - 0.5 * d * guess * guess));
    let square = two_prod(r, r);
    let product = two_prod(d, square.hi);
    let exact = opaque(opaque(opaque(1.0 - product.hi) - product.lo) - opaque(d * square.lo));
    let residual = opaque(exact - opaque(l * square.hi));
    return Two(r, opaque(r * opaque(opaque(0.5 * residual) + opaque(0.375 * opaque(residual * residual)))));
}

// The nearest float32 to 1 / sqrt(hi + lo).
fn nearest_rsqrt(hi: REAL, lo: REAL) -> REAL {
    // An even power of two that brings hi into [1, 4), halved.
    let half = usual_exponent(magnitude(hi)) >> BITS(1u);
    let down = pow2(-half);
    let d = opaque(opaque(hi * down) * down);
    let r = rsqrt_parts(d, opaque(opaque(lo * down) * down));
    return unless_special(opaque(opaque(r.hi + r.lo) * down), hi, infinity(), REAL(0.0));
}

// sqrt(hi + lo) as the nearest float32 and a rest.
fn sqrt_parts(hi: REAL, lo: REAL) -> Two {
    let half = usual_exponent(magnitude(hi)) >> BITS(1u);
    let down = pow2(-half);
    let d = opaque(opaque(hi * down) * down);
    let l = opaque(opaque(lo * down) * down);
    let q = opaque(d * rsqrt_parts(d, l).hi);
    let square = two_prod(q, q);
    let residual = opaque(opaque(opaque(d - square.hi) - square.lo) + l);
    let rest = opaque(opaque(0.5 * residual) / q);
    let root = opaque(q + rest);
    let low = opaque(opaque(q - root) + rest);
    return Two(
        unless_special(opaque(root * pow2(half)), hi, REAL(0.0), hi),
        unless_special(opaque(low * pow2(half)), hi, REAL(0.0), REAL(0.0)),
    );
}

// The nearest float32 to 1 / (hi + lo).
fn nearest_recip(hi: REAL, lo: REAL) -> REAL {
    let exponent = usual_exponent(magnitude(hi));
    let d = scale(hi, -exponent);
    let guess = opaque(1.0 / d);
    let r = opaque(guess + opaque(guess * opaque(1.0 - opaque(d * guess))));
    let product = two_prod(d, r);
    let residual = opaque(opaque(opaque(1.0 - product.hi) - product.lo) - opaque(r * scale(lo, -exponent)));
    let better = opaque(r + opaque(r * opaque(residual + opaque(residual * residual))));
    return unless_special(scale(better, -exponent), hi, infinity(), REAL(0.0));
}
