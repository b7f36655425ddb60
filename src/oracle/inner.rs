//! A norm of the branch that a residual is added to: `h = input_scale * norm(x) + residual_scale * r`.

use super::real::Real;
use super::{Expected, ExpectedGradients, Index, Problem, norm};
use crate::spec::{Fusion, Norm};
use ndarray::ArrayView2;

/// The norm of the branch on its own input.
fn alone<'p, R: Real>(problem: &'p Problem<'_, R>) -> Problem<'p, R> {
    let [weight, bias] = problem.of_inner.each_ref().map(|one| one.as_ref().map(|one| one.view()));
    Problem { weight, bias, ..Problem::new(problem.dtype, problem.input.view()) }
}

/// The norm around the branch, and the branch's normalized input; `None` where there is no branch.
pub(super) fn forward<R: Real>(
    spec: &Norm,
    index: &Index,
    problem: &Problem<'_, R>,
) -> Option<(Norm, Expected<R>)> {
    let inner = spec.inner()?;
    let outer = Norm { fusion: Fusion { inner: None, ..spec.fusion }, ..spec.clone() };
    Some((outer, norm::forward(&inner, index, &alone(problem))))
}

/// The problem of the norm around the branch, whose input is the branch's normalized one.
pub(super) fn around<'p, R: Real>(problem: &'p Problem<'_, R>, v: &'p Expected<R>) -> Problem<'p, R> {
    Problem {
        weight: problem.weight.as_ref().map(|weight| weight.view()),
        bias: problem.bias.as_ref().map(|bias| bias.view()),
        mask: problem.mask.as_ref().map(|mask| mask.view()),
        before: problem.before.as_ref().map(|before| before.view()),
        after: problem.after.as_ref().map(|after| after.view()),
        angles: problem.angles.as_ref().map(|angles| angles.each_ref().map(|table| table.view())),
        grad_hidden: problem.grad_hidden.as_ref().map(|gradient| gradient.view()),
        mags: [Some(v.mag.view()), None],
        ..Problem::new(problem.dtype, v.value.view())
    }
}

/// The gradient that the norm around the branch leaves of its input is that of the branch's output.
pub(super) fn backward<R: Real>(
    spec: &Norm,
    (outer, v): (&Norm, &Expected<R>),
    index: &Index,
    problem: &Problem<'_, R>,
    grad_output: ArrayView2<'_, R>,
    zeros: ExpectedGradients<R>,
) -> ExpectedGradients<R> {
    let around = norm::backward(outer, index, &around(problem, v), grad_output, zeros.clone());
    let Some(inner) = spec.inner() else { return around };
    let of_inner = Problem { mags: [None, Some(around.input.mag.view())], ..alone(problem) };
    let inner = norm::backward(&inner, index, &of_inner, around.input.value.view(), zeros);
    ExpectedGradients { input: inner.input, of_inner: [inner.weight, inner.bias], ..around }
}
