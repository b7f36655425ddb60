//! Steps on the hypersphere, as specs of their own: the stream is the input, the branch the residual.

use super::super::case::Case;
use super::super::data::Fill;
use super::super::placement::Placement;
use super::Effort::{self, Full, Quick};
use super::List;
use crate::norm::hypersphere_spec;
use crate::tensor::DType;

/// Adds a step over tensors of this shape.
fn add(list: &mut List, effort: Effort, what: &str, shape: &[usize], edit: impl Fn(&mut Case)) {
    add_with(list, effort, what, shape, (1e-12, 1.0), edit);
}

/// As `add`, with this eps, and this number that alpha is multiplied by.
fn add_with(
    list: &mut List,
    effort: Effort,
    what: &str,
    shape: &[usize],
    (eps, alpha_scale): (f64, f64),
    edit: impl Fn(&mut Case),
) {
    let Ok(spec) = hypersphere_spec(shape, eps, alpha_scale) else { return };
    let case = Case { weight: None, bias: None, ..Case::of_spec(&spec, list.dtype) };
    list.push(effort, format!("step on the hypersphere, {what}"), case, |case| {
        // Shares between 0 and 1, mostly, of either sign.
        case.branch_values[0] = Fill::Normal { mean: 0.1, deviation: 0.5 };
        edit(case);
    });
}

pub(super) fn list(list: &mut List) {
    let sizes = [(37, 200), (1, 1), (3, 2), (5, 31), (9, 769), (2, 4097), (3, 9001), (0, 5), (3000, 7)];
    for (index, (rows, cols)) in sizes.into_iter().enumerate() {
        let effort = if index < 6 { Quick } else { Full };
        add(list, effort, &format!("{rows} x {cols}"), &[rows, cols], |case| {
            case.well_conditioned = (rows, cols) == (37, 200);
        });
    }
    add(list, Quick, "three axes", &[4, 3, 70], |_| {});
    add(list, Full, "one axis", &[70], |_| {});
    for placement in Placement::ALL {
        for one_buffer in [false, true] {
            add(list, Full, &format!("{placement:?}, one buffer: {one_buffer}"), &[5, 129], |case| {
                (case.placement, case.one_buffer) = (placement, one_buffer);
            });
        }
    }
    if list.dtype != DType::F64 {
        let narrow = if list.dtype == DType::F32 { DType::BF16 } else { DType::F32 };
        add(list, Quick, &format!("{narrow} branch"), &[9, 300], |case| case.other_dtype = narrow);
        add(list, Full, &format!("{narrow} alpha"), &[9, 300], |case| case.weight_dtype = narrow);
    }
    for alpha_scale in [0.05, -0.7, 3.0, 0.0] {
        add_with(list, Full, &format!("alpha times {alpha_scale}"), &[9, 200], (1e-12, alpha_scale), |_| {});
    }
    for (name, alpha) in [("zero", Fill::ConstantRows(0.0)), ("one", Fill::ConstantRows(1.0))] {
        add(list, Full, &format!("alpha of {name}"), &[9, 200], |case| case.branch_values[0] = alpha);
    }
    for (name, eps) in [("0", 0.0), ("of some rows' length", 14.0), ("above all", 1e3)] {
        add_with(list, Quick, &format!("eps {name}"), &[19, 200], (eps, 1.0), |_| {});
    }
    for special in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let fill = Fill::Special(special);
        add(list, Full, &format!("stream with {special} in one row"), &[5, 33], |case| case.input = fill);
        add(list, Full, &format!("branch with {special} in one row"), &[5, 33], |case| {
            case.others = [fill; 2];
        });
        add(list, Full, &format!("gradient with {special} in one row"), &[5, 33], |case| {
            case.grad_output = fill;
        });
    }
    for (name, fill) in [("zero rows", Fill::ZeroRow), ("several sizes", Fill::Mixed(2))] {
        add(list, Full, &format!("{name} of the stream"), &[9, 300], |case| case.input = fill);
        add(list, Full, &format!("{name} of the branch"), &[9, 300], |case| case.others = [fill; 2]);
        add(list, Full, &format!("{name} of both"), &[9, 300], |case| {
            (case.input, case.others) = (fill, [fill; 2]);
        });
        add_with(list, Full, &format!("{name} of both, eps 0"), &[9, 300], (0.0, 1.0), |case| {
            (case.input, case.others) = (fill, [fill; 2]);
        });
    }
    for scale in [1e-30, 1e30] {
        if !list.holds(scale) {
            continue;
        }
        let fill = Fill::Normal { mean: 0.0, deviation: scale };
        // Gradients of what is so short are as large.
        let gradient = Fill::Normal { mean: 0.0, deviation: if scale < 1.0 { 1e-6 } else { 1.0 } };
        add_with(list, Quick, &format!("a stream of size {scale:e}"), &[5, 64], (0.0, 1.0), |case| {
            (case.input, case.grad_output) = (fill, gradient);
        });
        add_with(list, Quick, &format!("a branch of size {scale:e}"), &[5, 64], (0.0, 1.0), |case| {
            (case.others, case.grad_output) = ([fill; 2], gradient);
        });
    }
}
