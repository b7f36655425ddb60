//! What the functions of `docs/numerics.md` are made of: exact products, the exponential near zero, and where Newton's
//! steps for a reciprocal start.

use super::real::Real;

/// A product and its exact error, without a fused multiply-add.
#[inline(always)]
pub(super) fn two_prod<F: Real>(a: F, b: F) -> (F, F) {
    let (ah, bh) = (a.upper(), b.upper());
    let (al, bl) = (a - ah, b - bh);
    let p = a * b;
    (p, (((ah * bh - p) + ah * bl) + al * bh) + al * bl)
}

/// `exp(r + rl) - 1` as `p + pl`.
#[inline(always)]
pub(super) fn expm1<F: Real>(r: F, rl: F) -> (F, F) {
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
pub(super) fn seed<F: Real>(d: F) -> F {
    let (c0, c1, c2) = (F::of(SEED[0]), F::of(SEED[1]), F::of(SEED[2]));
    c0 + d * (c1 + d * c2)
}

/// Coefficients of the seed, exact in float32 so that they are the same number in both types and in WGSL:
/// `1 - d (c0 + c1 d + c2 d²)` is a Chebyshev cubic on [1, 2].
const SEED: [f64; 3] = [2.121_212_005_615_234_4, -1.454_545_497_894_287, 0.323_232_322_931_289_7];

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance in ulp of `x` (float32) from the exact value.
    fn ulp(x: f32, exact: f64) -> f64 {
        let exponent = exact.abs().log2().floor().max(-126.0);
        (f64::from(x) - exact).abs() / (exponent - 23.0).exp2()
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
