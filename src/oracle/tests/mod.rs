//! The definitions against numbers worked out by hand, and the gradients against finite differences.

mod by_hand;
mod gradients;
mod second_opinion;

use super::*;
use crate::spec::{Affine, Function, Fusion, Pointwise};
use crate::tensor::Dims;

/// A norm of this shape that reduces and varies its parameters along these axes.
pub(super) fn norm(
    shape: &[usize],
    reduced: &[usize],
    affine: &[usize],
    statistic: Statistic,
    eps: f64,
) -> Norm {
    let floor = matches!(statistic, Statistic::Norm(_));
    Norm {
        shape: Dims::from_slice(shape),
        reduced: Dims::from_slice(reduced),
        affine: along(shape, affine),
        statistic,
        prefix: reduced.iter().map(|&axis| shape[axis]).product(),
        eps,
        eps_position: if floor { EpsPosition::Floor } else { EpsPosition::Inside },
        weight_offset: 0.0,
        round_normalized: false,
        frozen: false,
        fusion: Fusion::default(),
    }
}

/// Mean and variance, eps 0.
pub(super) fn moments(shape: &[usize], reduced: &[usize], affine: &[usize]) -> Spec {
    Spec::Norm(norm(shape, reduced, affine, Statistic::Moments, 0.0))
}

/// A norm of one matrix's rows.
fn rows(shape: [usize; 2], statistic: Statistic, eps: f64) -> Norm {
    norm(&shape, &[1], &[1], statistic, eps)
}

fn pointwise(shape: &[usize], affine: &[usize], function: Function) -> Spec {
    Spec::Pointwise(Pointwise { shape: Dims::from_slice(shape), affine: along(shape, affine), function })
}

fn along(shape: &[usize], axes: &[usize]) -> Affine {
    Affine { axes: Dims::from_slice(axes), shape: axes.iter().map(|&axis| shape[axis]).collect() }
}

/// A problem without parameters.
fn plain<R: Real>(input: &Array2<R>) -> Problem<'_, R> {
    Problem::new(DType::F64, input.view())
}
