//! Functions of each element, without statistics: value, scale and shift, and the gradients.

use super::inverse_square_root::InverseSquareRoot;
use super::real::Real;
use super::tanh::Tanh;
use super::{Expected, ExpectedGradients, Index, Problem};
use crate::spec::{Function, Pointwise};
use ndarray::ArrayView2;

/// A function `f` of an element and of the learned scalar `alpha`. Derivatives come with a factor, so that the product
/// neither overflows nor underflows on the way.
pub(super) trait Curve<R> {
    /// `f(x)`
    fn value(&self, x: R) -> R;
    /// `factor * df/dx`
    fn times_slope(&self, factor: R, x: R) -> R;
    /// `factor * df/dalpha`
    fn times_alpha_slope(&self, factor: R, x: R) -> R;
}

fn curve<R: Real>(spec: &Pointwise, alpha: R) -> Box<dyn Curve<R>> {
    match spec.function {
        Function::Tanh => Box::new(Tanh { alpha }),
        Function::InverseSquareRoot => Box::new(InverseSquareRoot { alpha }),
    }
}

/// `y = f(x) * weight + bias`
pub(super) fn forward<R: Real>(
    spec: &Pointwise,
    alpha: R,
    index: &Index,
    problem: &Problem<'_, R>,
) -> Expected<R> {
    let (rows, cols) = problem.input.dim();
    let (mut output, curve) = (Expected::zeros(rows, cols), curve(spec, alpha));
    for (at, &x) in problem.input.indexed_iter() {
        let scaled = curve.value(x) * problem.weight(index.at(at), 0.0);
        let bias = problem.bias(index.at(at));
        output.set(at, scaled + bias, (scaled.abs() + bias.abs()).to_f64());
    }
    output
}

/// ```text
/// grad_input  = g * weight * df/dx
/// grad_alpha  = Σ g * weight * df/dalpha      over all elements
/// grad_weight = Σ g * f(x)                    over the elements that share a weight
/// grad_bias   = Σ g
/// ```
pub(super) fn backward<R: Real>(
    spec: &Pointwise,
    alpha: R,
    index: &Index,
    problem: &Problem<'_, R>,
    grad_output: ArrayView2<'_, R>,
    mut grads: ExpectedGradients<R>,
) -> ExpectedGradients<R> {
    let curve = curve(spec, alpha);
    let mag = |x: R| x.abs().to_f64();
    for (at, &x) in problem.input.indexed_iter() {
        let (parameter, g) = (index.at(at), grad_output[at]);
        let ghat = g * problem.weight(parameter, 0.0);
        let (grad_input, grad_alpha) = (curve.times_slope(ghat, x), curve.times_alpha_slope(ghat, x));
        let grad_weight = g * curve.value(x);
        grads.input.set(at, grad_input, mag(grad_input));
        grads.alpha.add(0, grad_alpha, mag(grad_alpha));
        grads.weight.add(parameter, grad_weight, mag(grad_weight));
        grads.bias.add(parameter, g, mag(g));
    }
    grads
}
