//! Powers of magnitudes, as `docs/numerics.md` defines them: binary powering for small integers, else `exp2(p log2 a)`
//! in two numbers, of additions and multiplications only.

use super::real::{Real, two_prod, two_sum};

/// The largest p that a norm may have: beyond it the power of a number below 2 leaves the range of float32.
pub(super) const LARGEST: f64 = 100.0;
/// Integers up to this one are powers by multiplication.
const LARGEST_INTEGER: f64 = 64.0;

/// An exponent, ready to raise numbers to.
#[derive(Clone, Copy)]
pub(super) enum Exponent<F> {
    /// By multiplication.
    Integer(u32),
    /// As the sum of two numbers.
    Real(F, F),
}

impl<F: Real> Exponent<F> {
    pub(super) fn new(p: f64) -> Self {
        if p.fract() == 0.0 && (0.0..=LARGEST_INTEGER).contains(&p) {
            return Exponent::Integer(p as u32);
        }
        let (high, low) = constant(p, 0.0);
        Exponent::Real(high, low)
    }

    /// `a^p` for a magnitude `a`.
    #[inline(never)]
    pub(super) fn of(self, a: F) -> F {
        match self {
            Exponent::Integer(p) => integer_power(a, p),
            Exponent::Real(high, low) => real_power(a, high, low),
        }
    }
}

/// `m2 * 2^(by * p)`.
pub(super) fn scale_power<F: Real>(m2: F, by: i32, p: f64) -> F {
    match Exponent::<F>::new(p) {
        Exponent::Integer(p) => m2.scale(by.saturating_mul(p as i32)),
        Exponent::Real(high, low) => {
            let by = F::of(f64::from(by));
            let (y, yl) = two_prod(by, high);
            let (factor, k) = exp2(y, yl + by * low);
            (m2 * factor).scale(k)
        }
    }
}

/// The p-th root.
pub(super) fn root<F: Real>(m2: F, p: f64) -> F {
    let inverse = 1.0 / p;
    let (t, te) = two_prod(inverse, p);
    let (high, low) = constant(inverse, ((1.0 - t) - te) * inverse);
    real_power(m2, high, low)
}

/// The float64 `high + low` as two numbers of type F.
fn constant<F: Real>(high: f64, low: f64) -> (F, F) {
    let first = F::of(high);
    (first, F::of((high - first.to_f64()) + low))
}

/// Left to right through the bits of `p`.
#[inline(always)]
fn integer_power<F: Real>(a: F, p: u32) -> F {
    if p == 0 {
        return F::ONE;
    }
    let mut result = a;
    for bit in (0..p.ilog2()).rev() {
        result = result * result;
        if p >> bit & 1 == 1 {
            result = result * a;
        }
    }
    result
}

/// `a^(p + pl)`; zero, infinity and NaN stay. Compiled once: powers are rare, and long.
#[inline(never)]
fn real_power<F: Real>(a: F, p: F, pl: F) -> F {
    if a == F::ZERO || a.magnitude() > F::MAX.magnitude() {
        return a;
    }
    let (l, ll) = log2(a);
    let (y, ye) = two_prod(l, p);
    let (factor, k) = exp2(y, ye + (ll * p + l * pl));
    factor.scale(k)
}

/// `2^(y + yl)` as a factor near 1 and an exponent.
#[inline(always)]
fn exp2<F: Real>(y: F, yl: F) -> (F, i32) {
    // Beyond this every number that it multiplies leaves the range.
    let limit = F::of(4.0 * f64::from(F::SCALE_STEP));
    if y.abs() > limit {
        return (F::ONE, if y < F::ZERO { -3 * F::SCALE_STEP } else { 3 * F::SCALE_STEP });
    }
    let kf = (y + F::MAGIC) - F::MAGIC;
    let (r, rl) = two_sum(y - kf, yl);
    let (ln2, ln2_low) = constant::<F>(std::f64::consts::LN_2, 2.319_046_813_846_299_6e-17);
    let (z, ze) = two_prod(r, ln2);
    let (p, pl) = expm1(z, ze + (r * ln2_low + rl * ln2));
    let (one, rest) = two_sum(F::ONE, p);
    (one + (rest + pl), kf.to_f32() as i32)
}

