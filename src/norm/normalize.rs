//! Division by a p-norm, as `torch.nn.functional.normalize`.

use super::{Method, Parameters, check_eps};
use crate::spec::{Affine, EpsPosition, Fusion, Norm, Spec, Statistic};
use crate::tensor::{DType, Dims, Layout};
use crate::{Error, Result};

/// Divides vectors along one axis by their p-norm.
///
/// ```text
/// norm = (Σ |x|^p)^(1/p)          p = infinity: max |x|
/// y    = x / max(norm, eps)
/// ```
///
/// Backward, with `g` the gradient of `y` and sums over the vector:
///
/// ```text
/// grad_input = (g - u * Σ g * y) / norm       where norm > eps, else g / eps
/// u          = sign(x) * |y|^(p-1)            p = 2: y;  p = 1: sign(x)
///                                             p = infinity: sign(x) / ties where |x| = norm, else 0
/// ```
///
/// Elements that share an infinity norm share its gradient evenly. With `eps = 0`, a vector of zeros gives zeros and
/// passes no gradient. Definition and defaults as in PyTorch.
///
/// ```
/// use normkit::prelude::*;
/// let x = HostTensor::from_vec(vec![3.0f32, -5.0], &[1, 2])?;
/// assert_eq!(Normalize::new().p(1.0).forward(&x)?.to_f64(), [0.375, -0.625]);
/// # Ok::<(), normkit::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Normalize {
    p: f64,
    dim: isize,
    eps: f64,
    /// None: the field is what the trait asks for.
    parameters: Parameters<'static>,
}

impl Normalize {
    /// p is 2, the vectors lie along axis 1, eps is 1e-12.
    pub fn new() -> Self {
        Normalize { p: 2.0, dim: 1, eps: 1e-12, parameters: Parameters::default() }
    }

    /// Which norm: a number from 1 to 100, or infinity; the backends have no range for larger finite ones.
    pub fn p(mut self, p: f64) -> Self {
        self.p = p;
        self
    }

    /// The axis that the vectors lie along; negative numbers count from the last.
    pub fn dim(mut self, dim: isize) -> Self {
        self.dim = dim;
        self
    }

    /// The least divisor. Not negative.
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }
}

/// The axis that `dim` names among `rank`.
pub(super) fn axis(dim: isize, rank: usize) -> Result<usize> {
    let from_start = if dim < 0 { dim.checked_add_unsigned(rank) } else { Some(dim) };
    from_start
        .and_then(|axis| usize::try_from(axis).ok())
        .filter(|&axis| axis < rank)
        .ok_or_else(|| Error::argument("dim", format!("an axis of {rank}: within -{rank}..{rank}"), dim))
}

impl Method for Normalize {
    fn name(&self) -> &'static str {
        "normalize"
    }

    fn lower(&self, shape: &[usize], _: DType) -> Result<Spec> {
        if self.p.is_nan() || self.p < 1.0 {
            return Err(Error::argument("p", "a number from 1 up", self.p));
        }
        Layout::contiguous(shape).checked_span()?;
        let axis = axis(self.dim, shape.len())?;
        if shape[axis] == 0 {
            return Err(Error::argument(
                "input",
                format!("elements along axis {axis}"),
                format!("{shape:?}"),
            ));
        }
        Ok(Spec::Norm(Norm {
            shape: Dims::from_slice(shape),
            reduced: Dims::from_slice(&[axis]),
            affine: Affine::default(),
            statistic: Statistic::Norm(self.p),
            prefix: shape[axis],
            eps: check_eps(self.eps)?,
            eps_position: EpsPosition::Floor,
            weight_offset: 0.0,
            round_normalized: false,
            frozen: false,
            fusion: Fusion::default(),
        }))
    }

    fn parameters(&self) -> &Parameters<'_> {
        &self.parameters
    }
}
