//! The inverse square root unit `x / sqrt(alpha + x²)` and its derivatives, as `docs/numerics.md` defines them.
#![allow(clippy::needless_range_loop, reason = "several arrays are walked by one index")]

use super::curve::{BATCH, Batch, Curve, Scratch, Terms};
use super::real::Real;

/// The function.
pub(super) struct InverseRoot;

impl<F: Real> Curve<F> for InverseRoot {
    #[inline(always)]
    fn values(alpha: F, x: &Batch<F>, w: &Batch<F>, b: &Batch<F>, _: &mut Scratch<F>, out: &mut Batch<F>) {
        for i in 0..BATCH {
            let (alpha, x, _) = squarable(alpha, x[i]);
            let [r, ..] = F::inverse_square_roots(alpha, x);
            out[i] = (x * r) * w[i] + b[i];
        }
    }

    #[inline(always)]
    fn terms(alpha: F, g: &Batch<F>, x: &Batch<F>, w: &Batch<F>, _: &mut Scratch<F>, terms: &mut Terms<F>) {
        for i in 0..BATCH {
            let (alpha, x, e) = squarable(alpha, x[i]);
            let [r, h, k] = F::inverse_square_roots(alpha, x);
            let gw = g[i] * w[i];
            terms.weight[i] = g[i] * (x * r);
            let (s, dx) = (F::of(-0.5) * (gw * k), gw * h);
            (terms.alpha[i], terms.input[i]) = if e == 0 { (s, dx) } else { (s.scale(-2 * e), dx.scale(-e)) };
        }
    }
}

/// `x` and alpha without the exponent that keeps their squares out of range, and that exponent.
#[inline(always)]
fn squarable<F: Real>(alpha: F, x: F) -> (F, F, i32) {
    let exponent = |x: F| if x == F::ZERO { F::NONE } else { F::exponent(x.magnitude()) };
    let e = exponent(x).max(exponent(alpha).div_euclid(2));
    let e = if F::SQUARABLE.0 <= e && e <= F::SQUARABLE.1 { 0 } else { e };
    if e == 0 { (alpha, x, 0) } else { (alpha.scale(-2 * e), x.scale(-e), e) }
}
