//! What methods lower their configuration by: the axes of rows and of parameters, and checks of numbers.

use super::{Parameters, channels};
use crate::spec::Affine;
use crate::tensor::{Dims, Layout};
use crate::{Error, Result};

/// The trailing axes of `shape` that are `normalized_shape`; an error unless they are equal and not empty.
pub(crate) fn trailing_axes(shape: &[usize], normalized_shape: &[usize]) -> Result<Dims> {
    if normalized_shape.is_empty() || normalized_shape.contains(&0) {
        return Err(Error::argument(
            "normalized_shape",
            "at least one axis, none of size 0",
            format!("{normalized_shape:?}"),
        ));
    }
    if !shape.ends_with(normalized_shape) {
        return Err(Error::argument(
            "input",
            format!("a shape that ends with {normalized_shape:?}"),
            format!("{shape:?}"),
        ));
    }
    Layout::contiguous(shape).checked_span()?;
    Ok((shape.len() - normalized_shape.len()..shape.len()).collect())
}

/// Weight and bias along these axes of `shape`, in a shape of just their sizes.
pub(crate) fn affine_along(shape: &[usize], axes: &[usize]) -> Affine {
    Affine { axes: Dims::from_slice(axes), shape: axes.iter().map(|&axis| shape[axis]).collect() }
}

/// Weight and bias along the trailing axes `reduced`, or, where they broadcast and have as many axes as the input, along every
/// axis in which they are not of size 1.
pub(crate) fn trailing_affine(
    parameters: &Parameters<'_>,
    shape: &[usize],
    reduced: &[usize],
) -> Result<Affine> {
    if parameters.broadcast {
        return channels::affine(parameters, shape, reduced, channels::itself);
    }
    Ok(affine_along(shape, reduced))
}

/// What is added to a weight, if it is a number.
pub(crate) fn check_offset(offset: f64) -> Result<f64> {
    if offset.is_finite() {
        return Ok(offset);
    }
    Err(Error::argument("weight_offset", "a finite number", offset))
}

/// `eps` if it is a number that is not negative.
pub(crate) fn check_eps(eps: f64) -> Result<f64> {
    if eps >= 0.0 && eps.is_finite() {
        return Ok(eps);
    }
    Err(Error::argument("eps", "a finite number that is not negative", eps))
}
