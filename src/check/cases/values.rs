//! Values: magnitudes, means far from zero, constants, zeros, what is not finite, and rows whose parts differ.

use super::super::data::Fill;
use super::Effort::{Full, Quick};
use super::List;
use crate::tensor::DType;

pub(super) fn list(list: &mut List) {
    for (cols, effort) in [(769, Quick), (31, Full), (4100, Full)] {
        let at = (5, cols);
        let name = |what: String| format!("{what}, {cols} columns");
        list.add(effort, name("mean of 1e4 deviations".into()), at, |case| {
            case.input = Fill::Normal { mean: 1e4, deviation: 1.0 };
            if case.method == "dyt" {
                case.alpha = 1e-4;
            }
        });
        for magnitude in [1e-38, 1e-30, 1e-3, 65504.0, 1e30, 3.3e38] {
            if list.holds(magnitude) {
                list.add(effort, name(format!("magnitude {magnitude:e}")), at, |case| {
                    case.input = Fill::Uniform(magnitude);
                });
                list.add(Full, name(format!("magnitude {magnitude:e}, eps 0")), at, |case| {
                    (case.input, case.eps) = (Fill::Uniform(magnitude), 0.0);
                });
            }
        }
        for magnitude in [1.0, 1e-30, 1e30, 1e4] {
            if list.holds(magnitude) {
                list.add(effort, name(format!("constant rows of {magnitude:e}")), at, |case| {
                    case.input = Fill::ConstantRows(magnitude);
                });
            }
        }
        list.add(effort, name("zero rows".into()), at, |case| case.input = Fill::Constant(0.0));
        list.add(effort, name("a zero row among others".into()), at, |case| case.input = Fill::ZeroRow);
        list.add(Full, name("a zero row among others, eps 0".into()), at, |case| {
            (case.input, case.eps) = (Fill::ZeroRow, 0.0);
        });
        for special in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            list.add(effort, name(format!("{special} in one row")), at, |case| {
                case.input = Fill::Special(special);
            });
            list.add(Full, name(format!("{special} in one gradient")), at, |case| {
                case.grad_output = Fill::Special(special);
            });
        }
        let decades = if list.dtype == DType::F16 { 3 } else { 30 };
        list.add(effort, name("rows of all magnitudes".into()), (40, cols.min(800)), |case| {
            case.input = Fill::Mixed(decades);
        });
        parts_that_differ(list, effort, cols);
    }
    leaves_that_differ(list);
    for magnitude in [1e-30, 1e30] {
        if list.holds(magnitude) {
            list.add(Quick, format!("gradients of {magnitude:e}"), (6, 515), |case| {
                case.grad_output = Fill::Normal { mean: 0.0, deviation: magnitude };
            });
        }
    }
    list.add(Full, "zero gradients", (6, 515), |case| case.grad_output = Fill::Constant(0.0));
    if list.dtype == DType::F64 {
        for magnitude in [1e-250, 1e250] {
            list.add(Quick, format!("magnitude {magnitude:e}"), (5, 300), |case| {
                (case.input, case.eps) = (Fill::Uniform(magnitude), 0.0);
                match case.method {
                    "dyt" => case.alpha = 1.0 / magnitude,
                    // The gradient is of the order of 1 / x², which 1e-250 would take out of range.
                    "eln" => case.alpha = magnitude,
                    _ => {}
                }
            });
        }
    }
    for eps in [0.0, 1e-12, 1e-5] {
        list.add(Full, format!("eps {eps:e}"), (5, 200), |case| case.eps = eps);
    }
}

/// Rows whose first elements say little about the others. The kernels estimate the mean from the first 32.
fn parts_that_differ(list: &mut List, effort: super::Effort, cols: usize) {
    let name = |what: String| format!("{what}, {cols} columns");
    let far = if list.dtype == DType::F16 { 3e4 } else { 1e6 };
    for first in [1, 32, 40] {
        list.add(effort, name(format!("{first} outliers first")), (5, cols), |case| {
            case.input = Fill::Outliers { first, value: far };
        });
    }
    list.add(Full, name("sorted".into()), (5, cols), |case| case.input = Fill::Sorted);
    list.add(effort, name("halves far apart".into()), (5, cols), |case| case.input = Fill::Step(far));
    list.add(Full, name("few different values".into()), (5, cols), |case| case.input = Fill::Ties);
}

/// Rows of more than one leaf, of which every second or third is of another kind: in the input, in the gradient and in
/// the weight.
fn leaves_that_differ(list: &mut List) {
    let kinds = [(0.0, 0.0), (0.0, 3.0), (1e-30, 0.0), (1e30, 0.0), (1e-4, 0.0), (1e4, 0.0), (1e-2, 1e3)];
    for (index, (scale, shift)) in kinds.into_iter().enumerate() {
        if scale != 0.0 && !list.holds(scale) {
            continue;
        }
        let (every, effort) = if index % 2 == 0 { (2, Quick) } else { (3, Full) };
        let name = format!("every {every} leaves {scale:e} x + {shift:e}");
        let fill = Fill::Leaves { every, scale, shift };
        list.add(effort, name.clone(), (2, 12_293), |case| case.input = fill);
        list.add(Full, format!("{name}, eps 0"), (2, 12_293), |case| (case.input, case.eps) = (fill, 0.0));
        list.add(effort, format!("{name}, gradient"), (2, 12_293), |case| case.grad_output = fill);
        if index < 4 {
            list.add(Full, format!("{name}, weight"), (2, 12_293), |case| {
                case.weight = case.weight.and(Some(fill));
            });
        }
    }
}
