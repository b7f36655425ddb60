//! Norms with statistics: scale and shift of the normalized rows, and the gradients.

use super::fusion::{self, Kept, Sized};
use super::real::Real;
use super::round::{is_ambiguous, round, ulp};
use super::row::{Derivative, Normalized, Row};
use super::{Expected, ExpectedGradients, Index, Problem, frozen, layer_norm, p_norm, rms_norm};
use crate::spec::{Epilogue, Norm, Spec, Statistic};
use crate::tensor::DType;
use ndarray::ArrayView2;

fn normalize<R: Real>(
    spec: &Norm,
    (kept, index): (&Kept, &Index),
    problem: &Problem<'_, R>,
    row: usize,
) -> Normalized<R> {
    let given = problem.given.map(|given| given[row]);
    let elements: Vec<_> = (0..problem.input.ncols())
        .map(|col| {
            problem.takes_part((row, col)).then(|| problem.hidden(&spec.fusion, kept, index, (row, col)))
        })
        .collect();
    let row = Row {
        x: elements.iter().map(|h| h.map_or(R::new(0.0), |h| h.value)).collect(),
        size: elements.iter().map(|h| R::new(h.map_or(0.0, |h| h.mag))).collect(),
        counts: elements.iter().enumerate().map(|(col, h)| h.is_some() && col < spec.prefix).collect(),
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

/// The scaled and shifted value of an element, `x_hat * weight + bias`, and the slack that a rounding of `x_hat` leaves it;
/// zero where the mask leaves it out.
fn scaled<R: Real>(
    spec: &Norm,
    index: &Index,
    problem: &Problem<'_, R>,
    normalized: &Normalized<R>,
    (i, j): (usize, usize),
) -> (Sized<R>, f64) {
    if !problem.takes_part((i, j)) {
        return (Sized::new(R::new(0.0)), 0.0);
    }
    let parameter = index.at((i, j));
    let (weight, bias) = (problem.weight(parameter, spec.weight_offset), problem.bias(parameter));
    let (x_hat, slack) = seen_by_weight(normalized.x_hat[j], spec, problem.dtype);
    let weight_mag = weight.abs().to_f64();
    let mag = normalized.mag[j] * weight_mag + bias.abs().to_f64();
    (Sized { value: x_hat * weight + bias, mag }, slack * weight_mag)
}

/// `y = epilogue(x_hat * weight + bias)`.
pub(super) fn forward<R: Real>(spec: &Norm, index: &Index, problem: &Problem<'_, R>) -> Expected<R> {
    let (rows, cols) = problem.input.dim();
    let kept = Kept::of(&Spec::Norm(spec.clone()));
    let mut output = Expected::zeros(rows, cols);
    for i in 0..rows {
        let normalized = normalize(spec, (&kept, index), problem, i);
        let of_row = |j| scaled(spec, index, problem, &normalized, (i, j));
        let (mut values, mut slacks): (Vec<_>, Vec<_>) = (0..cols).map(of_row).unzip();
        if let Some(rotation) = problem.rotation(spec.fusion.epilogue, i) {
            rotation.forth(&mut values);
            rotation.spread(&mut slacks);
        }
        for (at, (v, slack)) in (0..cols).map(|j| (i, j)).zip(values.into_iter().zip(slacks)) {
            let other = problem.after.map(|after| after[at]);
            let y = fusion::output(spec.fusion.epilogue, v, other);
            output.set(at, y.value, y.mag);
            let steepest = match (spec.fusion.epilogue, other) {
                (Epilogue::Activation(_), _) => 1.13,
                (Epilogue::Gate, Some(z)) => z.abs().to_f64(),
                _ => 1.0,
            };
            output.slack[at] = slack * steepest;
        }
    }
    output
}

/// With `g` the gradient that the epilogue leaves of the output's, `ĝ = g * weight`, sums over the row's elements that the
/// mask does not leave out, and the statistics' derivative as [`Derivative`] has it:
///
/// ```text
/// d           = rstd * (ĝ - centre * Σ ĝ - along * slope * Σ ĝ x_hat)
/// grad_input  = prologue's of d + grad_hidden
/// grad_weight = Σ g * x_hat                  over the elements that share a weight
/// grad_bias   = Σ g
/// and those of a branch's bias and scale, over all elements that share them
/// ```
pub(super) fn backward<R: Real>(
    spec: &Norm,
    index: &Index,
    problem: &Problem<'_, R>,
    grad_output: ArrayView2<'_, R>,
    mut grads: ExpectedGradients<R>,
) -> ExpectedGradients<R> {
    let (rows, cols) = problem.input.dim();
    let (epilogue, kept) = (spec.fusion.epilogue, Kept::of(&Spec::Norm(spec.clone())));
    let unit = ulp(problem.dtype.compute(), 1.0);
    for i in 0..rows {
        let normalized = normalize(spec, (&kept, index), problem, i);
        let mut of_epilogue: Vec<_> = (0..cols)
            .map(|j| {
                let (v, _) = scaled(spec, index, problem, &normalized, (i, j));
                let other = problem.after.map(|after| after[(i, j)]);
                let (g, after) =
                    fusion::output_gradients(epilogue, v, other, problem.grad_output(&grad_output, (i, j)));
                grads.after.set((i, j), after.value, after.mag);
                (g, fusion::is_at_kink(epilogue, v, unit))
            })
            .collect();
        if let Some(rotation) = problem.rotation(epilogue, i) {
            let mut gradients: Vec<_> = of_epilogue.iter().map(|of| of.0).collect();
            rotation.back(&mut gradients);
            of_epilogue = gradients.into_iter().map(|g| (g, false)).collect();
        }
        let g = |j: usize| of_epilogue[j].0;
        let Normalized { x_hat, mag, term_mag, rstd, exponent, derivative } = normalized;
        let Derivative { centre, along, along_mag, slope } = derivative;
        let present: Vec<usize> = (0..cols).filter(|&j| problem.takes_part((i, j))).collect();
        let weight = |j: usize| Sized::new(problem.weight(index.at((i, j)), spec.weight_offset));
        let ghat = |j: usize| g(j).times(weight(j));

        let mut step = Sized::new(R::new(0.0));
        if centre.to_f64() != 0.0 {
            let of_mags: f64 = present.iter().map(|&j| ghat(j).mag).sum();
            let value = centre * R::sum(present.iter().map(|&j| ghat(j).value));
            step = Sized { value, mag: centre.abs().to_f64() * of_mags };
        }
        let mut growth = Sized::new(R::new(0.0));
        if slope.to_f64() != 0.0 {
            let of_mags: f64 = present.iter().map(|&j| ghat(j).mag * mag[j]).sum();
            let value = slope * R::sum(present.iter().map(|&j| ghat(j).value * x_hat[j]));
            growth = Sized { value, mag: slope.abs().to_f64() * of_mags };
        }
        // What a gradient that may be cut off or not changes in the row.
        let tossed = |j: usize| {
            if of_epilogue[j].1 { (grad_output[(i, j)] * weight(j).value).abs().to_f64() } else { 0.0 }
        };
        let all_tossed: f64 = present.iter().map(|&j| tossed(j)).sum();
        let widest = present.iter().map(|&j| mag[j]).fold(0.0, f64::max);

        for &j in &present {
            let mut inside = ghat(j);
            if j < spec.prefix {
                inside.value = inside.value - step.value - along[j] * growth.value;
                inside.mag += step.mag + along_mag[j] * growth.mag;
            }
            let grad_mag = Real::scale(rstd.to_f64() * inside.mag, -exponent);
            grads.input.set((i, j), (rstd * inside.value).scale(-exponent), grad_mag);
            if all_tossed > 0.0 {
                let share = all_tossed * (1.0 + mag[j] * widest);
                grads.input.slack[(i, j)] = Real::scale(rstd.to_f64() * share, -exponent);
            }

            let (g, parameter) = (g(j), index.at((i, j)));
            let (x_hat, slack) = seen_by_weight(x_hat[j], spec, problem.dtype);
            let cut = if of_epilogue[j].1 { grad_output[(i, j)].abs().to_f64() } else { 0.0 };
            grads.weight.add(parameter, g.value * x_hat, g.mag * term_mag[j]);
            grads.weight.slack[(0, parameter)] += g.mag * slack + cut * term_mag[j];
            grads.bias.add(parameter, g.value, g.mag);
            grads.bias.slack[(0, parameter)] += cut;
        }
        let of_hidden = |at: (usize, usize)| {
            let d = Sized { value: grads.input.value[at], mag: grads.input.mag[at] };
            problem.grad_hidden.map_or(d, |own| d.plus(Sized::new(own[at])))
        };
        let all: Vec<_> = (0..cols).map(|j| ((i, j), of_hidden((i, j)))).collect();
        let finite = |d: &Sized<R>| if d.mag.is_finite() { d.mag } else { 0.0 };
        let largest = all.iter().map(|(_, d)| finite(d)).fold(0.0, f64::max);
        for (at, d) in all {
            let (x, other) = (problem.input[at], problem.before.map(|before| before[at]));
            let branch = problem.branch(index, at);
            let gradients = |d| fusion::hidden_gradients(&spec.fusion, &kept, at, x, branch, other, d);
            let terms = |d| fusion::branch_terms(&spec.fusion, &kept, at, x, branch, d);
            let (input, before) = gradients(d);
            grads.input.set(at, input.value, input.mag);
            grads.before.set(at, before.value, before.mag);
            for (to, term) in grads.branch.iter_mut().zip(terms(Sized { mag: largest, ..d })) {
                to.add(index.at(at), term.value, term.mag);
            }
            // All of these are proportional to d, and so is what it may be off.
            let tossed = grads.input.slack[at];
            if tossed > 0.0 {
                let tossed = Sized::new(R::new(tossed));
                let (input, before) = gradients(tossed);
                grads.input.slack[at] = input.value.abs().to_f64();
                grads.before.slack[at] = before.value.abs().to_f64();
                for (to, term) in grads.branch.iter_mut().zip(terms(tossed)) {
                    to.slack[(0, index.at(at))] += term.value.abs().to_f64();
                }
            }
        }
    }
    grads
}
