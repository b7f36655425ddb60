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

/// `exp(a) = 2^k (1 + p + pl)` for `a = -2 |z + zl|`, and what both functions make of it.
struct Expm1<F> {
    p: F,
    pl: F,
    /// `2^max(k, lowest normal)` and `2^(k - that)`.
    power: F,
    rest: F,
    /// `exp(a) - 1` and `exp(a) + 1`, each with its error.
    em: F,
    eml: F,
    den: F,
    dl: F,
    /// Whether the argument was beyond the limit.
    held: bool,
}

#[inline(always)]
fn expm1_parts<F: Real>(z: F, zl: F) -> Expm1<F> {
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
    let rl = ((t1 - r) - t2) + al;
    let mut q = F::TAYLOR[F::TAYLOR.len() - 1];
    for i in (0..F::TAYLOR.len() - 1).rev() {
        q = q * r + F::TAYLOR[i];
    }
    let w = (r * r) * q;
    let p = r + w;
    let pl = ((r - p) + w) + rl * (F::ONE + p);
    let (power, rest) = F::split_exponent(u);
    let less = power - F::ONE;
    // What `power - 1` rounds away once the power is below half an ulp of 1.
    let lost = (-F::ONE - less) + power;
    let sp = power * p;
    let em = less + sp;
    let eml = (((less - em) + sp) + power * pl) + lost;
    let den = F::TWO + em;
    let dl = ((F::TWO - den) + em) + eml;
    Expm1 { p, pl, power, rest, em, eml, den, dl, held }
}

/// `1 / d` for d in [1, 2], to about an ulp.
#[inline(always)]
fn reciprocal<F: Real>(d: F) -> F {
    // The quadratic with the least relative error on [1, 2], which is 1 %.
    let (c0, c1, c2) = (F::of(SEED[0]), F::of(SEED[1]), F::of(SEED[2]));
    let mut r = c0 + d * (c1 + d * c2);
    for _ in 0..F::NEWTON_STEPS {
        r = r + r * (F::ONE - d * r);
    }
    r
}

/// Coefficients of the seed, exact in float32 so that they are the same number in both types and in WGSL:
/// `1 - d (c0 + c1 d + c2 d²)` is a Chebyshev cubic on [1, 2].
const SEED: [f64; 3] = [2.121_212_005_615_234_4, -1.454_545_497_894_287, 0.323_232_322_931_289_7];

/// `tanh(z + zl)`.
#[inline(always)]
fn tanh<F: Real>(z: F, zl: F) -> F {
    let Expm1 { em, eml, den, dl, .. } = expm1_parts(z, zl);
    let r = reciprocal(den);
    let t0 = em * r;
    let (ph, pe) = two_prod(t0, den);
    let rem = (((em - ph) - pe) + eml) - t0 * dl;
    signed(t0 + r * rem, z)
}

/// `tanh(alpha * x)`.
#[inline(always)]
pub(super) fn tanh_product<F: Real>(alpha: F, x: F) -> F {
    let (z, zl) = argument(alpha, x);
    tanh(z, zl)
}

/// [`Slope`] at `alpha * x`.
#[inline(always)]
pub(super) fn slope_product<F: Real>(alpha: F, x: F) -> Slope<F> {
    let (z, zl) = argument(alpha, x);
    slope(z, zl)
}

/// `magnitude` with the sign of `z`; NaN stays.
#[inline(always)]
fn signed<F: Real>(magnitude: F, z: F) -> F {
    magnitude.abs().with_sign(z)
}

/// `tanh(z + zl)` to a few ulp, and `sech²` as `(h + hl) * power * rest`.
pub(super) struct Slope<F> {
    pub(super) t: F,
    pub(super) h: F,
    pub(super) hl: F,
    pub(super) power: F,
    pub(super) rest: F,
}

#[inline(always)]
fn slope<F: Real>(z: F, zl: F) -> Slope<F> {
    let Expm1 { p, pl, power, rest, em, den, dl, held, .. } = expm1_parts(z, zl);
    let e = F::ONE + p;
    let el = ((F::ONE - e) + p) + pl;
    let (d, de) = two_prod(den, den);
    let d_low = de + (F::TWO * den) * dl;
    let r1 = reciprocal(den);
    let r = r1 * r1;
    let (ph, pe) = two_prod(d, r);
    let rl = r * (((F::ONE - ph) - pe) - d_low * r);
    let e4 = F::FOUR * e;
    let (h, he) = two_prod(e4, r);
    let hl = he + (e4 * rl + (F::FOUR * el) * r);
    let t = signed(em * (den * r), z);
    let (h, hl) = if held { (F::ZERO, F::ZERO) } else { (h, hl) };
    Slope { t, h, hl, power, rest }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let worst = sweep(100.0, 97).map(|z| (ulp(tanh(z, 0.0), f64::from(z).tanh()), z));
        let worst = worst.fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
        println!("tanh: worst {} ulp at {:e}", worst.0, worst.1);
        assert!(worst.0 <= 0.75, "{worst:?}");
        assert_eq!(tanh(0.0f32, 0.0).to_bits(), 0);
        assert_eq!(tanh(-0.0f32, 0.0).to_bits(), (-0.0f32).to_bits());
        assert_eq!((tanh(f32::INFINITY, 0.0), tanh(f32::NEG_INFINITY, 0.0)), (1.0, -1.0));
        assert!(tanh(f32::NAN, 0.0).is_nan());
        assert_eq!(tanh(-0.5f32, 0.0), -tanh(0.5f32, 0.0));
    }

    #[test]
    fn slope_keeps_its_digits_where_tanh_is_one() {
        let worst = sweep(80.0, 97).map(|z| {
            let s = slope(z, 0.0);
            let q = (-2.0 * f64::from(z)).exp();
            let exact = 4.0 * q / ((1.0 + q) * (1.0 + q));
            // The value as two numbers, in units of 2^-24 of itself.
            let value = (f64::from(s.h) + f64::from(s.hl)) * f64::from(s.power) * f64::from(s.rest);
            ((value / exact - 1.0).abs() * 2f64.powi(24), z)
        });
        let worst = worst.fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
        println!("sech²: worst {} half-ulp at {:e}", worst.0, worst.1);
        assert!(worst.0 <= 0.25, "{worst:?}");
        assert_eq!(slope(f32::INFINITY, 0.0).h, 0.0);
        assert!(slope(f32::NAN, 0.0).h.is_nan());
    }

    #[test]
    fn float64_agrees_with_the_system_library() {
        for i in 1..200_000 {
            let z = i as f64 * 1.7e-4;
            let (t, exact) = (tanh(z, 0.0), z.tanh());
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
