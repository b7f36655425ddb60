//! Specs that no method lowers to: any statistic over any axes, with parameters along any others. Kernels know specs
//! only, so these cover the methods to come.

use super::super::case::Case;
use super::super::data::Fill;
use super::super::mask::{Mask, MaskKind};
use super::super::placement::Placement;
use super::Effort::{self, Full, Quick};
use super::List;
use crate::spec::{
    Affine, Branch, EpsPosition, Function, Fusion, Norm, Pointwise, Prologue, Spec, Statistic,
};
use crate::tensor::Dims;

/// Small enough that every combination is quick, with no size that is a whole vector.
const SHAPE: [usize; 4] = [3, 5, 7, 11];

pub(super) fn list(list: &mut List) {
    let reduced: [&[usize]; 7] = [&[3], &[1], &[0, 2], &[1, 3], &[0, 1, 2, 3], &[2, 3], &[]];
    let affine: [&[usize]; 6] = [&[1], &[3], &[0, 1], &[], &[0, 1, 2, 3], &[1, 2]];
    let statistics = [
        (Statistic::Moments, EpsPosition::Inside),
        (Statistic::MeanSquare, EpsPosition::Outside),
        (Statistic::Norm(1.0), EpsPosition::Floor),
        (Statistic::Norm(2.0), EpsPosition::Floor),
        (Statistic::Norm(3.0), EpsPosition::Floor),
        (Statistic::Norm(f64::INFINITY), EpsPosition::Floor),
        (Statistic::MeanSquare, EpsPosition::Inside),
        (Statistic::Norm(1.25), EpsPosition::Floor),
    ];
    for (i, reduced) in reduced.into_iter().enumerate() {
        for (j, affine) in affine.into_iter().enumerate() {
            for (k, (statistic, eps_position)) in statistics.into_iter().enumerate() {
                // Every pair of two choices is among the quick ones with some third.
                let effort = if (i + 2 * j + 3 * k) % 8 == 0 { Quick } else { Full };
                let name = format!("{statistic:?} {eps_position:?} over {reduced:?}, affine {affine:?}");
                let spec = norm(&SHAPE, reduced, affine, statistic, eps_position);
                let placement = |step: usize| Placement::ALL[(i + step * j + k) % Placement::ALL.len()];
                add(list, effort, name, spec.clone(), |case| case.placement = placement(1));
                if k % 4 == 0 && j % 2 == 0 {
                    let name = format!("{statistic:?} {eps_position:?} over {reduced:?}, {affine:?}, masked");
                    add(list, effort, name, spec, |case| {
                        case.mask = Some(Mask::of(MaskKind::Random(0.6)));
                        case.placement = placement(3);
                    });
                }
            }
        }
    }
    offsets_and_roundings(list);
    long_rows(list);
    branches(list);
    functions(list);
}

/// Residuals whose branch is shifted and scaled by parameters that vary along any axes, those of a row in any order.
fn branches(list: &mut List) {
    let prologue = Prologue::Residual { input_scale: 0.5, residual_scale: 2.0 };
    let fusion = Fusion { prologue, branch: Branch { bias: true, scale: true }, ..Fusion::default() };
    let axes: [(&[usize], &[usize]); 7] = [
        (&[2, 3], &[3]),
        (&[2, 3], &[2]),
        (&[0, 1, 3], &[1]),
        (&[0, 2], &[1]),
        (&[1, 3], &[0, 3]),
        (&[0, 1, 2, 3], &[0, 1, 2, 3]),
        (&[1], &[]),
    ];
    for (index, (reduced, affine)) in axes.into_iter().enumerate() {
        for (k, statistic) in [Statistic::Moments, Statistic::Norm(3.0)].into_iter().enumerate() {
            let position = [EpsPosition::Inside, EpsPosition::Floor][k];
            let spec = Norm { fusion, ..norm(&SHAPE, reduced, affine, statistic, position) };
            let name = format!("branch, {statistic:?} over {reduced:?}, affine {affine:?}");
            add(list, if k == 0 { Quick } else { Full }, name, spec, |case| {
                case.hidden = index % 2 == 0;
                case.placement = Placement::ALL[(3 * index + k) % Placement::ALL.len()];
            });
        }
    }
    let long = norm(&[2, 9001, 3], &[1, 2], &[2], Statistic::MeanSquare, EpsPosition::Inside);
    add(list, Full, "branch, sub-rows of several leaves".into(), Norm { fusion, ..long }, |_| {});
}

