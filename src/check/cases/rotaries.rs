//! Rotary embeddings: both styles, heads that are rotated in part, and what surrounds the norm beside them.

use super::super::case::Case;
use super::super::data::Fill;
use super::super::mask::{Mask, MaskKind};
use super::super::placement::Placement;
use super::Effort::{Full, Quick};
use super::List;
use crate::spec::{Dropout, Epilogue, Fusion, Prologue, RotaryStyle};
use crate::tensor::DType;

const STYLES: [RotaryStyle; 2] = [RotaryStyle::HalfSplit, RotaryStyle::Interleaved];

fn after(style: RotaryStyle, dims: usize) -> Fusion {
    Fusion { epilogue: Epilogue::Rotary { style, dims }, ..Fusion::default() }
}

pub(super) fn list(list: &mut List) {
    if !Case::new(list.method, list.dtype, &[2, 3, 4]).takes_rotary() {
        return;
    }
    for style in STYLES {
        // All columns, some, an odd rest, pairs that are no whole vector, one pair.
        let sizes =
            [(64, 64), (128, 64), (2, 2), (3, 2), (33, 32), (200, 52), (70, 70), (769, 6), (9001, 9000)];
        for (index, (cols, dims)) in sizes.into_iter().enumerate() {
            let effort = if index < 6 { Quick } else { Full };
            list.add(effort, format!("{style:?} of {dims} in {cols}"), (7, cols), |case| {
                case.fusion = after(style, dims);
            });
        }
        list.add(Quick, format!("{style:?}, many rows"), (2000, 24), |case| {
            (case.fusion, case.well_conditioned) = (after(style, 16), true);
        });
        for (is_wide, cols, dims) in [(true, 64, 64), (false, 33, 32), (true, 129, 20), (false, 4500, 4500)] {
            let name =
                format!("{style:?} of {dims} in {cols}, positions of {}", if is_wide { 64 } else { 32 });
            list.add(if cols < 100 { Quick } else { Full }, name, (9, cols), |case| {
                (case.fusion, case.positions) = (after(style, dims), Some(is_wide));
            });
        }
        for placement in Placement::ALL {
            list.add(Full, format!("{style:?}, {placement:?} in one buffer, positions"), (9, 40), |case| {
                (case.fusion, case.placement, case.one_buffer) = (after(style, 40), placement, true);
                case.positions = Some(placement != Placement::Sliced);
            });

            list.add(Full, format!("{style:?}, {placement:?}"), (9, 66), |case| {
                (case.fusion, case.placement) = (after(style, 44), placement);
            });
            list.add(Full, format!("{style:?}, {placement:?} in one buffer"), (9, 64), |case| {
                (case.fusion, case.placement, case.one_buffer) = (after(style, 64), placement, true);
            });
        }
        list.add(Full, format!("{style:?}, neither weight nor bias"), (5, 80), |case| {
            case.fusion = after(style, 80);
            (case.weight, case.bias) = (None, None);
        });
        let own = list.dtype;
        for dtype in [DType::F16, DType::BF16, DType::F32].into_iter().filter(|_| own != DType::F64) {
            list.add(Full, format!("{style:?}, {dtype} tables"), (9, 96), |case| {
                (case.fusion, case.other_dtype) = (after(style, 64), dtype);
            });
        }
        for special in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            list.add(Full, format!("{style:?}, {special} in one row"), (5, 33), |case| {
                (case.fusion, case.input) = (after(style, 32), Fill::Special(special));
            });
            list.add(Full, format!("{style:?}, gradient with {special} in one row"), (5, 33), |case| {
                (case.fusion, case.grad_output) = (after(style, 32), Fill::Special(special));
            });
            list.add(Full, format!("{style:?}, tables with {special} in one row"), (5, 33), |case| {
                (case.fusion, case.angles) = (after(style, 32), [Fill::Special(special); 2]);
            });
        }
        list.add(Full, format!("{style:?}, no rows"), (0, 8), |case| case.fusion = after(style, 8));
        if list.is_trailing() {
            around(list, style);
        }
    }
}

/// What queries and keys do not have.
fn around(list: &mut List, style: RotaryStyle) {
    for (name, prologue) in [
        ("residual", Prologue::Residual { input_scale: 1.0, residual_scale: 1.0 }),
        ("scaled residual", Prologue::Residual { input_scale: 0.5, residual_scale: -3.25 }),
        ("gate", Prologue::Gate),
    ] {
        for (cols, placement) in
            [(96, Placement::Contiguous), (70, Placement::Sliced), (4500, Placement::Padded)]
        {
            list.add(Full, format!("{style:?} after {name}, {cols}, {placement:?}"), (5, cols), |case| {
                case.fusion = Fusion { prologue, ..after(style, cols - 6) };
                (case.hidden, case.placement) = (true, placement);
            });
        }
    }
    list.add(Full, format!("{style:?} after dropout and residual"), (9, 70), |case| {
        let prologue = Prologue::Residual { input_scale: 1.0, residual_scale: 1.0 };
        let dropout = Some(Dropout { probability: 0.3, seed: 11, offset: 2 });
        case.fusion = Fusion { prologue, dropout, ..after(style, 64) };
    });
    list.add(Full, format!("{style:?}, masked"), (9, 77), |case| {
        case.fusion = after(style, 70);
        case.mask = Some(Mask::of(MaskKind::Random(0.6)));
    });
    for scale in [1e-30, 1e30] {
        if !list.holds(scale) {
            continue;
        }
        list.add(Full, format!("{style:?} of a row of size {scale:e}"), (5, 64), |case| {
            case.fusion = after(style, 64);
            (case.input, case.eps) = (Fill::Normal { mean: 0.0, deviation: scale }, 0.0);
        });
    }
}
