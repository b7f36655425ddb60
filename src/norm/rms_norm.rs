//! Root-mean-square normalization (Zhang, Sennrich 2019, arXiv 1910.07467).

use super::{
    Method, Parameters, bind_broadcast, bind_fusion, bind_mask, bind_rotary, bind_weight_and_bias, check_eps,
    check_offset, trailing_affine, trailing_axes,
};
use crate::spec::{EpsPosition, Norm, Spec, Statistic};
use crate::tensor::{DType, Dims};
use crate::{Error, Result};

/// Where a model rounds between normalizing and scaling. All of them compute in float32 (float64 for f64 tensors).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Cast {
    /// One rounding, at the end.
    #[default]
    Fp32,
    /// The normalized value is rounded to the input's dtype before the weight multiplies it, as in Llama models.
    Llama,
    /// The weight is stored as a difference from one: `x_hat * (weight + 1)`, one rounding at the end, as in Gemma.
    Gemma,
}

/// Root-mean-square normalization over the trailing axes.
///
/// ```text
/// rstd  = 1 / sqrt(Σ_{i<k} x_i² / k + eps)          eps inside the root (default)
/// rstd  = 1 / (sqrt(Σ_{i<k} x_i² / k) + eps)        eps outside
/// x_hat = x * rstd
/// y     = x_hat * (weight + weight_offset) + bias
/// ```
///
/// `k` is `cols`, or with [`partial`](RmsNorm::partial) the first `floor(p * cols)` columns; all columns are divided.
///
/// Backward, with `g` the gradient of `y`, `ĝ = g * (weight + weight_offset)` and `s` the root mean square:
///
/// ```text
/// grad_input_i = rstd * (ĝ_i - [i < k] * x_hat_i * q * Σ_j ĝ_j x_hat_j / k)
/// q            = 1 with eps inside, 1 / (rstd * s) with eps outside (0 where s = 0)
/// grad_weight  = Σ_rows g * x_hat
/// grad_bias    = Σ_rows g
/// ```
///
/// With [`Cast::Llama`] `grad_weight` sees the rounded `x_hat`, and the rounding itself passes gradients unchanged.
/// Sources: Zhang and Sennrich 2019, equations 4 and 8 (the partial form); their code has both places of eps.
///
/// ```
/// use normkit::prelude::*;
/// let x = HostTensor::from_vec(vec![3.0f32, 4.0, 0.0, 0.0], &[1, 4])?;
/// let y = RmsNorm::new([4]).eps(0.0).forward(&x)?;
/// assert_eq!(y.to_f64(), [1.2000000476837158, 1.600000023841858, 0.0, 0.0]);
/// # Ok::<(), normkit::Error>(())
/// ```
#[derive(Clone)]
pub struct RmsNorm<'a> {
    normalized_shape: Vec<usize>,
    eps: Option<f64>,
    eps_position: EpsPosition,
    partial: f64,
    weight_offset: f64,
    cast: Cast,
    parameters: Parameters<'a>,
}

impl<'a> RmsNorm<'a> {
    /// Normalizes over the last axes, whose sizes are `normalized_shape`. eps is, as in PyTorch, the machine epsilon
    /// of the input's dtype.
    pub fn new(normalized_shape: impl Into<Vec<usize>>) -> Self {
        RmsNorm {
            normalized_shape: normalized_shape.into(),
            eps: None,
            eps_position: EpsPosition::Inside,
            partial: 1.0,
            weight_offset: 0.0,
            cast: Cast::Fp32,
            parameters: Parameters::default(),
        }
    }

    /// Keeps the divisor away from zero. Not negative.
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = Some(eps);
        self
    }

    /// Whether eps is added to the mean square or to its root.
    pub fn eps_position(mut self, position: EpsPosition) -> Self {
        self.eps_position = position;
        self
    }

    /// Takes the statistic from the first `floor(p * cols)` columns only, `0 < p <= 1`.
    pub fn partial(mut self, p: f64) -> Self {
        self.partial = p;
        self
    }

    /// Added to the weight before it multiplies.
    pub fn weight_offset(mut self, offset: f64) -> Self {
        self.weight_offset = offset;
        self
    }

    /// Where to round. [`Cast::Gemma`] implies a weight offset of 1; giving that offset too changes nothing.
    pub fn cast(mut self, cast: Cast) -> Self {
        self.cast = cast;
        self
    }

    bind_weight_and_bias!();
    bind_mask!();
    bind_broadcast!();
    bind_fusion!();
    bind_rotary!();
}

/// The distance from 1 to the next number of `dtype`.
fn machine_epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2f64.powi(-10),
        DType::BF16 => 2f64.powi(-7),
        DType::F32 => f64::from(f32::EPSILON),
        _ => f64::EPSILON,
    }
}

impl Method for RmsNorm<'_> {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn lower(&self, shape: &[usize], dtype: DType) -> Result<Spec> {
        let reduced = trailing_axes(shape, &self.normalized_shape)?;
        let cols: usize = self.normalized_shape.iter().product();
        if !(self.partial > 0.0 && self.partial <= 1.0) {
            return Err(Error::argument("partial", "0 < p <= 1", self.partial));
        }
        let prefix = (cols as f64 * self.partial).floor() as usize;
        if prefix == 0 {
            let found = format!("{}, which leaves none of {cols} columns", self.partial);
            return Err(Error::argument("partial", "a fraction that keeps a column", found));
        }
        check_offset(self.weight_offset)?;
        let weight_offset = match (self.cast, self.weight_offset) {
            (Cast::Gemma, 0.0 | 1.0) => 1.0,
            (Cast::Gemma, other) => {
                return Err(Error::argument("weight_offset", "1 with Cast::Gemma, or none", other));
            }
            (_, offset) => offset,
        };
        Ok(Spec::Norm(Norm {
            shape: Dims::from_slice(shape),
            affine: trailing_affine(&self.parameters, shape, &reduced)?,
            reduced,
            statistic: Statistic::MeanSquare,
            prefix,
            eps: check_eps(self.eps.unwrap_or(machine_epsilon(dtype)))?,
            eps_position: self.eps_position,
            weight_offset,
            round_normalized: self.cast == Cast::Llama,
            frozen: false,
            fusion: self.parameters.fusion,
        }))
    }

    fn parameters(&self) -> &Parameters<'_> {
        &self.parameters
    }
}
