//! A row with a mean and a variance that are given: BatchNorm at inference.

use super::real::{self, Real};
use super::row::{Derivative, Normalized, Row};
use crate::spec::Norm;

/// ```text
/// rstd       = 1 / sqrt(var + eps)
/// x_hat      = (x - mean) * rstd
/// grad_input = rstd * ĝ
/// ```
pub(super) fn normalize<R: Real>(row: &Row<R>, mean: R, var: R, spec: &Norm) -> Normalized<R> {
    // Where the difference could overflow, everything is scaled; the divisor itself never needs it.
    let extreme = |x: R| x.abs().to_f64() >= real::power_of_two(900);
    let of_var = real::exponent(var.to_f64()).div_euclid(2);
    let exponent = match (extreme(mean), extreme(var)) {
        (false, false) => 0,
        _ => real::exponent(mean.to_f64()).max(of_var),
    };
    let rstd = (R::new(1.0) / (var + R::new(spec.eps)).sqrt()).scale(exponent);
    let scaled = |x: R| x.scale(-exponent);
    let x_hat: Vec<R> = row.x.iter().map(|&x| (scaled(x) - scaled(mean)) * rstd).collect();
    let size = |size: R| ((scaled(size) + scaled(mean).abs()) * rstd).to_f64();
    let mag: Vec<f64> = row.size.iter().map(|&x| size(x)).collect();
    // A direction without a slope: an element that is not finite has no finite gradient either, as everywhere.
    let derivative = Derivative { along: x_hat.clone(), ..Derivative::none(row.x.len()) };
    Normalized { x_hat, term_mag: mag.clone(), mag, rstd, exponent, derivative }
}
