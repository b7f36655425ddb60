//! tanh and its derivative, as `docs/numerics.md` defines them: additions and multiplications only, so that every
//! device can repeat them bit for bit.

use super::real::Real;

/// A product and its exact error, without a fused multiply-add.
#[inline(always)]
pub(super) fn two_prod<F: Real>(a: F, b: F) -> (F, F) {
    let (ah, bh) = (a.upper(), b.upper());
    let (al, bl) = (a - ah, b - bh);
    let p = a * b;
    (p, (((ah * bh - p) + ah * bl) + al * bh) + al * bl)
}

/// `alpha * x` as a number and its error; no error where the argument is so large that tanh is 1.
#[inline(always)]
fn argument<F: Real>(alpha: F, x: F) -> (F, F) {
    let (z, zl) = two_prod(alpha, x);
    // A comparison with NaN is false, so NaN keeps no error term either.
    (z, if z.abs() <= F::PRODUCT_LIMIT { zl } else { F::ZERO })
}

/// Elements that pass through the steps of a function together. One element's steps are a chain of some sixty dependent
/// operations, of which a core sees little more than one chain ahead; in passes over a batch it sees many short ones.
pub(super) const BATCH: usize = 64;

/// `a = -2 |z + zl|` less the nearest multiple `k` of ln 2, as `r + rl`; `k` is in the low bits of `u`.
#[derive(Clone, Copy)]
struct Reduced<F> {
    u: F,
    r: F,
    rl: F,
}

#[inline(always)]
fn reduce<F: Real>(z: F, zl: F) -> Reduced<F> {
    let a = -(F::TWO * z.abs());
    let held = a < F::EXP_LIMIT;
    // `-2 * zl` with the sign of z.
    let signed = zl * F::ONE.with_sign(z);
    let al = if held { F::ZERO } else { -(F::TWO * signed) };
    let a = if held { F::EXP_LIMIT } else { a };
    let u = a * F::LOG2E + F::MAGIC;
    let kf = u - F::MAGIC;
    let t1 = a - kf * F::LN2_HI;
    let t2 = kf * F::LN2_LO;
    let r = t1 - t2;
    Reduced { u, r, rl: ((t1 - r) - t2) + al }
}

/// `exp(r + rl) - 1` as `p + pl`.
#[inline(always)]
pub(super) fn expm1<F: Real>(r: F, rl: F) -> (F, F) {
    let w = (r * r) * taylor(r);
    let p = r + w;
    (p, ((r - p) + w) + rl * (F::ONE + p))
}

/// `exp(a) - 1` and `exp(a) + 1`, each with its error.
#[derive(Clone, Copy)]
struct Fraction<F> {
    em: F,
    eml: F,
    den: F,
    dl: F,
}

