// Powers of magnitudes, as docs/numerics.md defines them, of numbers of a row; `power_each` has the same for elements.

const SEED_0 = 2.1212120056152344;
const SEED_1 = -1.454545497894287;
const SEED_2 = 0.3232323229312897;
const THIRD = 0.3333333432674408;
const THIRD_LOW = -9.934107758624577e-09;
const TWO_LOG2E = 2.885390043258667;
const TWO_LOG2E_LOW = 3.851926067000022e-08;
const NATURAL = 0.6931471824645996;
const NATURAL_LOW = -1.9046542121259336e-09;
const ATANH_5 = 0.20000000298023224;
const ATANH_7 = 0.1428571492433548;
const ATANH_9 = 0.1111111119389534;
const ATANH_11 = 0.09090909361839294;
const ATANH_13 = 0.07692307978868484;
const ATANH_15 = 0.06666667014360428;
const ROUNDS = 12582912.0;

fn log2_parts(x: REAL) -> Two {
    // A number so small that its exponent field may say nothing is raised first.
    let small = magnitude(x) < BITS(0x1f800000u);
    let a = select(x, opaque(x * 1.8446744073709552e19), small);
    let bits = magnitude(a);
    var k = INT(bits >> BITS(23u)) - INT(127);
    var m = bitcast<REAL>((bits & BITS(0x7fffffu)) | BITS(0x3f800000u));
    let high = m > REAL(1.4142135);
    m = select(m, m * 0.5, high);
    k = select(k, k + INT(1), high) - select(INT(0), INT(64), small);
    // log2(m) = 2 / ln 2 * atanh(s), s = (m - 1) / (m + 1).
    let f = opaque(m - 1.0);
    let d = two_sum(m, REAL(1.0));
    let h = d.hi * 0.5;
    var r = opaque(opaque(opaque(opaque(REAL(SEED_2) * h) + SEED_1) * h) + SEED_0);
    for (var i = 0u; i < 3u; i++) {
        r = opaque(r + opaque(r * opaque(1.0 - opaque(h * r))));
    }
    r = r * 0.5;
    let s = opaque(f * r);
    let t = two_prod(s, d.hi);
    let sl = opaque(r * opaque(opaque(opaque(f - t.hi) - t.lo) - opaque(s * d.lo)));
    // atanh(s) = s + s (w / 3 + w^2 (1/5 + w / 7 + ...)), w = s^2.
    let w = two_prod(s, s);
    let wl = opaque(w.lo + opaque(opaque(2.0 * s) * sl));
    var q = REAL(ATANH_15);
    q = opaque(opaque(q * w.hi) + ATANH_13);
    q = opaque(opaque(q * w.hi) + ATANH_11);
    q = opaque(opaque(q * w.hi) + ATANH_9);
    q = opaque(opaque(q * w.hi) + ATANH_7);
    q = opaque(opaque(q * w.hi) + ATANH_5);
    let c = two_sum(REAL(THIRD), opaque(w.hi * q));
    let cl = opaque(c.lo + THIRD_LOW);
    let u = two_prod(w.hi, c.hi);
    let ul = opaque(u.lo + opaque(opaque(w.hi * cl) + opaque(wl * c.hi)));
    let v = two_prod(s, u.hi);
    let vl = opaque(v.lo + opaque(opaque(s * ul) + opaque(sl * u.hi)));
    let b = two_sum(s, v.hi);
    let bl = opaque(b.lo + opaque(sl + vl));
    let l = two_prod(b.hi, REAL(TWO_LOG2E));
    let ll = opaque(l.lo + opaque(opaque(b.hi * TWO_LOG2E_LOW) + opaque(bl * TWO_LOG2E)));
    let sum = two_sum(REAL(k), l.hi);
    return Two(sum.hi, opaque(sum.lo + ll));
}

// 2^(y + yl) as a factor near 1 and an exponent.
struct Exp2 {
    factor: REAL,
    k: INT,
}

fn exp2_parts(wide: REAL, wide_low: REAL) -> Exp2 {
    // Beyond this every number that it multiplies leaves the range.
    let beyond = magnitude(wide) > BITS(0x43fc0000u);
    let y = select(wide, REAL(0.0), beyond);
    let yl = select(wide_low, REAL(0.0), beyond);
    let kf = opaque(opaque(y + ROUNDS) - ROUNDS);
    let r = two_sum(opaque(y - kf), yl);
    let z = two_prod(r.hi, REAL(NATURAL));
    let zl = opaque(z.lo + opaque(opaque(r.hi * NATURAL_LOW) + opaque(r.lo * NATURAL)));
    var q = REAL(2.48015873e-5);
    q = opaque(opaque(q * z.hi) + 1.98412698e-4);
    q = opaque(opaque(q * z.hi) + 1.38888889e-3);
    q = opaque(opaque(q * z.hi) + 8.33333333e-3);
    q = opaque(opaque(q * z.hi) + 4.16666667e-2);
    q = opaque(opaque(q * z.hi) + 1.66666667e-1);
    q = opaque(opaque(q * z.hi) + 0.5);
    let w = opaque(opaque(z.hi * z.hi) * q);
    let p = opaque(z.hi + w);
    let pl = opaque(opaque(opaque(z.hi - p) + w) + opaque(zl * opaque(1.0 + p)));
    let one = two_sum(REAL(1.0), p);
    let factor = opaque(one.hi + opaque(one.lo + pl));
    let far = select(INT(378), INT(-378), (bitcast<BITS>(wide) >> BITS(31u)) == BITS(1u));
    return Exp2(select(factor, REAL(1.0), beyond), select(INT(kf), far, beyond));
}

// a^(p.hi + p.lo) of a magnitude; zero, infinity and NaN stay.
fn real_power(a: REAL, p: Two) -> REAL {
    let bits = magnitude(a);
    let usual = (bits > BITS(0u)) & (bits < BITS(0x7f800000u));
    let l = log2_parts(select(REAL(1.0), a, usual));
    let y = two_prod(l.hi, REAL(p.hi));
    let yl = opaque(y.lo + opaque(opaque(l.lo * p.hi) + opaque(l.hi * p.lo)));
    let power = exp2_parts(y.hi, yl);
    return select(a, scale(power.factor, power.k), usual);
}
