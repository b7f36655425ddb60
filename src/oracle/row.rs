//! A row, and what normalizing it gives.

use super::real::{self, Real};
use crate::spec::{EpsPosition, Norm};

/// The elements that share statistics.
pub(super) struct Row<R> {
    /// The elements; zero where the mask leaves one out.
    pub(super) x: Vec<R>,
    /// The elements with every term of theirs replaced by its absolute value.
    pub(super) size: Vec<R>,
    /// Whether the statistic sees the element: the mask does not leave it out, and it is one of the first `prefix`.
    pub(super) counts: Vec<bool>,
}

impl<R: Real> Row<R> {
    /// The elements that the statistic sees.
    pub(super) fn counted(&self) -> impl Iterator<Item = R> {
        self.x.iter().zip(&self.counts).filter(|(_, counts)| **counts).map(|(&x, _)| x)
    }

    /// Their sizes.
    pub(super) fn counted_sizes(&self) -> impl Iterator<Item = R> {
        self.size.iter().zip(&self.counts).filter(|(_, counts)| **counts).map(|(&size, _)| size)
    }

    /// How many elements the statistic sees.
    pub(super) fn count(&self) -> usize {
        self.counts.iter().filter(|&&counts| counts).count()
    }
}

/// A normalized row. It was read as `x * 2^-exponent`, which changes no digit and keeps every square in range.
pub(super) struct Normalized<R> {
    pub(super) x_hat: Vec<R>,
    /// `x_hat` with every term replaced by its absolute value.
    pub(super) mag: Vec<f64>,
    /// The same, with the mean's own terms replaced by theirs: what the gradient of a weight sums. An output is judged
    /// by its row's largest `mag`, which is never below the row's deviation; a column of `x_hat` has no such company,
    /// and where both `x` and the mean happen to be near zero, the error that summing left in the mean is not.
    pub(super) term_mag: Vec<f64>,
    /// One over the divisor of the scaled row.
    pub(super) rstd: R,
    pub(super) exponent: i32,
    pub(super) derivative: Derivative<R>,
}

/// How the statistics follow the elements. In elements that the statistic sees,
/// `grad_input_i = rstd * (ĝ_i - centre * Σ ĝ - along_i * slope * Σ ĝ x_hat)`, elsewhere `rstd * ĝ_i`.
pub(super) struct Derivative<R> {
    /// What each element's step adds to the mean.
    pub(super) centre: R,
    /// The direction in which the divisor grows.
    pub(super) along: Vec<R>,
    /// `along` with every term replaced by its absolute value.
    pub(super) along_mag: Vec<f64>,
    /// How much it grows. Zero leaves its term out, whatever the gradient holds.
    pub(super) slope: R,
}

impl<R: Real> Derivative<R> {
    /// Of statistics that do not depend on the row.
    pub(super) fn none(cols: usize) -> Self {
        let zero = R::new(0.0);
        Derivative { centre: zero, along: vec![zero; cols], along_mag: vec![0.0; cols], slope: zero }
    }
}

impl<R: Real> Normalized<R> {
    /// A row of which the statistic sees nothing: zeros, and no gradient.
    pub(super) fn nothing(cols: usize) -> Self {
        let zero = R::new(0.0);
        Normalized {
            x_hat: vec![zero; cols],
            mag: vec![0.0; cols],
            term_mag: vec![0.0; cols],
            rstd: zero,
            exponent: 0,
            derivative: Derivative::none(cols),
        }
    }
}

/// The exponent that brings the larger of the largest element and eps near 1; 0 where there is nothing to scale.
pub(super) fn row_exponent<R: Real>(elements: impl Iterator<Item = R>, spec: &Norm) -> i32 {
    let largest = largest(elements).to_f64();
    let of_eps = match spec.eps_position {
        EpsPosition::Inside => real::exponent(spec.eps).div_euclid(2),
        EpsPosition::Outside | EpsPosition::Floor => real::exponent(spec.eps),
    };
    match (largest.is_finite(), largest > 0.0, spec.eps > 0.0) {
        (false, ..) | (_, false, false) => 0,
        (_, true, false) => real::exponent(largest),
        (_, false, true) => of_eps,
        (_, true, true) => real::exponent(largest).max(of_eps),
    }
}

/// The largest magnitude; NaN if there is one.
pub(super) fn largest<R: Real>(elements: impl Iterator<Item = R>) -> R {
    let is_nan = |x: R| x.to_f64().is_nan();
    let larger = |most: R, x: R| if is_nan(x) || x > most && !is_nan(most) { x } else { most };
    elements.map(|x| x.abs()).fold(R::new(0.0), larger)
}

/// One over the divisor that the mean of squares `statistic` of a row scaled by `2^-exponent` gives, and the divisor
/// over the statistic's root: 1 with eps inside the root, where it cancels from the gradient, and 0 where the root is.
///
/// ```text
/// 1 / sqrt(statistic + eps)        eps inside
/// 1 / (sqrt(statistic) + eps)      eps outside
/// ```
pub(super) fn reciprocal<R: Real>(statistic: R, exponent: i32, spec: &Norm) -> (R, R) {
    let one = R::new(1.0);
    match spec.eps_position {
        EpsPosition::Inside => (one / (statistic + R::new(spec.eps).scale(-2 * exponent)).sqrt(), one),
        EpsPosition::Outside | EpsPosition::Floor => {
            let root = statistic.sqrt();
            let divisor = root + R::new(spec.eps).scale(-exponent);
            // The root has no derivative at zero: a ratio of zero leaves its term out of the gradient.
            let ratio = if root.to_f64() == 0.0 { root } else { divisor / root };
            (one / divisor, ratio)
        }
    }
}