/// Both, from `exp(a) = power (1 + p + pl)`.
#[inline(always)]
fn fraction<F: Real>(power: F, p: F, pl: F) -> Fraction<F> {
    let less = power - F::ONE;
    // What `power - 1` rounds away once the power is below half an ulp of 1.
    let lost = (-F::ONE - less) + power;
    let sp = power * p;
    let em = less + sp;
    let eml = (((less - em) + sp) + power * pl) + lost;
    let den = F::TWO + em;
    let dl = ((F::TWO - den) + em) + eml;
    Fraction { em, eml, den, dl }
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

/// `1 / d` for d in [1, 2], to about an ulp.
#[inline(always)]
fn reciprocal<F: Real>(d: F) -> F {
    let mut r = seed(d);
    for _ in 0..F::NEWTON_STEPS {
        r = r + r * (F::ONE - d * r);
    }
    r
}

/// `1 / d` for d in [1, 2] to 1 %: no quadratic has a smaller relative error.
#[inline(always)]
pub(super) fn seed<F: Real>(d: F) -> F {
    let (c0, c1, c2) = (F::of(SEED[0]), F::of(SEED[1]), F::of(SEED[2]));
    c0 + d * (c1 + d * c2)
}

/// Coefficients of the seed, exact in float32 so that they are the same number in both types and in WGSL:
/// `1 - d (c0 + c1 d + c2 d²)` is a Chebyshev cubic on [1, 2].
const SEED: [f64; 3] = [2.121_212_005_615_234_4, -1.454_545_497_894_287, 0.323_232_322_931_289_7];

/// `tanh(z) = -em / den`, by one corrected division with the reciprocal `r` of `den`.
#[inline(always)]
fn quotient<F: Real>(&Fraction { em, eml, den, dl }: &Fraction<F>, r: F, z: F) -> F {
    let t0 = em * r;
    let (ph, pe) = two_prod(t0, den);
    let rem = (((em - ph) - pe) + eml) - t0 * dl;
    signed(t0 + r * rem, z)
}

/// `magnitude` with the sign of `z`; NaN stays.
#[inline(always)]
fn signed<F: Real>(magnitude: F, z: F) -> F {
    magnitude.abs().with_sign(z)
}

/// One number for each element of a batch.
pub(super) type Batch<F> = [F; BATCH];

/// `out = tanh(alpha * x)`.
#[inline(always)]
pub(super) fn tanh<F: Real>(alpha: F, x: &Batch<F>, out: &mut Batch<F>) {
    let (mut z, mut u, mut r, mut rl) =
        ([F::ZERO; BATCH], [F::ZERO; BATCH], [F::ZERO; BATCH], [F::ZERO; BATCH]);
    for i in 0..BATCH {
        let (high, low) = argument(alpha, x[i]);
        let reduced = reduce(high, low);
        z[i] = high;
        u[i] = reduced.u;
        r[i] = reduced.r;
        rl[i] = reduced.rl;
    }
    let (mut p, mut pl) = ([F::ZERO; BATCH], [F::ZERO; BATCH]);
    for i in 0..BATCH {
        (p[i], pl[i]) = expm1(r[i], rl[i]);
    }
    for i in 0..BATCH {
        let (power, _) = F::split_exponent(u[i]);
        let fraction = fraction(power, p[i], pl[i]);
        out[i] = quotient(&fraction, reciprocal(fraction.den), z[i]);
    }
}

/// `tanh(alpha * x)` to two ulp, for results that are rounded to 16 bits: the same steps with one number for one.
#[inline(always)]
pub(super) fn tanh_product_short<F: Real>(alpha: F, x: F) -> F {
    let z = alpha * x;
    let a = -(F::TWO * z.abs());
    let a = if a < F::EXP_LIMIT { F::EXP_LIMIT } else { a };
    let u = a * F::LOG2E + F::MAGIC;
    let kf = u - F::MAGIC;
    let r = (a - kf * F::LN2_HI) - kf * F::LN2_LO;
    let p = r + (r * r) * taylor(r);
    let (power, _) = F::split_exponent(u);
    let (b, sp) = (power - F::ONE, power * p);
    let em = b + sp;
    let eml = (b - em) + sp;
    let den = F::TWO + em;
    let r = reciprocal(den);
    let t0 = em * r;
    let dl = ((F::TWO - den) + em) + eml;
    signed(t0 + r * (((em - t0 * den) + eml) - t0 * dl), z)
}

/// At each `alpha * x`, tanh, and sech² as `(h + hl) * power * rest`.
pub(super) struct Slopes<F> {
    pub(super) t: Batch<F>,
    pub(super) h: Batch<F>,
    pub(super) hl: Batch<F>,
    pub(super) power: Batch<F>,
    pub(super) rest: Batch<F>,
}

/// tanh and sech² for every element of `x`.
#[inline(always)]
pub(super) fn slopes<F: Real>(alpha: F, x: &Batch<F>) -> Slopes<F> {
    let zero = [F::ZERO; BATCH];
    let mut out = Slopes { t: zero, h: zero, hl: zero, power: zero, rest: zero };
    let (mut z, mut r, mut rl, mut p, mut pl, mut r1) = (zero, zero, zero, zero, zero, zero);
    for i in 0..BATCH {
        let (high, low) = argument(alpha, x[i]);
        let reduced = reduce(high, low);
        z[i] = high;
        r[i] = reduced.r;
        rl[i] = reduced.rl;
        (out.power[i], out.rest[i]) = F::split_exponent(reduced.u);
    }
    for i in 0..BATCH {
        (p[i], pl[i]) = expm1(r[i], rl[i]);
    }
    for i in 0..BATCH {
        let fraction = fraction(out.power[i], p[i], pl[i]);
        r1[i] = reciprocal(fraction.den);
        out.t[i] = quotient(&fraction, r1[i], z[i]);
    }
    for i in 0..BATCH {
        let Fraction { den, dl, .. } = fraction(out.power[i], p[i], pl[i]);
        let (h, hl) = derivative(p[i], pl[i], den, dl, r1[i]);
        // Beyond the limit, so little that no finite gradient survives it, but an infinite one stays infinite.
        let held = -(F::TWO * z[i].abs()) < F::EXP_LIMIT;
        let little = if z[i].abs() <= F::MAX { F::exp2(-100) } else { F::ZERO };
        out.h[i] = if held { little } else { h };
        out.hl[i] = if held { F::ZERO } else { hl };
    }
    out
}

/// `4 (1 + p + pl) / (den + dl)²` as a number and its error; `r1` is the reciprocal of `den`.
#[inline(always)]
fn derivative<F: Real>(p: F, pl: F, den: F, dl: F, r1: F) -> (F, F) {
    let e = F::ONE + p;
    let el = ((F::ONE - e) + p) + pl;
    let (d, de) = two_prod(den, den);
    let d_low = de + (F::TWO * den) * dl;
    let r = r1 * r1;
    let (ph, pe) = two_prod(d, r);
    let rl = r * (((F::ONE - ph) - pe) - d_low * r);
    let e4 = F::FOUR * e;
    let (h, he) = two_prod(e4, r);
    (h, he + (e4 * rl + (F::FOUR * el) * r))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tanh_at<F: Real>(z: F) -> F {
        let mut out = [F::ZERO; BATCH];
        tanh(F::ONE, &[z; BATCH], &mut out);
        out[0]
    }

    /// tanh, and sech² as a float64.
    fn slope_at(z: f32) -> (f32, f64) {
        let Slopes { t, h, hl, power, rest } = slopes(1.0, &[z; BATCH]);
        let value = (f64::from(h[0]) + f64::from(hl[0])) * f64::from(power[0]) * f64::from(rest[0]);
        (t[0], value)
    }

    /// Distance in ulp of `x` (float32) from the exact value.
    fn ulp(x: f32, exact: f64) -> f64 {
        let exponent = exact.abs().log2().floor().max(-126.0);
        (f64::from(x) - exact).abs() / (exponent - 23.0).exp2()
    }

    /// Every `step`-th float32 from the smallest normal number to `to`.
    fn sweep(to: f32, step: u32) -> impl Iterator<Item = f32> {
        (f32::MIN_POSITIVE.to_bits()..to.to_bits()).step_by(step as usize).map(f32::from_bits)
    }

    #[test]
    fn tanh_is_within_one_ulp_over_its_range() {
        let worst = sweep(100.0, 97).map(|z| (ulp(tanh_at(z), f64::from(z).tanh()), z));
        let worst = worst.fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
        println!("tanh: worst {} ulp at {:e}", worst.0, worst.1);
        assert!(worst.0 <= 0.75, "{worst:?}");
        assert_eq!(tanh_at(0.0f32).to_bits(), 0);
        assert_eq!(tanh_at(-0.0f32).to_bits(), (-0.0f32).to_bits());
        assert_eq!((tanh_at(f32::INFINITY), tanh_at(f32::NEG_INFINITY)), (1.0, -1.0));
        assert!(tanh_at(f32::NAN).is_nan());
        assert_eq!(tanh_at(-0.5f32), -tanh_at(0.5f32));
    }

    #[test]
    fn the_short_tanh_is_within_two_ulp() {
        let worst = sweep(100.0, 97).map(|z| (ulp(tanh_product_short(1.0, z), f64::from(z).tanh()), z));
        let worst = worst.fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
        println!("short tanh: worst {} ulp at {:e}", worst.0, worst.1);
        assert!(worst.0 <= 2.0, "{worst:?}");
        assert_eq!(tanh_product_short(-1.0f32, f32::INFINITY), -1.0);
        assert!(tanh_product_short(1.0, f32::NAN).is_nan());
    }

    #[test]
    fn slope_keeps_its_digits_where_tanh_is_one() {
        let worst = sweep(80.0, 97).map(|z| {
            let (_, value) = slope_at(z);
            let q = (-2.0 * f64::from(z)).exp();
            let exact = 4.0 * q / ((1.0 + q) * (1.0 + q));
            // In units of 2^-24 of itself.
            ((value / exact - 1.0).abs() * 2f64.powi(24), z)
        });
        let worst = worst.fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
        println!("sech²: worst {} half-ulp at {:e}", worst.0, worst.1);
        assert!(worst.0 <= 0.25, "{worst:?}");
        assert_eq!(slope_at(f32::INFINITY), (1.0, 0.0));
        assert!(slope_at(1e3).1 > 0.0 && slope_at(1e3).1 < 1e-100);
        assert!(slope_at(f32::NAN).1.is_nan());
    }

    #[test]
    fn float64_agrees_with_the_system_library() {
        for i in 1..200_000 {
            let z = i as f64 * 1.7e-4;
            let (t, exact) = (tanh_at(z), z.tanh());
            assert!((t - exact).abs() <= 2.5 * f64::EPSILON * exact, "{z}: {t} {exact}");
        }
    }

    #[test]
    fn rsqrt_is_the_nearest_float() {
        for x in (0x0080_0000..0x7F80_0000u32).step_by(10_007).map(f32::from_bits) {
            let r = x.rsqrt();
            assert!(ulp(r, 1.0 / f64::from(x).sqrt()) <= 0.500_001, "{x:e}");
        }
        assert_eq!(0f32.rsqrt(), f32::INFINITY);
        assert_eq!(f32::INFINITY.rsqrt(), 0.0);
        assert!(f32::NAN.rsqrt().is_nan() && (-1f32).rsqrt().is_nan());
    }

    #[test]
    fn two_prod_is_exact() {
        for i in 0..100_000u32 {
            let a = f32::from_bits(0x3F80_0000 + i * 83);
            let b = f32::from_bits(0x4000_0000 + i.wrapping_mul(2_654_435_761) % 0x80_0000);
            let (p, e) = two_prod(a, b);
            assert_eq!(f64::from(p) + f64::from(e), f64::from(a) * f64::from(b));
        }
    }
}
