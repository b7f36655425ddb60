// What is known of a row or a part of it: moments, their merging, and the statistics that finish them.

struct Moments {
    count: REAL,
    mean: REAL,
    correction: REAL,
    m2: REAL,
    exponent: INT,
}

struct Statistics {
    mean: REAL,
    correction: REAL,
    rstd: REAL,
    exponent: INT,
}

// How far to scale numbers of exponent `old` to one of `wanted`; those that are all zero need none.
fn steps(old: INT, wanted: INT) -> INT {
    return select(old - wanted, INT(0), old == INT(NONE));
}

// Numbers that are compared as bits, so that NaN is the largest.
fn larger(a: REAL, b: REAL) -> REAL {
    return select(a, b, magnitude(b) > magnitude(a));
}

fn merge(a: Moments, b: Moments) -> Moments {
    let e = max(a.exponent, b.exponent);
    let down_a = steps(a.exponent, e);
    let down_b = steps(b.exponent, e);
    let m2_a = scale_m2(a.m2, down_a);
    let m2_b = scale_m2(b.m2, down_b);
    var both = Moments(opaque(a.count + b.count), REAL(0.0), REAL(0.0), REAL(0.0), e);
    if LARGEST_ONE {
        both.m2 = larger(m2_a, m2_b);
    } else {
        both.m2 = opaque(m2_a + m2_b);
    }
    if MOMENTS {
        let mean_a = scale(a.mean, down_a);
        let correction_a = scale(a.correction, down_a);
        let r = opaque(b.count * nearest_recip(both.count, REAL(0.0)));
        let d = opaque(
            opaque(scale(b.mean, down_b) - mean_a) + opaque(scale(b.correction, down_b) - correction_a));
        let t = opaque(d * r);
        both.m2 = opaque(both.m2 + opaque(opaque(d * t) * a.count));
        let mean = two_sum(mean_a, opaque(correction_a + t));
        both.mean = mean.hi;
        both.correction = mean.lo;
    }
    return choose(choose(both, a, b.count == REAL(0.0)), b, a.count == REAL(0.0));
}

fn choose(a: Moments, b: Moments, second: TRUTH) -> Moments {
    return Moments(
        select(a.count, b.count, second),
        select(a.mean, b.mean, second),
        select(a.correction, b.correction, second),
        select(a.m2, b.m2, second),
        select(a.exponent, b.exponent, second),
    );
}

fn finish(m: Moments) -> Statistics {
    var e = select(max(m.exponent, INT(params.eps_exponent)), m.exponent, m.exponent == INT(0));
    e = select(e, INT(0), e == INT(NONE));
    let down = steps(m.exponent, e);
    let m2 = scale_m2(m.m2, down);
    var s = Statistics(scale(m.mean, down), scale(m.correction, down), REAL(0.0), e);
    if NORM {
        let eps = scale(REAL(params.eps), -e);
        let q = root_of(m2);
        // By bits, so that NaN is larger than any eps.
        let above = magnitude(q) > magnitude(eps);
        let of_eps = select(REAL(0.0), nearest_recip(eps, REAL(0.0)), eps > REAL(0.0));
        s.rstd = select(of_eps, nearest_recip(q, REAL(0.0)), above);
        s.mean = select(REAL(0.0), q, above);
    } else {
        let v = quotient_parts(m2, m.count);
        if OUTSIDE {
            let q = sqrt_parts(v.hi, v.lo);
            let d = two_sum(q.hi, scale(REAL(params.eps), -e));
            s.rstd = nearest_recip(d.hi, select(REAL(0.0), opaque(d.lo + q.lo), magnitude(d.hi) < BITS(INFINITY)));
            if !MOMENTS {
                s.mean = q.hi;
            }
        } else {
            let d = two_sum(v.hi, scale(REAL(params.eps), -2 * e));
            s.rstd = nearest_rsqrt(d.hi, select(REAL(0.0), opaque(d.lo + v.lo), magnitude(d.hi) < BITS(INFINITY)));
        }
        let largest = REAL(LARGEST);
        let of_eps = scale(REAL(params.eps_rstd), e);
        let held = select(largest, of_eps, magnitude(of_eps) < BITS(INFINITY));
        s.rstd = select(s.rstd, held, (magnitude(m2) == BITS(0u)) & (e != INT(0)) & TRUTH(params.eps > 0.0));
    }
    let empty = m.count == REAL(0.0);
    return Statistics(
        select(s.mean, REAL(0.0), empty),
        select(s.correction, REAL(0.0), empty),
        select(s.rstd, REAL(0.0), empty),
        select(s.exponent, INT(0), empty),
    );
}
