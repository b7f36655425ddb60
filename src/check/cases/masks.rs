//! Masks: all, none, one, ragged, broadcast.

use super::super::data::Fill;
use super::super::mask::{Mask, MaskKind};
use super::super::placement::Placement;
use super::Effort::{Full, Quick};
use super::List;

pub(super) fn list(list: &mut List) {
    if !list.has_channels() && !list.is(&["layer_norm", "rms_norm"]) {
        return;
    }
    let kinds = [MaskKind::All, MaskKind::Random(0.5), MaskKind::EmptyRow, MaskKind::One, MaskKind::Lengths];
    for (cols, effort) in [(70, Quick), (4100, Full), (3, Full), (700, Full)] {
        for kind in kinds {
            list.add(effort, format!("mask {kind:?}, {cols} columns"), (9, cols), |case| {
                case.mask = Some(Mask::of(kind));
            });
        }
        list.add(Full, format!("sparse mask, {cols} columns"), (9, cols), |case| {
            case.mask = Some(Mask::of(MaskKind::Random(0.02)));
            (case.eps, case.input) = (1e-12, Fill::Normal { mean: 100.0, deviation: 1.0 });
        });
        list.add(effort, format!("what a mask leaves out is not read, {cols} columns"), (9, cols), |case| {
            (case.mask, case.input) = (Some(Mask::of(MaskKind::One)), Fill::Special(f64::NAN));
            case.grad_output = Fill::Special(f64::INFINITY);
        });
    }
    for (index, placement) in Placement::ALL.into_iter().enumerate() {
        let effort = if index % 4 == 0 { Quick } else { Full };
        list.add_shape(effort, format!("mask, {placement:?}"), &[3, 6, 5, 7], |case| {
            case.mask = Some(Mask::of(MaskKind::Random(0.7)));
            (case.placement, case.normalized_axes, case.groups) = (placement, 2, 2);
            case.one_buffer = index % 2 == 0;
        });
    }
    // Positions of samples of different lengths; whole channels; a single element for all.
    let broadcast: [&[usize]; 4] = [&[4, 1, 60], &[60], &[6, 1], &[1]];
    for (index, shape) in broadcast.into_iter().enumerate() {
        let kind = if index == 3 { MaskKind::All } else { MaskKind::Lengths };
        let effort = if index == 0 { Quick } else { Full };
        list.add_shape(effort, format!("mask of {shape:?}"), &[4, 6, 60], |case| {
            case.mask = Some(Mask::broadcast(kind, shape));
            case.groups = 3;
        });
    }
    list.add(Full, "mask, outliers first", (5, 300), |case| {
        case.mask = Some(Mask::of(MaskKind::Random(0.9)));
        case.input = Fill::Outliers { first: 40, value: 3e4 };
    });
    let far = if list.holds(1e30) { 1e30 } else { 1e4 };
    list.add(Full, "mask, large magnitudes", (5, 300), |case| {
        (case.mask, case.input) = (Some(Mask::of(MaskKind::Random(0.5))), Fill::Uniform(far));
    });
}