fn norm(
    shape: &[usize],
    reduced: &[usize],
    affine: &[usize],
    statistic: Statistic,
    eps_position: EpsPosition,
) -> Norm {
    Norm {
        shape: Dims::from_slice(shape),
        reduced: Dims::from_slice(reduced),
        affine: along(shape, affine),
        statistic,
        prefix: reduced.iter().map(|&axis| shape[axis]).product(),
        eps: 1e-3,
        eps_position,
        weight_offset: 0.0,
        round_normalized: false,
        frozen: false,
        fusion: Fusion::default(),
    }
}

fn along(shape: &[usize], axes: &[usize]) -> Affine {
    Affine { axes: Dims::from_slice(axes), shape: axes.iter().map(|&axis| shape[axis]).collect() }
}

fn add(list: &mut List, effort: Effort, name: String, norm: Norm, edit: impl Fn(&mut Case)) {
    let case = Case::of_spec(&Spec::Norm(norm), list.dtype);
    list.push(effort, name, case, edit);
}

fn offsets_and_roundings(list: &mut List) {
    for (index, affine) in [&[1][..], &[3], &[0, 1, 2, 3]].into_iter().enumerate() {
        let effort = if index == 0 { Quick } else { Full };
        for statistic in [Statistic::Moments, Statistic::MeanSquare] {
            let base = || norm(&SHAPE, &[1, 3], affine, statistic, EpsPosition::Inside);
            let of = |what: &str| format!("{statistic:?}, affine {affine:?}, {what}");
            let offset = Norm { weight_offset: 1.0, ..base() };
            add(list, effort, of("weight offset"), offset, |_| {});
            let rounded = Norm { round_normalized: true, ..base() };
            add(list, effort, of("rounded"), rounded, |_| {});
        }
        let prefix =
            Norm { prefix: 20, ..norm(&SHAPE, &[1, 3], affine, Statistic::MeanSquare, EpsPosition::Inside) };
        add(list, effort, format!("prefix, affine {affine:?}"), prefix, |_| {});
    }
}

/// Rows of several leaves, in one run of memory, in many, and across it.
fn long_rows(list: &mut List) {
    for (shape, reduced) in [([2, 3, 4500], &[0, 2][..]), ([5000, 2, 3], &[0]), ([2, 4300, 3], &[1])] {
        for (index, affine) in [&[1][..], &[2], &[0, 1, 2]].into_iter().enumerate() {
            for statistic in [Statistic::Moments, Statistic::Norm(f64::INFINITY), Statistic::Norm(1.0)] {
                let moments = statistic == Statistic::Moments;
                let effort = if moments && index == 0 { Quick } else { Full };
                let eps = if moments { EpsPosition::Inside } else { EpsPosition::Floor };
                let name = format!("{statistic:?} of {shape:?} over {reduced:?}, affine {affine:?}");
                let norm = norm(&shape, reduced, affine, statistic, eps);
                add(list, effort, name, norm, |case| {
                    case.input = Fill::Leaves { every: 2, scale: 1e-2, shift: 100.0 };
                });
            }
        }
    }
}

fn functions(list: &mut List) {
    for function in [Function::Tanh, Function::InverseSquareRoot] {
        for (index, affine) in [&[1][..], &[], &[0, 2], &[3], &[0, 1, 2, 3]].into_iter().enumerate() {
            let spec = Spec::Pointwise(Pointwise {
                shape: Dims::from_slice(&SHAPE),
                affine: along(&SHAPE, affine),
                function,
            });
            let effort = if index < 2 { Quick } else { Full };
            for placement in [Placement::Contiguous, Placement::ChannelsLast, Placement::Sliced] {
                let name = format!("{function:?}, affine {affine:?}, {placement:?}");
                let case = Case::of_spec(&spec, list.dtype);
                list.push(effort, name, case, |case| case.placement = placement);
            }
        }
    }
}
