//! Weight normalization (Salimans, Kingma 2016, arXiv 1602.07868).

use super::{BatchNorm, Method, Parameters, bind, steps};
use crate::spec::{Affine, EpsPosition, Fusion, MOMENTS, Norm, STATISTICS, Spec, Statistic};
use crate::tensor::{DType, Dims, HostTensor, Layout, Tensor};
use crate::{Error, Result};

/// Weight normalization: the direction `v` and the length `g` of a weight, apart.
///
/// ```text
/// n = sqrt(Σ v²)          over every axis but `dim`, or over the whole tensor
/// w = g * v / n
/// ```
///
/// Backward, with `G` the gradient of `w` and `u = v / n` the unit vector:
///
/// ```text
/// grad_g = Σ G * u
/// grad_v = g / n * (G - u * Σ G * u)
/// ```
///
/// A vector of zeros has no direction: it gives `w = 0`, and no gradient passes (PyTorch gives NaN). There is no eps. The
/// norm never overflows: rows of large or small numbers are scaled by a power of two.
///
/// `g` has the size of `v` along `dim` and 1 elsewhere, or just that size; with `dim = None`, one element of any rank. Source:
/// Salimans and Kingma 2016, equations 2 and 3.
///
/// ```
/// use normkit::prelude::*;
/// let v = HostTensor::from_vec(vec![3.0f32, 4.0, 0.0, 0.0], &[2, 2])?;
/// let g = HostTensor::from_vec(vec![10.0f32, 1.0], &[2, 1])?;
/// let w = WeightNorm::new(Some(0)).g(&g).forward(&v)?;
/// assert_eq!(w.to_f64(), [6.0, 8.0, 0.0, 0.0]);
/// # Ok::<(), normkit::Error>(())
/// ```
#[derive(Clone)]
pub struct WeightNorm<'a> {
    dim: Option<usize>,
    parameters: Parameters<'a>,
}

impl<'a> WeightNorm<'a> {
    /// One norm for each index of axis `dim`; `None`: one for the whole tensor.
    pub fn new(dim: Option<usize>) -> Self {
        WeightNorm { dim, parameters: Parameters::default() }
    }

    bind! {
        /// The lengths. Without them the vectors are of length 1. In the calls of [`Method`] `g` is the weight.
        g, g_view => weight
    }

    /// The lengths that `v` has: as `g`, they make `w` equal `v`. In `v`'s compute dtype, of `g`'s shape. Waits for the
    /// device.
    pub fn lengths(&self, v: &impl Tensor) -> Result<HostTensor> {
        let view = v.view()?;
        let (shape, dtype) = (view.shape(), view.dtype());
        let moments = steps::moments(self, v)?;
        let statistics = steps::finish(self, v, &moments)?.read()?.to_f64();
        // Norm and exponent; see STATISTICS.
        let lengths: Vec<f64> =
            statistics.chunks_exact(STATISTICS).map(|row| row[0] * 2f64.powi(row[3] as i32)).collect();
        HostTensor::from_f64(&lengths, &self.g_shape(shape), dtype.compute())
    }

    /// Data-dependent initialization (section 3 of the paper). Given the pre-activations `t = x · v / |v|` of one batch,
    /// `[N, channels, ...]`, the `g` and `b` with which `g * t + b` has mean 0 and standard deviation `init_scale` in every
    /// channel:
    ///
    /// ```text
    /// g = init_scale / sqrt(var(t) + 1e-10)
    /// b = -g * mean(t)
    /// ```
    ///
    /// Both `[channels]`, in `t`'s compute dtype. The variance is the biased one. Waits for the device.
    pub fn data_dependent_init(t: &impl Tensor, init_scale: f64) -> Result<(HostTensor, HostTensor)> {
        let view = t.view()?;
        let channels = view.shape().get(1).copied().unwrap_or(0);
        let moments = steps::moments(&BatchNorm::new(channels), t)?.read()?.to_f64();
        let (g, b): (Vec<f64>, Vec<f64>) = (moments.chunks_exact(MOMENTS))
            .map(|row| {
                let scale = 2f64.powi(row[4] as i32);
                let (mean, var) = ((row[1] + row[2]) * scale, row[3] / row[0] * scale * scale);
                let g = init_scale / (var + 1e-10).sqrt();
                (g, -g * mean)
            })
            .unzip();
        let of = |values: &[f64]| HostTensor::from_f64(values, &[channels], view.dtype().compute());
        Ok((of(&g)?, of(&b)?))
    }

    /// The shape of `g` for a `v` of `shape`.
    fn g_shape(&self, shape: &[usize]) -> Dims {
        match self.dim {
            Some(dim) => (0..shape.len()).map(|axis| if axis == dim { shape[axis] } else { 1 }).collect(),
            None => Dims::new(),
        }
    }
}

impl Method for WeightNorm<'_> {
    fn name(&self) -> &'static str {
        "weight_norm"
    }

    fn lower(&self, shape: &[usize], _: DType) -> Result<Spec> {
        Layout::contiguous(shape).checked_span()?;
        if let Some(dim) = self.dim.filter(|&dim| dim >= shape.len()) {
            return Err(Error::argument("dim", format!("an axis of v, less than {}", shape.len()), dim));
        }
        let kept: Dims = self.dim.into_iter().collect();
        let reduced: Dims = (0..shape.len()).filter(|axis| !kept.contains(axis)).collect();
        let cols: usize = reduced.iter().map(|&axis| shape[axis]).product();
        if cols == 0 {
            return Err(Error::argument("v", "vectors of at least one element", format!("{shape:?}")));
        }
        let plain: Dims = kept.iter().map(|&axis| shape[axis]).collect();
        let is_plain = self.parameters.weight.as_ref().is_some_and(|g| g.shape() == &plain[..]);
        Ok(Spec::Norm(Norm {
            shape: Dims::from_slice(shape),
            reduced,
            affine: Affine { axes: kept, shape: if is_plain { plain } else { self.g_shape(shape) } },
            statistic: Statistic::Norm(2.0),
            prefix: cols,
            eps: 0.0,
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
