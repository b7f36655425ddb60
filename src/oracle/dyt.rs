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

/// The derivative of tanh, `4q / (1 + q)²` with `q = exp(-2 |z|)`: `1 - tanh²` has no digit left where tanh is near 1.
fn sech_squared<R: Real>(z: R) -> R {
    let (one, two) = (R::new(1.0), R::new(2.0));
    let q = (-(two * z.abs())).exp();
    R::new(4.0) * q / ((one + q) * (one + q))
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
        let through = g * problem.weight(j, 0.0) * sech_squared(z);
        let (grad_input, grad_alpha, grad_weight) = (through * alpha, through * x, g * z.tanh());
        grads.input.set((i, j), grad_input, mag(grad_input));
        grads.alpha.add(0, grad_alpha, mag(grad_alpha));
        grads.weight.add(j, grad_weight, mag(grad_weight));
        grads.bias.add(j, g, mag(g));
    }
    grads
}
