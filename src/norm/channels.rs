//! What the norms of images and sequences share: channels on axis 1, and weights that vary along any axes.

use super::Parameters;
use crate::spec::Affine;
use crate::tensor::{Dims, Layout};
use crate::{Error, Result};

/// Refuses a shape that is not `[N, channels, ...]` with at least `rank` axes.
pub(super) fn check_channels(shape: &[usize], channels: usize, rank: usize) -> Result<()> {
    if channels == 0 {
        return Err(Error::argument("num_channels", "at least 1", 0));
    }
    if shape.len() < rank || shape[1] != channels {
        let more = if rank > 2 { ", L, ..." } else { ", ..." };
        return Err(Error::argument("input", format!("a shape [N, {channels}{more}]"), format!("{shape:?}")));
    }
    Layout::contiguous(shape).checked_span().map(drop)
}

/// Along which axes of an input of `shape` the bound weight and bias, and those of a branch, vary: one number for each index of `default`, or,
/// where they have as many axes as the input, along every axis in which they are not of size 1. `refine` maps an axis of
/// `shape` to those of the spec's shape.
pub(super) fn affine(
    parameters: &Parameters<'_>,
    shape: &[usize],
    default: &[usize],
    refine: impl Fn(usize) -> Dims,
) -> Result<Affine> {
    let plain: Dims = default.iter().map(|&axis| shape[axis]).collect();
    let bound = [
        ("weight", &parameters.weight),
        ("bias", &parameters.bias),
        ("branch_bias", &parameters.branch_bias),
        ("branch_scale", &parameters.branch_scale),
    ];
    let Some((name, own)) = bound.iter().find_map(|(name, p)| p.as_ref().map(|p| (*name, p.shape()))) else {
        return Ok(Affine { axes: default.iter().flat_map(|&axis| refine(axis)).collect(), shape: plain });
    };
    if own == &plain[..] {
        return Ok(Affine { axes: default.iter().flat_map(|&axis| refine(axis)).collect(), shape: plain });
    }
    if own.len() != shape.len() || own.iter().zip(shape).any(|(&own, &size)| own != 1 && own != size) {
        let expected =
            format!("shape {:?}, or one of {} axes that broadcasts to {shape:?}", &plain[..], shape.len());
        return Err(Error::argument(name, expected, format!("shape {own:?}")));
    }
    let axes = (0..shape.len()).filter(|&axis| own[axis] != 1).flat_map(refine).collect();
    Ok(Affine { axes, shape: Dims::from_slice(own) })
}

/// An axis that the spec does not split.
pub(super) fn itself(axis: usize) -> Dims {
    Dims::from_slice(&[axis])
}
