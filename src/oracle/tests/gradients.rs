//! Every gradient is the slope of the loss `Σ g y`.

use super::*;
use crate::spec::{Activation, Branch, Dropout, Epilogue, Inner, Prologue, RotaryStyle};
use ndarray::Array1;

/// The operands of a small problem, to be nudged one number at a time.
#[derive(Clone)]
struct Operands {
    input: Array2<Dd>,
    weight: Array1<Dd>,
    bias: Array1<Dd>,
    alpha: Dd,
    mask: Option<Array2<bool>>,
    given: Option<Vec<(Dd, Dd)>>,
    before: Option<Array2<Dd>>,
    after: Option<Array2<Dd>>,
    angles: Option<[Array2<Dd>; 2]>,
    branch: [Option<Array1<Dd>>; 2],
    grad_hidden: Option<Array2<Dd>>,
    of_inner: Option<[Array1<Dd>; 2]>,
    mix: Option<Array1<Dd>>,
    grad_output: Array2<Dd>,
}

impl Operands {
    fn new(spec: &Spec) -> Self {
        let wave = |i: usize, j: usize, k: f64| Dd::new((k + 1.7 * i as f64 + (2.0 + k) * j as f64).sin());
        let (rows, cols, parameters) = (spec.rows(), spec.cols(), parameters(spec));
        let frozen = matches!(spec, Spec::Norm(Norm { frozen: true, .. }));
        let fusion = spec.fusion();
        let other = |is_there: bool, k: f64| {
            is_there.then(|| Array2::from_shape_fn((rows, cols), |(i, j)| wave(i, j, k)))
        };
        let given = |i| (wave(i, 0, 0.5), wave(i, 1, 0.2).abs() + Dd::new(0.1));
        Operands {
            input: Array2::from_shape_fn((rows, cols), |(i, j)| wave(i, j, 0.3) + Dd::new(0.4)),
            weight: Array1::from_shape_fn(parameters, |j| wave(1, j, 0.7)),
            bias: Array1::from_shape_fn(parameters, |j| wave(2, j, 1.1)),
            alpha: Dd::new(0.8),
            mask: None,
            given: frozen.then(|| (0..rows).map(given).collect()),
            before: other(fusion.prologue.operand().is_some(), 0.9),
            after: other(fusion.epilogue.operand().is_some(), 1.3),
            angles: match fusion.epilogue {
                Epilogue::Rotary { dims, .. } => {
                    Some([0.4, 1.6].map(|k| Array2::from_shape_fn((rows, dims / 2), |(i, j)| wave(i, j, k))))
                }
                _ => None,
            },
            branch: [(fusion.branch.bias, 2.9), (fusion.branch.scale, 3.7)]
                .map(|(is_there, k)| is_there.then(|| Array1::from_shape_fn(parameters, |j| wave(3, j, k)))),
            grad_hidden: other(fusion.prologue.operand().is_some(), 2.3),
            of_inner: fusion
                .inner
                .filter(|_| fusion.mix.is_none())
                .map(|_| [0.8, 1.2].map(|k| Array1::from_shape_fn(parameters, |j| wave(3, j, k)))),
            mix: fusion.mix.map(|_| Array1::from_shape_fn(parameters, |j| wave(3, j, 0.6))),
            grad_output: Array2::from_shape_fn((rows, cols), |(i, j)| wave(i, j, 1.9)),
        }
    }