/// `log2(a)` of a positive number as two numbers.
#[inline(always)]
#[allow(clippy::approx_constant, reason = "a threshold near the constant, the same in both types")]
fn log2<F: Real>(a: F) -> (F, F) {
    // A number so small that its exponent field may say nothing is raised first.
    let half = F::SCALE_STEP / 2 + 1;
    let small = a < F::exp2(-half);
    let a = if small { a * F::exp2(half) } else { a };
    let mut k = F::exponent(a.magnitude());
    let step = (-k).clamp(-F::SCALE_STEP, F::SCALE_STEP);
    let mut m = a * F::exp2(step) * F::exp2(-k - step);
    if m > F::of(1.414_213_5) {
        m = m * F::of(0.5);
        k += 1;
    }
    if small {
        k -= half;
    }
    // log2(m) = 2 / ln 2 * atanh(s), s = (m - 1) / (m + 1).
    let f = m - F::ONE;
    let (d, dl) = two_sum(m, F::ONE);
    let half_d = d * F::of(0.5);
    let mut r = seed(half_d);
    for _ in 0..F::NEWTON_STEPS {
        r = r + r * (F::ONE - half_d * r);
    }
    let r = r * F::of(0.5);
    let s = f * r;
    let (t, te) = two_prod(s, d);
    let sl = r * (((f - t) - te) - s * dl);
    // atanh(s) = s + s (w / 3 + w² (1/5 + w / 7 + ...)), w = s².
    let (w, we) = two_prod(s, s);
    let wl = we + (F::TWO * s) * sl;
    let terms = if size_of::<F>() == 4 { 6 } else { 15 };
    let mut q = F::of(1.0 / f64::from(2 * terms + 3));
    for i in (1..terms).rev() {
        q = q * w + F::of(1.0 / f64::from(2 * i + 3));
    }
    let (third, third_low) = constant::<F>(1.0 / 3.0, 1.850_371_707_708_594e-17);
    let (c, cl) = two_sum(third, w * q);
    let cl = cl + third_low;
    let (u, ue) = two_prod(w, c);
    let ul = ue + (w * cl + wl * c);
    // s + s (u + ul)
    let (v, ve) = two_prod(s, u);
    let vl = ve + (s * ul + sl * u);
    let (h, hl) = two_sum(s, v);
    let hl = hl + (sl + vl);
    let (factor, factor_low) = constant::<F>(std::f64::consts::LOG2_E * 2.0, 4.071_054_748_186_206_6e-17);
    let (l, le) = two_prod(h, factor);
    let ll = le + (h * factor_low + hl * factor);
    let (sum, low) = two_sum(F::of(f64::from(k)), l);
    (sum, low + ll)
}

/// `exp(r + rl) - 1` as `p + pl`.
#[inline(always)]
fn expm1<F: Real>(r: F, rl: F) -> (F, F) {
    let w = (r * r) * taylor(r);
    let p = r + w;
    (p, ((r - p) + w) + rl * (F::ONE + p))
}

/// `(exp(r) - 1 - r) / r²`, for |r| up to half of ln 2.
#[inline(always)]
fn taylor<F: Real>(r: F) -> F {
    let mut q = F::TAYLOR[F::TAYLOR.len() - 1];
    for i in (0..F::TAYLOR.len() - 1).rev() {
        q = q * r + F::TAYLOR[i];
    }
    q
}

/// `1 / d` for d in [1, 2] to 1 %: no quadratic has a smaller relative error.
#[inline(always)]
fn seed<F: Real>(d: F) -> F {
    let (c0, c1, c2) = (F::of(SEED[0]), F::of(SEED[1]), F::of(SEED[2]));
    c0 + d * (c1 + d * c2)
}

/// Coefficients of the seed, exact in float32 so that they are the same number in both types and in WGSL:
/// `1 - d (c0 + c1 d + c2 d²)` is a Chebyshev cubic on [1, 2].
const SEED: [f64; 3] = [2.121_212_005_615_234_4, -1.454_545_497_894_287, 0.323_232_322_931_289_7];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_within_an_ulp() {
        let mut worst = (0.0, 0.0, 0.0);
        for p in [1.0 / 3.0, 0.5, 1.1, 1.5, 2.5, 3.3, 7.25, 31.7, 99.9] {
            let exponent = Exponent::<f32>::new(p);
            for bits in (0x0000_0001..0x4080_0000u32).step_by(20_011) {
                let a = f32::from_bits(bits);
                let exact = f64::from(a).powf(p);
                if exact < f64::from(f32::MIN_POSITIVE) || exact > f64::from(f32::MAX) {
                    continue;
                }
                let ulp = (exact.log2().floor() - 23.0).exp2();
                let error = (f64::from(exponent.of(a)) - exact).abs() / ulp;
                if error > worst.0 {
                    worst = (error, f64::from(a), p);
                }
            }
        }
        println!("powers: worst {worst:?}");
        assert!(worst.0 <= 0.6, "{worst:?}");
    }

    #[test]
    fn float64_agrees_with_the_system_library() {
        for p in [0.25, 1.5, 2.7] {
            for i in 1..20_000 {
                let a = f64::from(i) * 3.7e-4;
                let (found, exact) = (Exponent::new(p).of(a), a.powf(p));
                assert!((found - exact).abs() <= 2.0 * f64::EPSILON * exact, "{a}^{p}: {found} {exact}");
            }
        }
    }

    #[test]
    fn edges_of_powers() {
        let p = Exponent::<f32>::new(1.5);
        assert_eq!((p.of(0.0), p.of(1.0), p.of(4.0), p.of(f32::INFINITY)), (0.0, 1.0, 8.0, f32::INFINITY));
        assert!(p.of(f32::NAN).is_nan());
        assert_eq!(Exponent::<f32>::new(5.0).of(3.0), 243.0);
        assert_eq!((root(27f32, 3.0), root(1f64, 1.7)), (3.0, 1.0));
        // Up to the largest numbers, whose exponents are beyond one step of a scale.
        assert_eq!((root(2f32.powi(127), 127.0), root(2f64.powi(1023), 1023.0)), (2.0, 2.0));
        assert_eq!(root(f32::MAX, 3.0), f64::from(f32::MAX).cbrt() as f32);
        assert_eq!(scale_power(8f32, -2, 1.5), 1.0);
        assert_eq!(scale_power(1f32, -200, 1.5), 0.0);
    }
}
