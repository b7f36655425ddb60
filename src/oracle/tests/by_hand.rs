//! Small rows whose results can be seen at a glance, and what is refused.

use super::*;
use crate::spec::{Activation, Branch, Epilogue, Prologue};
use ndarray::array;

#[test]
fn rows_worked_by_hand() {
    let x = array![[1.0, 2.0, 3.0, 6.0]];
    let centred = Spec::Norm(rows([1, 4], Statistic::Moments, 0.5));
    // mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5, plus eps 4
    let y = forward(&centred, &plain(&x)).unwrap();
    assert_eq!(y.value, array![[-1.0, -0.5, 0.0, 1.5]]);
    assert_eq!(y.mag, array![[2.0, 2.5, 3.0, 4.5]]);

    let x = array![[3.0, 4.0, -5.0, 10.0]];
    // mean square of the first two 12.5, of all 37.5
    let partial = Spec::Norm(Norm { prefix: 2, ..rows([1, 4], Statistic::MeanSquare, 3.5) });
    assert_eq!(forward(&partial, &plain(&x)).unwrap().value, array![[0.75, 1.0, -1.25, 2.5]]);
    let outside = Norm { eps_position: EpsPosition::Outside, ..rows([1, 4], Statistic::MeanSquare, 1.0) };
    let first = forward(&Spec::Norm(outside), &plain(&x)).unwrap().value[(0, 0)];
    assert!((first - 3.0 / (37.5f64.sqrt() + 1.0)).abs() < 1e-15);
}

#[test]
fn norms_worked_by_hand() {
    let x = array![[3.0, -4.0, 0.0]];
    let y = |p, eps| forward(&Spec::Norm(rows([1, 3], Statistic::Norm(p), eps)), &plain(&x)).unwrap().value;
    assert_eq!(y(1.0, 0.0), array![[3.0, -4.0, 0.0]] / 7.0);
    assert_eq!(y(2.0, 1e-12), array![[3.0 * 0.2, -4.0 * 0.2, 0.0]]);
    assert_eq!(y(f64::INFINITY, 0.0), array![[0.75, -1.0, 0.0]]);
    // 27 + 64 = 91
    assert!((y(3.0, 0.0)[(0, 0)] - 3.0 / 91f64.cbrt()).abs() < 1e-15);
    // Where eps is the larger, it is the divisor.
    assert_eq!(y(2.0, 8.0), array![[0.375, -0.5, 0.0]]);
    // A power beyond any range.
    assert_eq!(y(5000.0, 0.0)[(0, 1)], -1.0);
}

#[test]
fn a_zero_row_has_no_direction() {
    let (x, g) = (array![[0.0, 0.0], [3.0, 4.0]], array![[1.0, 2.0], [0.0, 0.0]]);
    for p in [1.0, 1.5, 2.0, f64::INFINITY] {
        let spec = Spec::Norm(rows([2, 2], Statistic::Norm(p), 0.0));
        let y = forward(&spec, &plain(&x)).unwrap().value;
        let grads = backward(&spec, &plain(&x), g.view()).unwrap();
        assert_eq!(y.row(0), array![0.0, 0.0]);
        assert_eq!(
            (grads.input.value.row(0), grads.weight.value),
            (array![0.0, 0.0].view(), array![[0.0, 0.0]])
        );
    }
    // With eps the divisor is a constant there, so that the gradient passes.
    let spec = Spec::Norm(rows([2, 2], Statistic::Norm(2.0), 0.5));
    assert_eq!(backward(&spec, &plain(&x), g.view()).unwrap().input.value.row(0), array![2.0, 4.0]);
}

#[test]
fn ties_share_the_gradient_of_the_largest() {
    let (x, g) = (array![[2.0, -2.0, 1.0]], array![[1.0, 0.0, 0.0]]);
    let spec = Spec::Norm(rows([1, 3], Statistic::Norm(f64::INFINITY), 0.0));
    // y = [1, -1, 0.5]; the norm's gradient is -Σ g y / norm = -1/2, half of it to each of the two with its sign.
    assert_eq!(backward(&spec, &plain(&x), g.view()).unwrap().input.value, array![[0.25, 0.25, 0.0]]);
}