    fn problem(&self) -> Problem<'_, Dd> {
        Problem {
            weight: Some(self.weight.view()),
            bias: Some(self.bias.view()),
            alpha: Some(self.alpha),
            mask: self.mask.as_ref().map(|mask| mask.view()),
            given: self.given.as_deref(),
            before: self.before.as_ref().map(|other| other.view()),
            after: self.after.as_ref().map(|other| other.view()),
            angles: self.angles.as_ref().map(|tables| tables.each_ref().map(|table| table.view())),
            branch: self.branch.each_ref().map(|own| own.as_ref().map(|own| own.view())),
            grad_hidden: self.grad_hidden.as_ref().map(|other| other.view()),
            of_inner: match &self.of_inner {
                Some(parameters) => parameters.each_ref().map(|parameter| Some(parameter.view())),
                None => [None; 2],
            },
            mix: self.mix.as_ref().map(|alpha| alpha.view()),
            ..Problem::new(DType::F64, self.input.view())
        }
    }

    fn loss(&self, spec: &Spec) -> Dd {
        let (y, h) = (forward(spec, &self.problem()).unwrap(), hidden(spec, &self.problem()).unwrap());
        let of_hidden = self.grad_hidden.iter().flatten().zip(&h.value).map(|(&g, &h)| g * h);
        Dd::sum(y.value.iter().zip(&self.grad_output).map(|(&y, &g)| y * g).chain(of_hidden))
    }

    /// Central difference of the loss along the number that `pick` names; its own error is some 1e-20.
    fn slope(&self, spec: &Spec, pick: impl Fn(&mut Operands) -> &mut Dd) -> f64 {
        let step = Dd::new(2f64.powi(-36));
        let (mut up, mut down) = (self.clone(), self.clone());
        let (at_up, at_down) = (pick(&mut up), pick(&mut down));
        (*at_up, *at_down) = (*at_up + step, *at_down - step);
        ((up.loss(spec) - down.loss(spec)) / step.scale(1)).to_f64()
    }
}

/// Compares every gradient with the slope of the loss.
fn check(spec: &Spec, operands: &Operands) {
    let grads = backward(spec, &operands.problem(), operands.grad_output.view()).unwrap();
    let compare = |what: &str, grad: &Expected<Dd>, at: (usize, usize), slope: f64| {
        let (value, mag) = (grad.value[at].to_f64(), grad.mag[at]);
        let error = (value - slope).abs();
        assert!(error < 1e-15 * mag.max(1.0), "{spec:?}: {what}{at:?} is {value}, off by {error:e}");
        assert!(mag >= value.abs() * (1.0 - 1e-15), "{spec:?}: {what}{at:?}: mag below value");
    };
    for at in ndarray::indices(operands.input.dim()) {
        compare("input", &grads.input, at, operands.slope(spec, |o| &mut o.input[at]));
    }
    for at in ndarray::indices(operands.input.dim()) {
        if operands.before.is_some() {
            let slope = operands.slope(spec, |o| &mut o.before.as_mut().unwrap()[at]);
            compare("before", &grads.before, at, slope);
        }
        if operands.after.is_some() {
            let slope = operands.slope(spec, |o| &mut o.after.as_mut().unwrap()[at]);
            compare("after", &grads.after, at, slope);
        }
    }
    for j in 0..operands.weight.len() {
        compare("weight", &grads.weight, (0, j), operands.slope(spec, |o| &mut o.weight[j]));
        compare("bias", &grads.bias, (0, j), operands.slope(spec, |o| &mut o.bias[j]));
        for which in (0..2).filter(|&which| operands.branch[which].is_some()) {
            let slope = operands.slope(spec, |o| &mut o.branch[which].as_mut().unwrap()[j]);
            compare("branch", &grads.branch[which], (0, j), slope);
        }
    }
    for (which, grad) in grads.of_inner.iter().enumerate().filter(|_| operands.of_inner.is_some()) {
        for j in 0..operands.weight.len() {
            let slope = operands.slope(spec, |o| &mut o.of_inner.as_mut().unwrap()[which][j]);
            compare(["inner weight", "inner bias"][which], grad, (0, j), slope);
        }
    }
    for j in (0..operands.weight.len()).filter(|_| operands.mix.is_some()) {
        let slope = operands.slope(spec, |o| &mut o.mix.as_mut().unwrap()[j]);
        compare("mix", &grads.mix, (0, j), slope);
    }
    compare("alpha", &grads.alpha, (0, 0), operands.slope(spec, |o| &mut o.alpha));
}

