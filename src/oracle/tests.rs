//! The definitions against numbers worked out by hand, and the gradients against finite differences.

use super::*;
use crate::spec::{Affine, EpsPosition, Function, Norm, Pointwise, Statistic};
use ndarray::{Array1, array};

fn row_spec(statistic: Statistic, prefix: usize, eps: f64, eps_position: EpsPosition) -> Spec {
    let (weight_offset, round_normalized) = (0.0, false);
    Spec::Norm(Norm {
        shape: Default::default(),
        reduced: Default::default(),
        affine: Affine::default(),
        statistic,
        prefix,
        eps,
        eps_position,
        weight_offset,
        round_normalized,
        frozen: false,
    })
}

fn tanh_spec() -> Spec {
    Spec::Pointwise(Pointwise {
        shape: Default::default(),
        affine: Affine::default(),
        function: Function::Tanh,
    })
}

fn plain<'a, R: Real>(input: &'a Array2<R>) -> Problem<'a, R> {
    Problem { dtype: DType::F64, input: input.view(), weight: None, bias: None, alpha: None }
}

#[test]
fn rows_worked_by_hand() {
    let x = array![[1.0, 2.0, 3.0, 6.0]];
    let moments = row_spec(Statistic::Moments, 4, 0.5, EpsPosition::Inside);
    // mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5, plus eps 4
    let y = forward(&moments, &plain(&x)).unwrap();
    assert_eq!(y.value, array![[-1.0, -0.5, 0.0, 1.5]]);
    assert_eq!(y.mag, array![[2.0, 2.5, 3.0, 4.5]]);

    let x = array![[3.0, 4.0, -5.0, 10.0]];
    // mean square of the first two 12.5, of all 37.5
    let partial = row_spec(Statistic::MeanSquare, 2, 3.5, EpsPosition::Inside);
    assert_eq!(forward(&partial, &plain(&x)).unwrap().value, array![[0.75, 1.0, -1.25, 2.5]]);
    let outside = row_spec(Statistic::MeanSquare, 4, 1.0, EpsPosition::Outside);
    let first = forward(&outside, &plain(&x)).unwrap().value[(0, 0)];
    assert!((first - 3.0 / (37.5f64.sqrt() + 1.0)).abs() < 1e-15);
}

#[test]
fn constant_rows_are_centred_to_zero_and_special_values_stay_in_their_row() {
    let spec = row_spec(Statistic::Moments, 3, 1e-5, EpsPosition::Inside);
    let x = array![[1e30, 1e30, 1e30], [f64::INFINITY, 1.0, 2.0], [f64::NAN, 1.0, 2.0], [-1.0, 0.0, 1.0]];
    let y = forward(&spec, &plain(&x)).unwrap().value;
    assert!(y.row(0).iter().all(|&y| y == 0.0));
    assert!(y.row(1).iter().chain(y.row(2)).all(|y| y.is_nan()));
    assert!(y.row(3).iter().all(|y| y.is_finite()));
    let spec = row_spec(Statistic::MeanSquare, 3, 1e-5, EpsPosition::Inside);
    let y = forward(&spec, &plain(&x)).unwrap().value;
    assert!(y[(1, 0)].is_nan() && y[(1, 1)] == 0.0 && y.row(2).iter().all(|y| y.is_nan()));
}

#[test]
fn extreme_rows_are_as_unit_rows_scaled() {
    let unit = array![[1.0, -2.0, 4.0], [0.5, 0.25, 3.0]];
    for statistic in [Statistic::Moments, Statistic::MeanSquare] {
        let spec = row_spec(statistic, 3, 0.0, EpsPosition::Inside);
        let expected = forward(&spec, &plain(&unit)).unwrap().value;
        for exponent in [-900, 900] {
            let x = unit.mapv(|x| Real::scale(x, exponent));
            assert_eq!(forward(&spec, &plain(&x)).unwrap().value, expected);
        }
    }
}

#[test]
fn llama_rounds_before_the_weight_and_admits_both_sides_of_a_tie() {
    let mut row = Norm {
        shape: Default::default(),
        reduced: Default::default(),
        affine: Affine::default(),
        frozen: false,

        statistic: Statistic::MeanSquare,
        prefix: 1,
        eps: 0.0,
        eps_position: EpsPosition::Inside,
        weight_offset: 0.0,
        round_normalized: true,
    };
    let tie = 1.0 + 2f64.powi(-8);
    let (x, w) = (array![[1.0, tie, tie + 2f64.powi(-12)]], array![4.0, 4.0, 4.0]);
    let mut problem = plain(&x);
    (problem.dtype, problem.weight) = (DType::BF16, Some(w.view()));
    let y = forward(&Spec::Norm(row.clone()), &problem).unwrap();
    assert_eq!(y.value, array![[4.0, 4.0, 4.0 + 2f64.powi(-5)]]);
    assert_eq!(y.slack, array![[0.0, 2f64.powi(-5), 0.0]]);
    row.round_normalized = false;
    assert_eq!(forward(&Spec::Norm(row), &problem).unwrap().value[(0, 1)], 4.0 * tie);
}

