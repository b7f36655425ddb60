//! Layer normalization of one row: centred, then divided by its deviation.

use super::real::Real;
use super::row::{Normalized, reciprocal, row_exponent};
use crate::spec::Norm;
use ndarray::ArrayView1;

/// ```text
/// mean  = Σ x / n
/// rstd  = 1 / sqrt(Σ (x - mean)² / n + eps)
/// x_hat = (x - mean) * rstd
/// ```
pub(super) fn normalize<R: Real>(row: ArrayView1<'_, R>, spec: &Norm) -> Normalized<R> {
    let n = R::new(row.len() as f64);
    // Counted from its first element a row keeps its digits however far from zero it lies, and a constant row is
    // exactly zero.
    let shift = row[0];
    let shifted = row.mapv(|x| x - shift);
    let exponent = row_exponent(shifted.iter(), spec);
    let shifted = shifted.mapv(|x| x.scale(-exponent));

    let mean = R::sum(shifted.iter().copied()) / n;
    let centred = shifted.mapv(|x| x - mean);
    let variance = R::sum(centred.iter().map(|&d| d * d)) / n;
    let (rstd, eps_ratio) = reciprocal(variance, exponent, spec);

    let of_terms = R::sum(row.iter().map(|x| x.scale(-exponent).abs())) / n;
    let from_zero = (shift.scale(-exponent) + mean).abs();
    Normalized {
        x_hat: centred.iter().map(|&d| d * rstd).collect(),
        mag: row.iter().map(|x| ((x.scale(-exponent).abs() + from_zero) * rstd).to_f64()).collect(),
        term_mag: row.iter().map(|x| ((x.scale(-exponent).abs() + of_terms) * rstd).to_f64()).collect(),
        rstd,
        exponent,
        eps_ratio,
    }
}
