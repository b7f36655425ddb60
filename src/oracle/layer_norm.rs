//! Mean and variance of one row: centred, then divided by its deviation. LayerNorm, and whatever else has these
//! statistics over other axes.

use super::real::Real;
use super::row::{Derivative, Normalized, Row, reciprocal, row_exponent};
use crate::spec::Norm;

/// With `n` elements in the statistic:
///
/// ```text
/// mean  = Σ x / n
/// rstd  = 1 / sqrt(Σ (x - mean)² / n + eps)
/// x_hat = (x - mean) * rstd
///
/// grad_input = rstd * (ĝ - Σ ĝ / n - x_hat * Σ ĝ x_hat / n)
/// ```
pub(super) fn normalize<R: Real>(row: &Row<R>, spec: &Norm) -> Normalized<R> {
    let n = R::new(row.count() as f64);
    let Some(shift) = row.counted().next() else { return Normalized::nothing(row.x.len()) };
    // Counted from its first element a row keeps its digits however far from zero it lies, and a constant row is
    // exactly zero.
    let exponent = row_exponent(row.counted().map(|x| x - shift), spec);
    let shifted = |x: R| (x - shift).scale(-exponent);

    let mean = R::sum(row.counted().map(shifted)) / n;
    let centred = |x: R| shifted(x) - mean;
    let variance = R::sum(row.counted().map(|x| centred(x) * centred(x))) / n;
    let (rstd, ratio) = reciprocal(variance, exponent, spec);

    let size = |size: R| size.scale(-exponent);
    let of_terms = R::sum(row.counted_sizes().map(size)) / n;
    let from_zero = (shift.scale(-exponent) + mean).abs();
    let mag: Vec<f64> = row.size.iter().map(|&x| ((size(x) + from_zero) * rstd).to_f64()).collect();
    let x_hat: Vec<R> = row.x.iter().map(|&x| centred(x) * rstd).collect();
    let (centre, slope) = (R::new(1.0) / n, ratio / n);
    Normalized {
        term_mag: row.size.iter().map(|&x| ((size(x) + of_terms) * rstd).to_f64()).collect(),
        derivative: Derivative { centre, along: x_hat.clone(), along_mag: mag.clone(), slope },
        x_hat,
        mag,
        rstd,
        exponent,
    }
}
