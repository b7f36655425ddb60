//! Root-mean-square normalization of one row: divided by the root mean square of its first columns.

use super::real::Real;
use super::row::{Normalized, reciprocal, row_exponent};
use crate::spec::Norm;
use ndarray::ArrayView1;

/// ```text
/// rstd  = 1 / sqrt(Σ_{i<k} x_i² / k + eps)
/// x_hat = x * rstd
/// ```
pub(super) fn normalize<R: Real>(row: ArrayView1<'_, R>, spec: &Norm) -> Normalized<R> {
    let k = R::new(spec.prefix as f64);
    let exponent = row_exponent(row.iter().take(spec.prefix), spec);
    let scaled = row.mapv(|x| x.scale(-exponent));

    let mean_square = R::sum(scaled.iter().take(spec.prefix).map(|&x| x * x)) / k;
    let (rstd, eps_ratio) = reciprocal(mean_square, exponent, spec);

    let x_hat: Vec<R> = scaled.iter().map(|&x| x * rstd).collect();
    let mag: Vec<f64> = x_hat.iter().map(|x| x.abs().to_f64()).collect();
    Normalized { term_mag: mag.clone(), mag, x_hat, rstd, exponent, eps_ratio }
}