/// Every statistic and place of eps, over the rows of a matrix.
fn statistics() -> Vec<Norm> {
    let shape = [3, 5];
    let square = |eps| rows(shape, Statistic::MeanSquare, eps);
    let outside = |norm| Norm { eps_position: EpsPosition::Outside, ..norm };
    let p_norm = |p| rows(shape, Statistic::Norm(p), 1e-3);
    vec![
        rows(shape, Statistic::Moments, 1e-3),
        rows(shape, Statistic::Moments, 0.0),
        Norm { frozen: true, ..rows(shape, Statistic::Moments, 1e-3) },
        outside(rows(shape, Statistic::Moments, 0.3)),
        Norm { prefix: 3, ..rows(shape, Statistic::Moments, 1e-3) },
        square(1e-3),
        outside(square(0.3)),
        Norm { prefix: 2, ..square(1e-3) },
        outside(Norm { prefix: 2, ..square(0.3) }),
        Norm { weight_offset: 1.0, ..square(1e-3) },
        p_norm(1.0),
        p_norm(1.3),
        p_norm(2.0),
        p_norm(3.0),
        p_norm(7.7),
        p_norm(f64::INFINITY),
        // The floor above every norm: a constant divisor.
        rows(shape, Statistic::Norm(2.0), 9.0),
        rows(shape, Statistic::Norm(2.0), 0.0),
    ]
}

#[test]
fn of_every_statistic() {
    for spec in statistics().into_iter().map(Spec::Norm) {
        check(&spec, &Operands::new(&spec));
    }
}

#[test]
fn with_a_mask() {
    for spec in statistics().into_iter().map(Spec::Norm) {
        let mut operands = Operands::new(&spec);
        // Ragged rows, and one of which nothing takes part.
        operands.mask = Some(Array2::from_shape_fn((3, 5), |(i, j)| i != 1 && (i + j) % 3 != 1));
        check(&spec, &operands);
    }
}

#[test]
fn over_any_axes() {
    let shape = [2, 3, 4];
    for reduced in [&[0, 2][..], &[1], &[0], &[0, 1, 2], &[]] {
        for affine in [&[1][..], &[0, 2], &[], &[0, 1, 2]] {
            for statistic in [Statistic::Moments, Statistic::Norm(2.0)] {
                let spec = Spec::Norm(norm(&shape, reduced, affine, statistic, 1e-2));
                check(&spec, &Operands::new(&spec));
            }
        }
    }
}

#[test]
fn through_what_surrounds_a_norm() {
    let prologues =
        [Prologue::None, Prologue::Residual { input_scale: 0.5, residual_scale: -3.0 }, Prologue::Gate];
    let epilogues = [
        Epilogue::None,
        Epilogue::Activation(Activation::Relu),
        Epilogue::Activation(Activation::Silu),
        Epilogue::Activation(Activation::Gelu),
        Epilogue::Activation(Activation::GeluTanh),
        Epilogue::Residual,
        Epilogue::Gate,
        Epilogue::Rotary { style: RotaryStyle::HalfSplit, dims: 4 },
        Epilogue::Rotary { style: RotaryStyle::Interleaved, dims: 2 },
    ];
    for (prologue, epilogue) in
        prologues.into_iter().flat_map(|before| epilogues.map(|after| (before, after)))
    {
        for norm in [rows([3, 5], Statistic::Moments, 1e-3), rows([3, 5], Statistic::MeanSquare, 1e-3)] {
            let spec =
                Spec::Norm(Norm { fusion: Fusion { prologue, epilogue, ..Fusion::default() }, ..norm });
            check(&spec, &Operands::new(&spec));
        }
    }
}

#[test]
fn through_dropout() {
    let dropout = Some(Dropout { probability: 0.4, seed: 5, offset: 9 });
    let prologue = Prologue::Residual { input_scale: 0.5, residual_scale: -3.0 };
    for reduced in [&[2][..], &[0, 2]] {
        let of_axes = norm(&[2, 3, 4], reduced, &[1], Statistic::Moments, 1e-2);
        let fusion = Fusion { prologue, dropout, ..Fusion::default() };
        let spec = Spec::Norm(Norm { fusion, ..of_axes });
        check(&spec, &Operands::new(&spec));
    }
}

