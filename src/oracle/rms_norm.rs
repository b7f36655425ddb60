//! Mean square of one row: divided by its root.

use super::real::Real;
use super::row::{Derivative, Normalized, Row, reciprocal, row_exponent};
use crate::spec::Norm;

/// With `n` elements in the statistic, and `r` 1 with eps inside the root, `1 / (rstd * sqrt(Σ x² / n))` with eps outside:
///
/// ```text
/// rstd  = 1 / sqrt(Σ x² / n + eps)
/// x_hat = x * rstd
///
/// grad_input = rstd * (ĝ - x_hat * r * Σ ĝ x_hat / n)
/// ```
pub(super) fn normalize<R: Real>(row: &Row<R>, spec: &Norm) -> Normalized<R> {
    if row.count() == 0 {
        return Normalized::nothing(row.x.len());
    }
    let n = R::new(row.count() as f64);
    let exponent = row_exponent(row.counted(), spec);
    let scaled = |x: R| x.scale(-exponent);

    let mean_square = R::sum(row.counted().map(|x| scaled(x) * scaled(x))) / n;
    let (rstd, ratio) = reciprocal(mean_square, exponent, spec);

    let x_hat: Vec<R> = row.x.iter().map(|&x| scaled(x) * rstd).collect();
    let mag: Vec<f64> = row.size.iter().map(|&size| (scaled(size) * rstd).to_f64()).collect();
    let (along, along_mag) = (x_hat.clone(), mag.clone());
    let derivative = Derivative { centre: R::new(0.0), along, along_mag, slope: ratio / n };
    Normalized { term_mag: mag.clone(), mag, x_hat, rstd, exponent, derivative }
}
