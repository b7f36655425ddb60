//! The inverse square root unit of elementwise layer norm.

use super::pointwise::Curve;
use super::real::{self, Real};

/// `f(x) = x / sqrt(alpha + x²)`
pub(super) struct InverseSquareRoot<R> {
    pub(super) alpha: R,
}

impl<R: Real> InverseSquareRoot<R> {
    /// An exponent that keeps the root in range, and `sqrt(alpha + x²)` of numbers scaled by it: `x` by
    /// `2^-exponent`, `alpha` by its square.
    fn root(&self, x: R) -> (i32, R) {
        let (x_size, alpha_size) = (x.abs().to_f64(), self.alpha.abs().to_f64());
        let exponent = match x_size.max(alpha_size) {
            largest if !largest.is_finite() || largest == 0.0 => 0,
            _ => real::exponent(x_size).max(real::exponent(alpha_size).div_euclid(2)),
        };
        let x = x.scale(-exponent);
        let square = self.alpha.scale(-exponent).scale(-exponent) + x * x;
        (exponent, square.sqrt())
    }
}

impl<R: Real> Curve<R> for InverseSquareRoot<R> {
    fn value(&self, x: R) -> R {
        let (exponent, root) = self.root(x);
        x.scale(-exponent) / root
    }

    /// `alpha * (alpha + x²)^(-3/2)`
    fn times_slope(&self, factor: R, x: R) -> R {
        let (exponent, root) = self.root(x);
        let scaled = (factor * self.alpha).scale(-exponent).scale(-exponent) / (root * root * root);
        scaled.scale(-exponent)
    }

    /// `-x/2 * (alpha + x²)^(-3/2)`
    fn times_alpha_slope(&self, factor: R, x: R) -> R {
        let (exponent, root) = self.root(x);
        let half = R::new(-0.5) * factor * x.scale(-exponent) / (root * root * root);
        half.scale(-exponent).scale(-exponent)
    }
}
