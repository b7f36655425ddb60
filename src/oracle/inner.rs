//! A norm of the branch that a residual is added to: `h = input_scale * norm(x) + residual_scale * r`. With a mix:
//!
//! ```text
//! a = norm(x),  b = norm(r),  z = alpha_scale * alpha
//! h = (1 - |z|) * a + |z| * b
//! da = (1 - |z|) * g,  db = |z| * g          g: the gradient of h
//! dalpha = sgn(z) * alpha_scale * (Σ g b - Σ g a)
//! ```

use super::fusion::Sized;
use super::real::Real;
use super::{Expected, ExpectedGradients, Index, Problem, norm};
use crate::spec::{Fusion, Mix, Norm, Prologue};
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
    let plain = Fusion { inner: None, mix: None, ..spec.fusion };
    let of = |fusion| Norm { fusion, ..spec.clone() };
    let a = norm::forward(&inner, index, &alone(problem));
    let Some(mix) = Mixed::of(spec, index, problem) else { return Some((of(plain), a)) };
    let (b, (rows, cols)) = (mix.residual(&inner), problem.input.dim());
    let mut h = Expected::zeros(rows, cols);
    for at in ndarray::indices((rows, cols)) {
        let [rest, share] = mix.shares(at);
        let sum = rest.times(element(&a, at)).plus(share.times(element(&b, at)));
        h.set(at, sum.value, sum.mag);
    }
    // What is normalized is there: nothing is added to it.
    Some((of(Fusion { prologue: Prologue::None, ..plain }), h))
}

/// The problem of the norm around the branch, whose input is the branch's normalized one.
pub(super) fn around<'p, R: Real>(problem: &'p Problem<'_, R>, v: &'p Expected<R>) -> Problem<'p, R> {
    Problem {
        weight: problem.weight.as_ref().map(|weight| weight.view()),
        bias: problem.bias.as_ref().map(|bias| bias.view()),
        mask: problem.mask.as_ref().map(|mask| mask.view()),
        before: problem.before.as_ref().filter(|_| problem.mix.is_none()).map(|before| before.view()),
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
    if let Some(mix) = Mixed::of(spec, index, problem) {
        return mix.backward(&inner, around, zeros);
    }
    let of_inner = Problem { mags: [None, Some(around.input.mag.view())], ..alone(problem) };
    let inner = norm::backward(&inner, index, &of_inner, around.input.value.view(), zeros);
    ExpectedGradients { input: inner.input, of_inner: [inner.weight, inner.bias], ..around }
}

fn element<R: Real>(of: &Expected<R>, at: (usize, usize)) -> Sized<R> {
    Sized { value: of.value[at], mag: of.mag[at] }
}

/// A mix of two norms.
struct Mixed<'p, 'a, R> {
    mix: Mix,
    index: &'p Index,
    problem: &'p Problem<'a, R>,
}

impl<'p, 'a, R: Real> Mixed<'p, 'a, R> {
    fn of(spec: &Norm, index: &'p Index, problem: &'p Problem<'a, R>) -> Option<Self> {
        spec.fusion.mix.map(|mix| Mixed { mix, index, problem })
    }

    /// `alpha_scale * alpha`
    fn product(&self, at: (usize, usize)) -> R {
        let alpha = self.problem.mix.map_or(R::new(1.0), |alpha| alpha[self.index.at(at)]);
        R::new(self.mix.alpha_scale) * alpha
    }

    /// `1 - |z|` and `|z|`
    fn shares(&self, at: (usize, usize)) -> [Sized<R>; 2] {
        let share = self.product(at).abs();
        [Sized::new(R::new(1.0)).plus(Sized::new(-share)), Sized::new(share)]
    }

    /// The residual as the input of a norm of its own.
    fn of_residual(&self) -> Problem<'p, R> {
        let residual = self.problem.before.as_ref().unwrap_or(&self.problem.input);
        Problem::new(self.problem.dtype, residual.view())
    }

    /// The normalized residual.
    fn residual(&self, inner: &Norm) -> Expected<R> {
        norm::forward(inner, self.index, &self.of_residual())
    }

    fn backward(
        &self,
        inner: &Norm,
        around: ExpectedGradients<R>,
        zeros: ExpectedGradients<R>,
    ) -> ExpectedGradients<R> {
        let (dim, g) = (self.problem.input.dim(), &around.input);
        let inputs = [alone(self.problem), self.of_residual()];
        let [a, b] = inputs.each_ref().map(|of| norm::forward(inner, self.index, of));
        let mut of_shares = [(); 2].map(|()| Expected::zeros(dim.0, dim.1));
        let mut sums = [zeros.mix.clone(), zeros.mix.clone()];
        for at in ndarray::indices(dim) {
            let g = element(g, at);
            for (to, share) in of_shares.iter_mut().zip(self.shares(at)) {
                let part = g.times(share);
                to.set(at, part.value, part.mag);
            }
            for (sum, of) in sums.iter_mut().zip([&a, &b]) {
                let term = g.times(element(of, at));
                sum.add(self.index.at(at), term.value, term.mag);
            }
        }
        let mut of_alpha = zeros.mix.clone();
        for (parameter, at) in self.index.firsts() {
            let z = self.product(at).to_f64();
            let sign = if z == 0.0 { 0.0 } else { z.signum() };
            let to = (0, parameter);
            let [of_a, of_b] = sums.each_ref().map(|sum| element(sum, to));
            let between = of_b.plus(Sized { value: -of_a.value, mag: of_a.mag });
            let gradient = between.times(Sized::new(R::new(sign * self.mix.alpha_scale)));
            of_alpha.set(to, gradient.value, gradient.mag);
        }
        let [da, db] = &of_shares;
        let [of_input, of_residual] = [(&inputs[0], da), (&inputs[1], db)].map(|(of, gradient)| {
            let problem = Problem { mags: [None, Some(gradient.mag.view())], ..of.clone() };
            norm::backward(inner, self.index, &problem, gradient.value.view(), zeros.clone())
        });
        ExpectedGradients { input: of_input.input, before: of_residual.input, mix: of_alpha, ..around }
    }
}
