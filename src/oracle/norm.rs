//! Norms with statistics: scale and shift of the normalized rows, and the gradients.

use super::real::Real;
use super::round::{is_ambiguous, round, ulp};
use super::row::{Derivative, Normalized, Row};
use super::{Expected, ExpectedGradients, Index, Problem, frozen, layer_norm, p_norm, rms_norm};
use crate::spec::{Norm, Statistic};
use crate::tensor::DType;
use ndarray::ArrayView2;

fn normalize<R: Real>(spec: &Norm, problem: &Problem<'_, R>, row: usize) -> Normalized<R> {
    let given = problem.given.map(|given| given[row]);
    let elements = || problem.elements(row).enumerate();
    let row = Row {
        x: elements().map(|(_, x)| x.unwrap_or(R::new(0.0))).collect(),
        counts: elements().map(|(col, x)| x.is_some() && col < spec.prefix).collect(),
    };
    match (given, spec.statistic) {
        (Some((mean, var)), _) => frozen::normalize(&row, mean, var, spec),
        (None, Statistic::Moments) => layer_norm::normalize(&row, spec),
        (None, Statistic::MeanSquare) => rms_norm::normalize(&row, spec),
        (None, Statistic::Norm(p)) => p_norm::normalize(&row, p, spec),
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

/// `y = x_hat * weight + bias`, and zero where the mask leaves an element out.
pub(super) fn forward<R: Real>(spec: &Norm, index: &Index, problem: &Problem<'_, R>) -> Expected<R> {
    let (rows, cols) = problem.input.dim();
    let mut output = Expected::zeros(rows, cols);
    for i in 0..rows {
        let normalized = normalize(spec, problem, i);
        for j in (0..cols).filter(|&j| problem.takes_part((i, j))) {
            let parameter = index.at((i, j));
            let (weight, bias) = (problem.weight(parameter, spec.weight_offset), problem.bias(parameter));
            let (x_hat, slack) = seen_by_weight(normalized.x_hat[j], spec, problem.dtype);
            let weight_mag = weight.abs().to_f64();
            output.set((i, j), x_hat * weight + bias, normalized.mag[j] * weight_mag + bias.abs().to_f64());
            output.slack[(i, j)] = slack * weight_mag;
        }
    }
    output
}

/// With `ĝ = g * weight`, sums over the row's elements that the mask does not leave out, and the statistics' derivative
/// as [`Derivative`] has it:
///
/// ```text
/// grad_input  = rstd * (ĝ - centre * Σ ĝ - along * slope * Σ ĝ x_hat)
/// grad_weight = Σ g * x_hat                  over the elements that share a weight
/// grad_bias   = Σ g
/// ```
pub(super) fn backward<R: Real>(
    spec: &Norm,
    index: &Index,
    problem: &Problem<'_, R>,
    grad_output: ArrayView2<'_, R>,
    mut grads: ExpectedGradients<R>,
) -> ExpectedGradients<R> {
    let (rows, cols) = problem.input.dim();
    let mag_of = |x: R| x.abs().to_f64();
    for i in 0..rows {
        let Normalized { x_hat, mag, term_mag, rstd, exponent, derivative } = normalize(spec, problem, i);
        let Derivative { centre, along, along_mag, slope } = derivative;
        let present: Vec<usize> = (0..cols).filter(|&j| problem.takes_part((i, j))).collect();
        let ghat = |j: usize| grad_output[(i, j)] * problem.weight(index.at((i, j)), spec.weight_offset);

        let mut step = (R::new(0.0), 0.0);
        if centre.to_f64() != 0.0 {
            let of_mags: f64 = present.iter().map(|&j| mag_of(ghat(j))).sum();
            step = (centre * R::sum(present.iter().map(|&j| ghat(j))), mag_of(centre) * of_mags);
        }
        let mut growth = (R::new(0.0), 0.0);
        if slope.to_f64() != 0.0 {
            let of_mags: f64 = present.iter().map(|&j| mag_of(ghat(j)) * mag[j]).sum();
            growth = (slope * R::sum(present.iter().map(|&j| ghat(j) * x_hat[j])), mag_of(slope) * of_mags);
        }

        for &j in &present {
            let (mut inside, mut inside_mag) = (ghat(j), mag_of(ghat(j)));
            if j < spec.prefix {
                inside = inside - step.0 - along[j] * growth.0;
                inside_mag += step.1 + along_mag[j] * growth.1;
            }
            let grad_mag = Real::scale(rstd.to_f64() * inside_mag, -exponent);
            grads.input.set((i, j), (rstd * inside).scale(-exponent), grad_mag);

            let (g, parameter) = (grad_output[(i, j)], index.at((i, j)));
            let (x_hat, slack) = seen_by_weight(x_hat[j], spec, problem.dtype);
            grads.weight.add(parameter, g * x_hat, mag_of(g) * term_mag[j]);
            grads.weight.slack[(0, parameter)] += mag_of(g) * slack;
            grads.bias.add(parameter, g, mag_of(g));
        }
    }
    grads
}
