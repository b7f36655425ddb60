//! Norms whose statistics span a row: scale and shift of the normalized row, and its gradients.

use super::real::{self, Real};
use super::round::{is_ambiguous, round, ulp};
use super::{Expected, ExpectedGradients, Problem, layer_norm, rms_norm};
use crate::spec::{EpsPosition, Norm, Statistic};
use crate::tensor::DType;
use ndarray::{ArrayView1, ArrayView2};

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
    /// The divisor over the root of the statistic: 1 with eps inside the root, where it cancels from the gradient. 0
    /// where the root is.
    pub(super) eps_ratio: R,
}

/// The exponent that brings the larger of the row's largest element and eps near 1; 0 where there is nothing to scale.
pub(super) fn row_exponent<'a, R: Real + 'a>(row: impl Iterator<Item = &'a R>, spec: &Norm) -> i32 {
    let largest = row.map(|x| x.abs().to_f64()).fold(0.0, |a: f64, b| if b.is_nan() { b } else { a.max(b) });
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

/// One over the divisor, and [`Normalized::eps_ratio`], given the statistic of a row scaled by `2^-exponent`.
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

fn normalize<R: Real>(row: ArrayView1<'_, R>, spec: &Norm) -> Normalized<R> {
    match spec.statistic {
        Statistic::Moments => layer_norm::normalize(row, spec),
        Statistic::MeanSquare => rms_norm::normalize(row, spec),
        Statistic::Norm(_) => todo!("TEMPORARY"),
    }
}

/// What the weight multiplies: `x_hat`, rounded to the input's dtype if the spec says so; and how far a different
/// rounding would be. Rounding to the dtype that arithmetic is done in is the arithmetic's own rounding.
fn seen_by_weight<R: Real>(x_hat: R, spec: &Norm, dtype: DType) -> (R, f64) {
    if !spec.round_normalized || dtype == dtype.compute() {
        return (x_hat, 0.0);
    }
    let x = x_hat.to_f64();
    let slack = if x.is_finite() && is_ambiguous(dtype, x) { ulp(dtype, x) } else { 0.0 };
    (R::new(round(dtype, x)), slack)
}

/// `y = x_hat * weight + bias`
pub(super) fn forward<R: Real>(spec: &Norm, problem: &Problem<'_, R>) -> Expected<R> {
    let (rows, cols) = problem.input.dim();
    let mut output = Expected::zeros(rows, cols);
    for (i, row) in problem.input.rows().into_iter().enumerate() {
        let normalized = normalize(row, spec);
        for j in 0..cols {
            let (weight, bias) = (problem.weight(j, spec.weight_offset), problem.bias(j));
            let (x_hat, slack) = seen_by_weight(normalized.x_hat[j], spec, problem.dtype);
            let weight_mag = weight.abs().to_f64();
            output.set((i, j), x_hat * weight + bias, normalized.mag[j] * weight_mag + bias.abs().to_f64());
            output.slack[(i, j)] = slack * weight_mag;
        }
    }
    output
}

/// With `ĝ = g * weight` and `k` columns in the statistic, the means being sums over all columns divided by `k`:
///
/// ```text
/// grad_input  = rstd * (ĝ - mean(ĝ) - x_hat * mean(ĝ * x_hat))       mean(ĝ) only where the row was centred
/// grad_input  = rstd * ĝ                                             in columns that the statistic did not see
/// grad_weight = Σ_rows g * x_hat
/// grad_bias   = Σ_rows g
/// ```
///
/// With eps outside the root, `mean(ĝ * x_hat)` is multiplied by the divisor over the root.
pub(super) fn backward<R: Real>(
    spec: &Norm,
    problem: &Problem<'_, R>,
    grad_output: ArrayView2<'_, R>,
) -> ExpectedGradients<R> {
    let (rows, cols) = problem.input.dim();
    let k = spec.prefix as f64;
    let mut grads = ExpectedGradients {
        input: Expected::zeros(rows, cols),
        weight: Expected::zeros(1, cols),
        bias: Expected::zeros(1, cols),
        alpha: Expected::zeros(1, 1),
    };
    for (i, row) in problem.input.rows().into_iter().enumerate() {
        let Normalized { x_hat, mag, term_mag, rstd, exponent, eps_ratio } = normalize(row, spec);
        let g = grad_output.row(i);
        let ghat: Vec<R> = (0..cols).map(|j| g[j] * problem.weight(j, spec.weight_offset)).collect();
        let ghat_mag: Vec<f64> = ghat.iter().map(|g| g.abs().to_f64()).collect();

        let centred = spec.statistic == Statistic::Moments;
        let (mean_ghat, mean_ghat_mag) = match centred {
            true => (R::sum(ghat.iter().copied()) / R::new(k), ghat_mag.iter().sum::<f64>() / k),
            false => (R::new(0.0), 0.0),
        };
        // A ratio of zero leaves the term out, whatever the gradient holds.
        let (projection, projection_mag) = match eps_ratio.to_f64() == 0.0 {
            true => (eps_ratio, 0.0),
            false => (
                R::sum((0..cols).map(|j| ghat[j] * x_hat[j])) / R::new(k) * eps_ratio,
                (0..cols).map(|j| ghat_mag[j] * mag[j]).sum::<f64>() / k * eps_ratio.to_f64(),
            ),
        };

        for j in 0..cols {
            let (inside, inside_mag) = if j < spec.prefix {
                (
                    ghat[j] - mean_ghat - x_hat[j] * projection,
                    ghat_mag[j] + mean_ghat_mag + mag[j] * projection_mag,
                )
            } else {
                (ghat[j], ghat_mag[j])
            };
            let grad_mag = Real::scale(rstd.to_f64() * inside_mag, -exponent);
            grads.input.set((i, j), (rstd * inside).scale(-exponent), grad_mag);

            let (x_hat, slack) = seen_by_weight(x_hat[j], spec, problem.dtype);
            let g_mag = g[j].abs().to_f64();
            grads.weight.add(j, g[j] * x_hat, g_mag * term_mag[j]);
            grads.weight.slack[(0, j)] += g_mag * slack;
            grads.bias.add(j, g[j], g_mag);
        }
    }
    grads
}
