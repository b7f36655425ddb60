//! A norm of the branch that a residual is added to, before the norm of the sum.

use super::{EpsPosition, Fusion, Norm, Statistic};

/// The input of a [residual](super::Prologue::Residual) is normalized before it is added:
///
/// ```text
/// h = input_scale * norm(input) + residual_scale * residual
/// ```
///
/// Rows are those of the norm around it, and so is the shape of its weight and bias, which vary along the elements of a row.
/// See [`Sandwich`](crate::norm::Sandwich).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Inner {
    /// As [`Norm::statistic`].
    pub statistic: Statistic,
    /// As [`Norm::prefix`].
    pub prefix: usize,
    /// As [`Norm::eps`].
    pub eps: f64,
    /// As [`Norm::eps_position`].
    pub eps_position: EpsPosition,
    /// As [`Norm::weight_offset`].
    pub weight_offset: f64,
    /// As [`Norm::round_normalized`].
    pub round_normalized: bool,
}

/// Beside a norm of the branch, the residual is normalized by the same norm, and the sum has a share of each in every column:
///
/// ```text
/// m = |alpha_scale * alpha|                alpha: one number for each element of a row
/// h = (1 - m) * norm(input) + m * norm(residual)
/// ```
///
/// The shares take the place of the norms' weights, and the scales of the residual are 1. See
/// [`HypersphereStep`](crate::norm::HypersphereStep): its stream is the input, and the output of its sublayer the residual.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mix {
    /// Multiplies alpha.
    pub alpha_scale: f64,
}

impl Inner {
    /// What a norm alone does to a row.
    pub fn of(norm: &Norm) -> Self {
        Inner {
            statistic: norm.statistic,
            prefix: norm.prefix,
            eps: norm.eps,
            eps_position: norm.eps_position,
            weight_offset: norm.weight_offset,
            round_normalized: norm.round_normalized,
        }
    }
}

impl Norm {
    /// The norm of the branch as one of its own, where there is one.
    pub fn inner(&self) -> Option<Norm> {
        let Inner { statistic, prefix, eps, eps_position, weight_offset, round_normalized } =
            self.fusion.inner?;
        let frozen = false;
        let (shape, reduced, affine) = (self.shape.clone(), self.reduced.clone(), self.affine.clone());
        let fusion = Fusion::default();
        Some(Norm {
            shape,
            reduced,
            affine,
            statistic,
            prefix,
            eps,
            eps_position,
            weight_offset,
            round_normalized,
            frozen,
            fusion,
        })
    }
}
