//! What surrounds a norm: each prologue, each epilogue, and both.

use super::super::case::Case;
use super::super::data::Fill;
use super::super::mask::{Mask, MaskKind};
use super::super::placement::Placement;
use super::Effort::{Full, Quick};
use super::List;
use crate::spec::{Activation, Branch, Dropout, Epilogue, Fusion, Prologue};
use crate::tensor::DType;

const ADD: Prologue = Prologue::Residual { input_scale: 1.0, residual_scale: 1.0 };
const SCALED: Prologue = Prologue::Residual { input_scale: 0.5, residual_scale: -3.25 };

fn all() -> Vec<(String, Fusion)> {
    let prologues =
        [("", Prologue::None), ("residual", ADD), ("scaled residual", SCALED), ("gate", Prologue::Gate)];
    let epilogues = [
        ("", Epilogue::None),
        ("relu", Epilogue::Activation(Activation::Relu)),
        ("silu", Epilogue::Activation(Activation::Silu)),
        ("gelu", Epilogue::Activation(Activation::Gelu)),
        ("gelu_tanh", Epilogue::Activation(Activation::GeluTanh)),
        ("residual", Epilogue::Residual),
        ("gate", Epilogue::Gate),
    ];
    let pairs = prologues.into_iter().flat_map(|before| epilogues.map(|after| (before, after)));
    let named = pairs.map(|((before, prologue), (after, epilogue))| {
        (format!("{before} > norm > {after}"), Fusion { prologue, epilogue, ..Fusion::default() })
    });
    named.filter(|(_, fusion)| !fusion.is_none()).collect()
}

pub(super) fn list(list: &mut List) {
    if !Case::new(list.method, list.dtype, &[2, 3, 4]).takes_fusion() {
        return;
    }
    let narrow = if list.dtype == DType::F32 { DType::BF16 } else { DType::F32 };
    for (index, (name, fusion)) in all().into_iter().enumerate() {
        // One of the two is there in most, and few shaders are as slow to compile as these.
        let is_single = fusion.prologue == Prologue::None || fusion.epilogue == Epilogue::None;
        let is_usual =
            matches!(fusion, Fusion { prologue: ADD, epilogue: Epilogue::None, .. }) || list.is_trailing();
        let effort = if is_single && is_usual { Quick } else { Full };
        let fused = |case: &mut Case| (case.fusion, case.hidden) = (fusion, index % 2 == 0);
        list.add(effort, name.clone(), (37, 200), |case| {
            fused(case);
            (case.well_conditioned, case.hidden) =
                (fusion == Fusion { prologue: ADD, ..Fusion::default() }, true);
        });
        let placement = Placement::ALL[index % Placement::ALL.len()];
        list.add(Full, format!("{name}, {placement:?}"), (5, 129), |case| {
            fused(case);
            case.placement = placement;
        });
        list.add(Full, format!("{name}, several leaves"), (2, 9001), fused);
        if list.dtype != DType::F64 {
            list.add(Full, format!("{name}, {narrow} others"), (9, 300), |case| {
                fused(case);
                case.other_dtype = narrow;
            });
        }
        list.add(Full, format!("{name}, masked"), (9, 77), |case| {
            fused(case);
            case.mask = Some(Mask::of(MaskKind::Random(0.6)));
        });
        for special in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            list.add(Full, format!("{name}, {special} in one row"), (5, 33), |case| {
                fused(case);
                case.input = Fill::Special(special);
            });
            list.add(Full, format!("{name}, other operands with {special} in one row"), (5, 33), |case| {
                fused(case);
                case.others = [Fill::Special(special); 2];
            });
        }
        list.add(Full, format!("{name}, neither weight nor bias"), (5, 200), |case| {
            fused(case);
            (case.weight, case.bias) = (None, None);
        });
        list.add(Full, format!("{name}, large gates"), (5, 200), |case| {
            fused(case);
            case.others = [Fill::Normal { mean: 0.0, deviation: 40.0 }; 2];
        });
        list.add(Full, format!("{name}, one buffer"), (5, 33), |case| {
            fused(case);
            (case.one_buffer, case.placement) = (true, Placement::Padded);
        });
    }
    let sizes = [(1, 1), (3, 2), (3, 3), (2, 31), (2, 769), (2, 4097), (0, 5), (3000, 7)];
    for (index, (rows, cols)) in sizes.into_iter().enumerate() {
        // There is no batch norm of no channels.
        if rows == 0 && list.method == "batch_norm" {
            continue;
        }
        let epilogue = [Epilogue::Gate, Epilogue::Activation(Activation::Silu)][index % 2];
        list.add(Quick, format!("fused, {rows} x {cols}"), (rows, cols), |case| {
            (case.fusion, case.hidden) = (Fusion { prologue: ADD, epilogue, ..Fusion::default() }, true);
        });
    }
    let scaled = Fusion { prologue: SCALED, ..Fusion::default() };
    let activated = Fusion { prologue: ADD, epilogue: Epilogue::Activation(Activation::Silu), ..scaled };
    for (index, (probability, fusion)) in [(0.1, scaled), (0.5, activated)].into_iter().enumerate() {
        let dropout = Some(Dropout { probability, seed: 0xdead_beef_0123_4567, offset: 1 << 33 });
        let fusion = Fusion { dropout, ..fusion };
        let effort = if index == 0 { Quick } else { Full };
        for (rows, cols) in [(9, 200), (5, 33), (2, 4099)] {
            list.add(effort, format!("dropout {probability}, {rows} x {cols}"), (rows, cols), |case| {
                (case.fusion, case.hidden) = (fusion, true);
            });
        }
        for placement in Placement::ALL {
            list.add(Full, format!("dropout {probability}, {placement:?}"), (5, 130), |case| {
                (case.fusion, case.hidden, case.placement) = (fusion, index == 0, placement);
            });
        }
    }
    branches(list);
    if list.method == "batch_norm" {
        list.add_shape(Full, "frozen, residual > norm > relu", &[4, 6, 35], |case| {
            case.frozen = Some(Default::default());
            case.fusion = Fusion {
                prologue: ADD,
                epilogue: Epilogue::Activation(Activation::Relu),
                ..Fusion::default()
            };
        });
    }
}