#[test]
fn operands_that_do_not_fit_are_named() {
    let (x, short) = (array![[1.0, 2.0]], array![1.0]);
    let mut problem = plain(&x);
    assert!(matches!(forward(&tanh_spec(), &problem), Err(Error::Argument { name: "alpha", .. })));
    problem.weight = Some(short.view());
    let spec = row_spec(Statistic::Moments, 2, 0.0, EpsPosition::Inside);
    assert!(matches!(forward(&spec, &problem), Err(Error::Argument { name: "weight", .. })));
    let spec = row_spec(Statistic::MeanSquare, 3, 0.0, EpsPosition::Inside);
    assert!(matches!(forward(&spec, &plain(&x)), Err(Error::Argument { name: "prefix", .. })));
    let g = array![[1.0]];
    assert!(
        backward(&row_spec(Statistic::Moments, 2, 0.0, EpsPosition::Inside), &plain(&x), g.view()).is_err()
    );
}

/// The operands of a small problem, to be nudged one number at a time.
#[derive(Clone)]
struct Operands {
    input: Array2<Dd>,
    weight: Array1<Dd>,
    bias: Array1<Dd>,
    alpha: Dd,
    grad_output: Array2<Dd>,
}

impl Operands {
    fn new(rows: usize, cols: usize) -> Self {
        let wave = |i: usize, j: usize, k: f64| Dd::new((k + 1.7 * i as f64 + (2.0 + k) * j as f64).sin());
        Operands {
            input: Array2::from_shape_fn((rows, cols), |(i, j)| wave(i, j, 0.3) + Dd::new(0.4)),
            weight: Array1::from_shape_fn(cols, |j| wave(1, j, 0.7)),
            bias: Array1::from_shape_fn(cols, |j| wave(2, j, 1.1)),
            alpha: Dd::new(0.8),
            grad_output: Array2::from_shape_fn((rows, cols), |(i, j)| wave(i, j, 1.9)),
        }
    }

    fn problem(&self) -> Problem<'_, Dd> {
        let (weight, bias) = (Some(self.weight.view()), Some(self.bias.view()));
        Problem { dtype: DType::F64, input: self.input.view(), weight, bias, alpha: Some(self.alpha) }
    }

    fn loss(&self, spec: &Spec) -> Dd {
        let y = forward(spec, &self.problem()).unwrap();
        Dd::sum(y.value.iter().zip(&self.grad_output).map(|(&y, &g)| y * g))
    }

    /// Central difference of the loss along the number that `pick` names; its own error is some 1e-22.
    fn slope(&self, spec: &Spec, pick: impl Fn(&mut Operands) -> &mut Dd) -> f64 {
        let step = Dd::new(2f64.powi(-36));
        let (mut up, mut down) = (self.clone(), self.clone());
        let (at_up, at_down) = (pick(&mut up), pick(&mut down));
        (*at_up, *at_down) = (*at_up + step, *at_down - step);
        ((up.loss(spec) - down.loss(spec)) / step.scale(1)).to_f64()
    }
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    let mut offset = row_spec(Statistic::MeanSquare, 5, 1e-3, EpsPosition::Inside);
    if let Spec::Norm(row) = &mut offset {
        row.weight_offset = 1.0;
    }
    let specs = [
        row_spec(Statistic::Moments, 5, 1e-3, EpsPosition::Inside),
        row_spec(Statistic::Moments, 5, 0.0, EpsPosition::Inside),
        row_spec(Statistic::MeanSquare, 5, 1e-3, EpsPosition::Inside),
        row_spec(Statistic::MeanSquare, 5, 0.3, EpsPosition::Outside),
        row_spec(Statistic::MeanSquare, 2, 1e-3, EpsPosition::Inside),
        row_spec(Statistic::MeanSquare, 2, 0.3, EpsPosition::Outside),
        offset,
        tanh_spec(),
    ];
    let operands = Operands::new(3, 5);
    for spec in specs {
        let grads = backward(&spec, &operands.problem(), operands.grad_output.view()).unwrap();
        let compare = |what: &str, grad: &Expected<Dd>, at: (usize, usize), slope: f64| {
            let error = (grad.value[at].to_f64() - slope).abs();
            assert!(error < 1e-15 * grad.mag[at].max(1.0), "{spec:?}: {what}{at:?} is off by {error:e}");
            assert!(
                grad.mag[at] >= grad.value[at].abs().to_f64() * (1.0 - 1e-15),
                "{what}{at:?}: mag below value"
            );
        };
        for j in 0..5 {
            for i in 0..3 {
                compare("input", &grads.input, (i, j), operands.slope(&spec, |o| &mut o.input[(i, j)]));
            }
            compare("weight", &grads.weight, (0, j), operands.slope(&spec, |o| &mut o.weight[j]));
            compare("bias", &grads.bias, (0, j), operands.slope(&spec, |o| &mut o.bias[j]));
        }
        compare("alpha", &grads.alpha, (0, 0), operands.slope(&spec, |o| &mut o.alpha));
    }
}