#[test]
fn through_a_branch_that_is_shifted_and_scaled() {
    let dropout = Some(Dropout { probability: 0.4, seed: 5, offset: 9 });
    let prologue = Prologue::Residual { input_scale: 0.5, residual_scale: -3.0 };
    for (bias, scale) in [(true, true), (true, false), (false, true)] {
        for (reduced, affine) in [(&[2][..], &[2][..]), (&[0, 2], &[1]), (&[1, 2], &[1]), (&[1, 2], &[2])] {
            for dropout in [None, dropout] {
                let branch = Branch { bias, scale };
                let fusion = Fusion { prologue, dropout, branch, ..Fusion::default() };
                let of_axes = norm(&[2, 3, 4], reduced, affine, Statistic::Moments, 1e-2);
                let spec = Spec::Norm(Norm { fusion, ..of_axes });
                check(&spec, &Operands::new(&spec));
            }
        }
    }
}

#[test]
fn through_a_norm_of_the_branch() {
    let kinds = || {
        let square = rows([3, 5], Statistic::MeanSquare, 1e-3);
        [
            rows([3, 5], Statistic::Moments, 1e-3),
            Norm { weight_offset: 1.0, ..square.clone() },
            Norm { prefix: 2, eps_position: EpsPosition::Outside, ..square },
        ]
    };
    let scaled = Prologue::Residual { input_scale: 0.5, residual_scale: -3.0 };
    for (inner, outer) in kinds().into_iter().flat_map(|inner| kinds().map(|outer| (inner.clone(), outer))) {
        for epilogue in [Epilogue::None, Epilogue::Activation(Activation::Silu)] {
            let fusion =
                Fusion { prologue: scaled, inner: Some(Inner::of(&inner)), epilogue, ..Fusion::default() };
            let spec = Spec::Norm(Norm { fusion, ..outer.clone() });
            check(&spec, &Operands::new(&spec));
        }
    }
}

#[test]
fn through_a_step_on_the_hypersphere() {
    for (eps, alpha_scale) in [(1e-12, 1.0), (1e-12, -0.3), (1e-12, 2.5), (0.0, 1.0), (9.0, 0.7)] {
        let spec = crate::norm::hypersphere_spec(&[3, 5], eps, alpha_scale).unwrap();
        let mut operands = Operands::new(&spec);
        // There is no gradient of what is normalized but the norm's.
        operands.grad_hidden = None;
        check(&spec, &operands);
    }
    // The least divisor of a row that is shorter, beside others.
    let spec = crate::norm::hypersphere_spec(&[3, 5], 0.5, 1.0).unwrap();
    let mut operands = Operands::new(&spec);
    operands.grad_hidden = None;
    operands.input.row_mut(1).mapv_inplace(|x| x * Dd::new(0.01));
    operands.before.as_mut().unwrap().row_mut(2).mapv_inplace(|x| x * Dd::new(0.01));
    check(&spec, &operands);
}

/// At alpha of zero there is no slope; its gradient is zero, and the step stays where it is.
#[test]
fn a_step_of_length_zero_has_no_gradient_of_alpha() {
    let spec = crate::norm::hypersphere_spec(&[3, 5], 1e-12, 1.0).unwrap();
    let mut operands = Operands::new(&spec);
    operands.grad_hidden = None;
    operands.mix.as_mut().unwrap()[2] = Dd::new(0.0);
    let grads = backward(&spec, &operands.problem(), operands.grad_output.view()).unwrap();
    assert_eq!(grads.mix.value[(0, 2)].to_f64(), 0.0);
    assert!((0..3).all(|row| grads.before.value[(row, 2)].to_f64() != 0.0), "beside others it has one");
}

#[test]
fn of_functions_of_each_element() {
    for affine in [&[1][..], &[0, 1], &[]] {
        for function in [Function::Tanh, Function::InverseSquareRoot] {
            let spec = pointwise(&[3, 4], affine, function);
            check(&spec, &Operands::new(&spec));
        }
    }
}