#[test]
fn masks_leave_elements_out() {
    let nan = f64::NAN;
    let x = array![[1.0, nan, 3.0, nan], [nan, nan, nan, nan]];
    let (weight, bias) = (array![1.0, 1.0, 2.0, 1.0], array![0.0, 7.0, 0.0, 7.0]);
    let mask = array![[true, false, true, false], [false; 4]];
    let mut problem = plain(&x);
    (problem.weight, problem.bias, problem.mask) =
        (Some(weight.view()), Some(bias.view()), Some(mask.view()));
    let spec = Spec::Norm(rows([2, 4], Statistic::Moments, 0.0));
    let y = forward(&spec, &problem).unwrap().value;
    assert_eq!(y, array![[-1.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]]);
    let g = array![[1.0, nan, 1.0, nan], [nan, nan, nan, nan]];
    let grads = backward(&spec, &problem, g.view()).unwrap();
    assert_eq!(grads.weight.value, array![[-1.0, 0.0, 1.0, 0.0]]);
    assert_eq!(grads.bias.value, array![[1.0, 0.0, 1.0, 0.0]]);
    assert_eq!(grads.input.value, Array2::<f64>::zeros((2, 4)));
}

#[test]
fn the_inverse_square_root_unit_by_hand() {
    let x = array![[3.0, -3.0, 0.0, 1e200]];
    let spec = pointwise(&[4], &[0], Function::InverseSquareRoot);
    let mut problem = plain(&x);
    problem.alpha = Some(16.0);
    assert_eq!(forward(&spec, &problem).unwrap().value, array![[0.6, -0.6, 0.0, 1.0]]);
    // d = 25 and 16: 16 / 125, 16 / 64; alpha's gradient sums -x / (2 * 125), which cancels in the first two.
    let g = array![[1.0, 1.0, 1.0, 0.0]];
    let grads = backward(&spec, &problem, g.view()).unwrap();
    assert!((grads.input.value - array![[0.128, 0.128, 0.25, 0.0]]).iter().all(|e| e.abs() < 1e-16));
    assert_eq!(grads.alpha.value, array![[0.0]]);
    assert!((grads.alpha.mag[(0, 0)] - 0.024).abs() < 1e-16);
}

#[test]
fn constant_rows_are_centred_to_zero_and_special_values_stay_in_their_row() {
    let spec = Spec::Norm(rows([4, 3], Statistic::Moments, 1e-5));
    let x = array![[1e30, 1e30, 1e30], [f64::INFINITY, 1.0, 2.0], [f64::NAN, 1.0, 2.0], [-1.0, 0.0, 1.0]];
    let y = forward(&spec, &plain(&x)).unwrap().value;
    assert!(y.row(0).iter().all(|&y| y == 0.0));
    assert!(y.row(1).iter().chain(y.row(2)).all(|y| y.is_nan()));
    assert!(y.row(3).iter().all(|y| y.is_finite()));
    let uncentred = [
        rows([4, 3], Statistic::MeanSquare, 1e-5),
        rows([4, 3], Statistic::Norm(1.0), 0.0),
        rows([4, 3], Statistic::Norm(2.5), 0.0),
        rows([4, 3], Statistic::Norm(f64::INFINITY), 0.0),
    ];
    for spec in uncentred.map(Spec::Norm) {
        let y = forward(&spec, &plain(&x)).unwrap().value;
        assert!(y[(1, 0)].is_nan() && y[(1, 1)] == 0.0 && y.row(2).iter().all(|y| y.is_nan()), "{spec:?}");
    }
}

#[test]
fn extreme_rows_are_as_unit_rows_scaled() {
    let unit = array![[1.0, -2.0, 4.0], [0.5, 0.25, 3.0]];
    for statistic in [Statistic::Moments, Statistic::MeanSquare, Statistic::Norm(2.0), Statistic::Norm(3.5)] {
        let spec = Spec::Norm(rows([2, 3], statistic, 0.0));
        let expected = forward(&spec, &plain(&unit)).unwrap().value;
        for exponent in [-900, 900] {
            let x = unit.mapv(|x| Real::scale(x, exponent));
            assert_eq!(forward(&spec, &plain(&x)).unwrap().value, expected);
        }
    }
}

