//! Dynamic tanh: a function of each element, without statistics.

use super::real::Real;
use super::{Expected, ExpectedGradients, Problem};
use ndarray::ArrayView2;

/// `y = tanh(alpha * x) * weight + bias`
pub(super) fn forward<R: Real>(alpha: R, problem: &Problem<'_, R>) -> Expected<R> {
    let (rows, cols) = problem.input.dim();
    let mut output = Expected::zeros(rows, cols);
    for ((i, j), &x) in problem.input.indexed_iter() {
        let scaled = (alpha * x).tanh() * problem.weight(j, 0.0);
        let bias = problem.bias(j);
        output.set((i, j), scaled + bias, (scaled.abs() + bias.abs()).to_f64());
    }
    output
}

/// `factor * sech²(z)`, the derivative of tanh as `4e² / (1 + e²)²` with `e = exp(-|z|)`: `1 - tanh²` has no digit left
/// where tanh is near 1, and `e²` may underflow where the product does not.
fn times_sech_squared<R: Real>(factor: R, z: R) -> R {
    let e = (-z.abs()).exp();
    let one_plus = R::new(1.0) + e * e;
    factor * R::new(4.0) * e * e / (one_plus * one_plus)
}

/// ```text
/// grad_input  = g * weight * alpha * sech²(alpha * x)
/// grad_alpha  = Σ g * weight * x * sech²(alpha * x)
/// grad_weight = Σ_rows g * tanh(alpha * x)
/// grad_bias   = Σ_rows g
/// ```
pub(super) fn backward<R: Real>(
    alpha: R,
    problem: &Problem<'_, R>,
    grad_output: ArrayView2<'_, R>,
) -> ExpectedGradients<R> {
    let (rows, cols) = problem.input.dim();
    let mut grads = ExpectedGradients {
        input: Expected::zeros(rows, cols),
        weight: Expected::zeros(1, cols),
        bias: Expected::zeros(1, cols),
        alpha: Expected::zeros(1, 1),
    };
    let mag = |x: R| x.abs().to_f64();
    for ((i, j), &x) in problem.input.indexed_iter() {
        let (z, g) = (alpha * x, grad_output[(i, j)]);
        let ghat = g * problem.weight(j, 0.0);
        let grad_input = times_sech_squared(ghat * alpha, z);
        let (grad_alpha, grad_weight) = (times_sech_squared(ghat * x, z), g * z.tanh());
        grads.input.set((i, j), grad_input, mag(grad_input));
        grads.alpha.add(0, grad_alpha, mag(grad_alpha));
        grads.weight.add(j, grad_weight, mag(grad_weight));
        grads.bias.add(j, g, mag(g));
    }
    grads
}
