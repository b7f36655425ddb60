//! Elementwise layer norm (Stollenwerk 2025, arXiv 2503.21708), named DyISRU in its later versions.

use super::{Method, Parameters, affine_along, bind_alpha, bind_weight_and_bias, trailing_axes};
use crate::Result;
use crate::spec::{Function, Pointwise, Spec};
use crate::tensor::{DType, Dims};

/// Elementwise layer norm: what layer normalization does to an element far from the others, with the others' spread
/// learned instead of measured.
///
/// ```text
/// y = weight * x / sqrt(alpha + x²) + bias
/// ```
///
/// Backward, with `g` the gradient of `y`, `ĝ = g * weight` and `d = alpha + x²`:
///
/// ```text
/// grad_input  = ĝ * alpha / d^(3/2)
/// grad_alpha  = -1/2 Σ ĝ * x / d^(3/2)      over all elements
/// grad_weight = Σ_rows g * x / sqrt(d)
/// grad_bias   = Σ_rows g
/// ```
///
/// `alpha > 0` is one learned element and must be bound; a result where `alpha + x²` is not positive is NaN. The paper
/// writes a factor `sqrt(C - 1)` for `C` columns in front (`sqrt(C)` in later versions); here it is the weight's initial
/// value. How the paper parametrizes and initializes alpha was not confirmed against its text; code written by others after
/// it starts at 100 and lets the weight absorb the factor. `1 / sqrt(alpha)` is the slope at zero.
///
/// ```
/// use normkit::prelude::*;
/// let x = HostTensor::from_vec(vec![3.0f32, -3.0, 0.0], &[3])?;
/// let alpha = HostTensor::from_vec(vec![16.0f32], &[1])?;
/// assert_eq!(Eln::new([3]).alpha(&alpha).forward(&x)?.to_f64(), [0.6f32, -0.6, 0.0].map(f64::from));
/// # Ok::<(), normkit::Error>(())
/// ```
#[derive(Clone)]
pub struct Eln<'a> {
    normalized_shape: Vec<usize>,
    parameters: Parameters<'a>,
}

impl<'a> Eln<'a> {
    /// `normalized_shape` is the shape of weight and bias: the last axes of the input.
    pub fn new(normalized_shape: impl Into<Vec<usize>>) -> Self {
        Eln { normalized_shape: normalized_shape.into(), parameters: Parameters::default() }
    }

    bind_alpha!();
    bind_weight_and_bias!();
}

impl Method for Eln<'_> {
    fn name(&self) -> &'static str {
        "eln"
    }

    fn lower(&self, shape: &[usize], _: DType) -> Result<Spec> {
        self.parameters.check_alpha_bound()?;
        let axes = trailing_axes(shape, &self.normalized_shape)?;
        Ok(Spec::Pointwise(Pointwise {
            shape: Dims::from_slice(shape),
            affine: affine_along(shape, &axes),
            function: Function::InverseSquareRoot,
        }))
    }

    fn parameters(&self) -> &Parameters<'_> {
        &self.parameters
    }
}
