//! The norm of one head of queries or keys.

use super::channels::itself;
use super::{Method, Parameters, bind, bind_rotary, check_eps};
use crate::spec::{Affine, EpsPosition, Norm, Spec, Statistic};
use crate::tensor::{DType, Dims, Layout};
use crate::{Error, Result};

/// How a head is normalized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// `x / max(|x|, eps)`
    L2,
    /// Divided by the root mean square.
    Rms,
    /// Centred and divided by the deviation.
    Layer,
}

/// The norm of queries or of keys: each head, the last axis of `[..., heads, head_dim]`, is a row.
///
/// A [`QkNorm`](super::QkNorm) is made of two.
#[derive(Clone)]
pub struct HeadNorm<'a> {
    kind: Kind,
    pub(super) eps: f64,
    parameters: Parameters<'a>,
}

impl<'a> HeadNorm<'a> {
    pub(super) fn new(kind: Kind, eps: f64) -> Self {
        HeadNorm { kind, eps, parameters: Parameters::default() }
    }

    bind! {
        /// Multiplies the normalized head: `[head_dim]`, `[heads, head_dim]`, or one element for all.
        weight, weight_view => weight
    }
    bind! {
        /// Added last; shapes as the weight's.
        bias, bias_view => bias
    }

    bind_rotary!();

    /// The same with its parameters changed.
    #[cfg(feature = "check")]
    pub(crate) fn with_parameters(mut self, change: impl FnOnce(&mut Parameters<'a>)) -> Self {
        change(&mut self.parameters);
        self
    }

    fn affine(&self, shape: &[usize]) -> Result<Affine> {
        let rank = shape.len();
        let bound = [("weight", &self.parameters.weight), ("bias", &self.parameters.bias)];
        let Some((name, own)) = bound.iter().find_map(|(name, p)| p.as_ref().map(|p| (*name, p.shape())))
        else {
            return Ok(Affine { axes: itself(rank - 1), shape: itself(shape[rank - 1]) });
        };
        let axes: Dims = match own.len() {
            // A single number, unless the head is a single number itself.
            _ if own.iter().product::<usize>() == 1 && shape[rank - 1] != 1 => Dims::new(),
            1 | 2 if shape.ends_with(own) => (rank - own.len()..rank).collect(),
            _ => {
                let (heads, dim) = (shape[rank - 2], shape[rank - 1]);
                let expected = format!("shape [{dim}], [{heads}, {dim}], or one element");
                return Err(Error::argument(name, expected, format!("shape {own:?}")));
            }
        };
        Ok(Affine { axes, shape: Dims::from_slice(own) })
    }
}

impl Method for HeadNorm<'_> {
    fn name(&self) -> &'static str {
        "qk_norm"
    }

    fn lower(&self, shape: &[usize], _: DType) -> Result<Spec> {
        Layout::contiguous(shape).checked_span()?;
        if shape.len() < 2 || shape[shape.len() - 1] == 0 {
            return Err(Error::argument("input", "a shape [..., heads, head_dim]", format!("{shape:?}")));
        }
        let last = shape.len() - 1;
        let (statistic, eps_position) = match self.kind {
            Kind::L2 => (Statistic::Norm(2.0), EpsPosition::Floor),
            Kind::Rms => (Statistic::MeanSquare, EpsPosition::Inside),
            Kind::Layer => (Statistic::Moments, EpsPosition::Inside),
        };
        Ok(Spec::Norm(Norm {
            shape: Dims::from_slice(shape),
            reduced: itself(last),
            affine: self.affine(shape)?,
            statistic,
            prefix: shape[last],
            eps: check_eps(self.eps)?,
            eps_position,
            weight_offset: 0.0,
            round_normalized: false,
            frozen: false,
            fusion: self.parameters.fusion,
        }))
    }

    fn parameters(&self) -> &Parameters<'_> {
        &self.parameters
    }
}
