//! A norm of the branch that a residual is added to, around the norm of the sum: each kind with each.

use super::super::case::Case;
use super::super::data::Fill;
use super::super::placement::Placement;
use super::Effort::{Full, Quick};
use super::List;
use crate::norm::Cast;
use crate::spec::{EpsPosition, Fusion, Inner, Prologue, Statistic};
use crate::tensor::DType;

/// The sum of the residual and a norm of rows of `cols` elements.
fn around(statistic: Statistic, cols: usize) -> Fusion {
    let inner = Inner {
        statistic,
        prefix: cols,
        eps: 1e-4,
        eps_position: EpsPosition::Inside,
        weight_offset: if statistic == Statistic::Moments { 0.0 } else { 1.0 },
        round_normalized: false,
    };
    let prologue = Prologue::Residual { input_scale: 1.0, residual_scale: 1.0 };
    Fusion { prologue, inner: Some(inner), ..Fusion::default() }
}

pub(super) fn list(list: &mut List) {
    if !list.is(&["layer_norm", "rms_norm"]) {
        return;
    }
    let narrow = if list.dtype == DType::F32 { DType::BF16 } else { DType::F32 };
    for (kind, statistic) in [("rms", Statistic::MeanSquare), ("layer", Statistic::Moments)] {
        let sandwiched = |case: &mut Case| {
            let cols = *case.shape.last().unwrap_or(&1);
            (case.fusion, case.hidden) = (around(statistic, cols), true);
        };
        let named = |what: &str| format!("{kind} > residual > norm, {what}");
        let sizes = [(37, 200), (1, 1), (3, 2), (5, 31), (9, 769), (2, 4097), (3, 9001), (0, 5), (3000, 7)];
        for (index, (rows, cols)) in sizes.into_iter().enumerate() {
            list.add(
                if index < 6 { Quick } else { Full },
                named(&format!("{rows} x {cols}")),
                (rows, cols),
                |case| {
                    sandwiched(case);
                    case.well_conditioned = (rows, cols) == (37, 200);
                },
            );
        }
        for placement in Placement::ALL {
            for one_buffer in [false, true] {
                let name = named(&format!("{placement:?}, one buffer: {one_buffer}"));
                list.add(Full, name, (5, 129), |case| {
                    sandwiched(case);
                    (case.placement, case.one_buffer) = (placement, one_buffer);
                });
            }
        }
        if list.dtype != DType::F64 {
            list.add(Quick, named(&format!("{narrow} residual")), (9, 300), |case| {
                sandwiched(case);
                case.other_dtype = narrow;
            });
            list.add(Full, named(&format!("{narrow} parameters")), (9, 300), |case| {
                sandwiched(case);
                case.weight_dtype = DType::F32;
            });
        }
        list.add(Full, named("neither weight nor bias"), (5, 200), |case| {
            sandwiched(case);
            (case.weight, case.bias) = (None, None);
        });
        list.add(Full, named("no bias"), (5, 200), |case| {
            sandwiched(case);
            case.bias = None;
        });
        list.add(Full, named("no gradient of the sum"), (5, 200), |case| {
            sandwiched(case);
            case.hidden = false;
        });
        list.add(Full, named("statistics of a part, eps outside"), (5, 200), |case| {
            sandwiched(case);
            let Some(inner) = &mut case.fusion.inner else { return };
            (inner.prefix, inner.eps_position) = (70, EpsPosition::Outside);
            (case.partial, case.eps_position) = (0.3, EpsPosition::Outside);
        });
        list.add(Full, named("rounded as in Llama"), (9, 200), |case| {
            sandwiched(case);
            case.cast = Cast::Llama;
        });
        list.add_shape(Full, named("two axes of rows"), &[4, 3, 20], |case| {
            case.normalized_axes = 2;
            (case.fusion, case.hidden) = (around(statistic, 60), true);
        });
        for special in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            list.add(Full, named(&format!("{special} in one row")), (5, 33), |case| {
                sandwiched(case);
                case.input = Fill::Special(special);
            });
            list.add(Full, named(&format!("residual with {special} in one row")), (5, 33), |case| {
                sandwiched(case);
                case.others = [Fill::Special(special); 2];
            });
            list.add(Full, named(&format!("gradient with {special} in one row")), (5, 33), |case| {
                sandwiched(case);
                case.grad_output = Fill::Special(special);
            });
        }
        for (name, input) in [
            ("zero rows", Fill::ZeroRow),
            ("constant rows", Fill::ConstantRows(3.0)),
            ("a large mean", Fill::Normal { mean: 100.0, deviation: 1.0 }),
            ("several sizes", Fill::Mixed(2)),
        ] {
            list.add(Full, named(name), (9, 300), |case| {
                sandwiched(case);
                case.input = input;
            });
        }
        for scale in [1e-30, 1e30] {
            if !list.holds(scale) {
                continue;
            }
            let fill = Fill::Normal { mean: 0.0, deviation: scale };
            list.add(Full, named(&format!("a branch of size {scale:e}")), (5, 64), |case| {
                sandwiched(case);
                case.input = fill;
            });
            list.add(Full, named(&format!("a residual of size {scale:e}")), (5, 64), |case| {
                sandwiched(case);
                case.others = [fill; 2];
            });
        }
    }
}