/// Residuals whose branch is shifted and scaled.
fn branches(list: &mut List) {
    let dropout = Some(Dropout { probability: 0.3, seed: 0x0123_4567_89ab_cdef, offset: 3 });
    let plain = Fusion { prologue: ADD, ..Fusion::default() };
    let scaled = Fusion { prologue: SCALED, epilogue: Epilogue::Activation(Activation::Silu), ..plain };
    let all = [
        ("bias and scale", Branch { bias: true, scale: true }, plain),
        ("bias", Branch { bias: true, scale: false }, scaled),
        ("scale", Branch { bias: false, scale: true }, Fusion { epilogue: Epilogue::Residual, ..plain }),
        ("bias, scale and dropout", Branch { bias: true, scale: true }, Fusion { dropout, ..scaled }),
    ];
    for (index, (name, branch, fusion)) in all.into_iter().enumerate() {
        let fusion = Fusion { branch, ..fusion };
        let fused = |case: &mut Case| (case.fusion, case.hidden) = (fusion, index != 1);
        let effort = if index % 3 == 0 { Quick } else { Full };
        for (rows, cols) in [(37, 200), (5, 33), (2, 9001), (700, 12)] {
            list.add(effort, format!("branch of {name}, {rows} x {cols}"), (rows, cols), fused);
        }
        for placement in Placement::ALL {
            list.add(Full, format!("branch of {name}, {placement:?}"), (5, 130), |case| {
                fused(case);
                case.placement = placement;
            });
        }
        list.add(Full, format!("branch of {name}, masked"), (9, 77), |case| {
            fused(case);
            case.mask = Some(Mask::of(MaskKind::Random(0.6)));
        });
        list.add(Full, format!("branch of {name}, neither weight nor bias"), (9, 200), |case| {
            fused(case);
            (case.weight, case.bias) = (None, None);
        });
        list.add(Full, format!("branch of {name}, one buffer"), (5, 33), |case| {
            fused(case);
            (case.one_buffer, case.placement) = (true, Placement::Padded);
        });
        for special in [f64::NAN, f64::INFINITY] {
            list.add(Full, format!("branch of {name}, {special} in one row"), (5, 33), |case| {
                fused(case);
                case.input = Fill::Special(special);
            });
        }
        if list.method == "batch_norm" {
            list.add_shape(Full, format!("branch of {name}, frozen"), &[4, 6, 35], |case| {
                fused(case);
                case.frozen = Some(Default::default());
            });
        }
        if list.dtype != DType::F64 && list.dtype != DType::F32 {
            list.add(effort, format!("branch of {name}, wide parameters"), (9, 300), |case| {
                fused(case);
                (case.weight_dtype, case.other_dtype) = (DType::F32, DType::F32);
            });
        }
    }
}
