//! Dynamic tanh.

use super::pointwise::Curve;
use super::real::Real;

/// `f(x) = tanh(alpha * x)`
pub(super) struct Tanh<R> {
    pub(super) alpha: R,
}

impl<R: Real> Curve<R> for Tanh<R> {
    fn value(&self, x: R) -> R {
        (self.alpha * x).tanh()
    }

    /// `alpha * sech²(alpha * x)`
    fn times_slope(&self, factor: R, x: R) -> R {
        times_sech_squared(factor * self.alpha, self.alpha * x)
    }

    /// `x * sech²(alpha * x)`
    fn times_alpha_slope(&self, factor: R, x: R) -> R {
        times_sech_squared(factor * x, self.alpha * x)
    }
}

/// `factor * sech²(z)`, the derivative of tanh as `4e² / (1 + e²)²` with `e = exp(-|z|)`: `1 - tanh²` has no digit left
/// where tanh is near 1, and `e²` may underflow where the product does not.
fn times_sech_squared<R: Real>(factor: R, z: R) -> R {
    let e = (-z.abs()).exp();
    let one_plus = R::new(1.0) + e * e;
    factor * R::new(4.0) * e * e / (one_plus * one_plus)
}