#[test]
fn llama_rounds_before_the_weight_and_admits_both_sides_of_a_tie() {
    let llama = Norm { prefix: 1, round_normalized: true, ..rows([1, 3], Statistic::MeanSquare, 0.0) };
    let tie = 1.0 + 2f64.powi(-8);
    let (x, w) = (array![[1.0, tie, tie + 2f64.powi(-12)]], array![4.0, 4.0, 4.0]);
    let mut problem = plain(&x);
    (problem.dtype, problem.weight) = (DType::BF16, Some(w.view()));
    let y = forward(&Spec::Norm(llama.clone()), &problem).unwrap();
    assert_eq!(y.value, array![[4.0, 4.0, 4.0 + 2f64.powi(-5)]]);
    assert_eq!(y.slack, array![[0.0, 2f64.powi(-5), 0.0]]);
    let plain = Spec::Norm(Norm { round_normalized: false, ..llama });
    assert_eq!(forward(&plain, &problem).unwrap().value[(0, 1)], 4.0 * tie);
}

/// Rounding decides whether a gradient passes where ReLU has its kink, and with it about what the row's gradients are by as much.
#[test]
fn at_a_kink_all_that_follows_from_the_gradient_is_uncertain() {
    let prologue = Prologue::Residual { input_scale: 0.5, residual_scale: 2.0 };
    let epilogue = Epilogue::Activation(Activation::Relu);
    let branch = Branch { bias: true, scale: false };
    let fusion = Fusion { prologue, epilogue, branch, ..Fusion::default() };
    let spec = Spec::Norm(Norm { fusion, ..rows([2, 2], Statistic::Moments, 0.0) });
    // Their sums are (3, -3): normalized (1, -1). With the bias, the first of the first row is 0.
    let (x, r) = (array![[6.0, 2.0], [2.0, 6.0]], array![[0.0, -2.0], [-2.0, 0.0]]);
    let (bias, shift) = (array![-1.0, 0.25], array![0.0, 0.0]);
    let before = Some(r.view());
    let problem =
        Problem { before, bias: Some(bias.view()), branch: [Some(shift.view()), None], ..plain(&x) };
    let grads = backward(&spec, &problem, array![[1.0, 1.0], [1.0, 1.0]].view()).unwrap();
    let slack = &grads.input.slack;
    assert!(slack[(0, 0)] > 0.1 && slack[(0, 1)] > 0.1 && slack.row(1).sum() == 0.0, "{slack}");
    assert_eq!(grads.before.slack, slack * 4.0);
    assert_eq!(grads.branch[0].slack, slack.row(0).insert_axis(ndarray::Axis(0)));
}

#[test]
fn operands_that_do_not_fit_are_named() {
    let name = |result: Result<Expected<f64>>| match result {
        Err(Error::Argument { name, .. }) => name,
        other => panic!("{other:?}"),
    };
    let (x, short, none) = (array![[1.0, 2.0]], array![1.0], array![[true]]);
    let base = rows([1, 2], Statistic::Moments, 0.0);
    let spec = Spec::Norm(base.clone());
    assert_eq!(name(forward(&pointwise(&[2], &[0], Function::Tanh), &plain(&x))), "alpha");
    assert_eq!(name(forward(&spec, &Problem { weight: Some(short.view()), ..plain(&x) })), "weight");
    assert_eq!(name(forward(&spec, &Problem { mask: Some(none.view()), ..plain(&x) })), "mask");
    assert_eq!(name(forward(&spec, &plain(&array![[1.0]]))), "input");
    assert_eq!(name(forward(&spec, &Problem { given: Some(&[(0.0, 1.0)]), ..plain(&x) })), "given");
    let frozen = Spec::Norm(Norm { frozen: true, ..base.clone() });
    assert_eq!(name(forward(&frozen, &plain(&x))), "given");
    let prefix = Spec::Norm(Norm { prefix: 3, ..base.clone() });
    assert_eq!(name(forward(&prefix, &plain(&x))), "prefix");
    let floor = Spec::Norm(Norm { eps_position: EpsPosition::Floor, ..base });
    assert_eq!(name(forward(&floor, &plain(&x))), "eps_position");
    assert!(backward(&spec, &plain(&x), array![[1.0]].view()).is_err());
}
