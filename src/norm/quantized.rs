//! A norm whose result is quantized in the same pass over memory.

use super::arguments::ForwardArguments;
use super::{Method, Outliers, checked, hidden_dtype, steps};
use crate::spec::{Quantization, Scaling, Spec};
use crate::tensor::{DType, Tensor, View, ViewMut};
use crate::{Error, Result, Stream};

/// A norm of rows, and whatever is fused with it, whose result becomes codes of 8 bits: see [`Quantization`] for the
/// formula, the dtypes and what happens to NaN.
///
/// For inference: it has no backward pass. Rows are those of the norm, which must be over the last axes.
///
/// ```
/// use normkit::norm::Quantized;
/// use normkit::prelude::*;
/// use normkit::spec::Scaling;
/// use normkit::tensor::DType;
/// let x = HostTensor::from_vec(vec![3.0f32, 4.0], &[1, 2])?;
/// let norm = Quantized::new(RmsNorm::new([2]).eps(0.0), DType::I8, Scaling::Row);
/// let codes = norm.forward(&x)?;
/// assert_eq!(codes.codes.to_f64(), [95.0, 127.0]);
/// let scale = codes.scales.unwrap().to_f64()[0];
/// assert!((127.0 * scale - 4.0 / 12.5f64.sqrt()).abs() < 1e-6);
/// # Ok::<(), normkit::Error>(())
/// ```
#[derive(Clone)]
pub struct Quantized<M> {
    pub(super) method: M,
    quantization: Quantization,
}

/// What a [`Quantized`] norm gives.
#[derive(Debug, Clone)]
pub struct Codes<T> {
    /// The codes, of the input's shape.
    pub codes: T,
    /// The scales, float32, `[rows, scales of a row]`; `None` where one was given.
    pub scales: Option<T>,
}

impl<M: Method> Quantized<M> {
    /// The result of `method` as codes of `dtype`.
    pub fn new(method: M, dtype: DType, scaling: Scaling) -> Self {
        Quantized { method, quantization: Quantization { dtype, scaling, upper_bound: None, outliers: None } }
    }

    /// Magnitudes above `bound` do not make a computed scale larger.
    pub fn upper_bound(mut self, bound: f64) -> Self {
        self.quantization.upper_bound = Some(bound);
        self
    }

    /// Elements of at least this magnitude are set apart: see [`Outliers`]. LLM.int8() has 6.
    pub fn outliers(mut self, threshold: f64) -> Outliers<M> {
        self.quantization.outliers = Some(threshold);
        Outliers::new(self)
    }

    /// The spec for an input of this shape and dtype, or what is wrong with the configuration.
    pub fn lower(&self, shape: &[usize], dtype: DType) -> Result<Spec> {
        self.quantization.check()?;
        let mut spec = self.method.lower(shape, dtype)?;
        let over_rows = || Error::argument("method", "a norm over the last axes", self.method.name());
        let Spec::Norm(norm) = &mut spec else { return Err(over_rows()) };
        let kept = norm.shape.len() - norm.reduced.len();
        if norm.reduced.is_empty() || !norm.reduced.iter().copied().eq(kept..norm.shape.len()) {
            return Err(over_rows());
        }
        norm.fusion.quantization = Some(self.quantization);
        Ok(spec)
    }

    /// Shape of the scales of an input of `shape`: `[rows, scales of a row]`. `None` where the scale is given.
    pub fn scales_shape(&self, shape: &[usize], dtype: DType) -> Result<Option<[usize; 2]>> {
        let spec = self.lower(shape, dtype)?;
        Ok(self.quantization.scales(spec.cols()).map(|scales| [spec.rows(), scales]))
    }

    /// Writes the codes to `codes`, which has the input's shape, and the scales to `scales`
    /// ([`scales_shape`](Quantized::scales_shape), row-major float32), which is required where they are computed. What was
    /// normalized goes to `hidden` if given, as by [`Method::forward_hidden_into`].
    pub fn forward_into(
        &self,
        input: &View<'_>,
        codes: &mut ViewMut<'_>,
        scales: Option<&mut ViewMut<'_>>,
        hidden: Option<&mut ViewMut<'_>>,
        stream: &Stream<'_>,
    ) -> Result<()> {
        let spec = self.lower(input.shape(), input.dtype())?;
        let given = self.method.given().map(Tensor::view).transpose()?;
        let arguments = ForwardArguments {
            given: given.as_ref(),
            output: Some(codes.reborrow()),
            scales: scales.map(|view| view.reborrow()),
            hidden: hidden.map(|view| view.reborrow()),
            ..ForwardArguments::new(input)
        };
        steps::run_spec(spec, checked(self.method.parameters())?, arguments, stream)
    }

    /// The codes, and their scales.
    pub fn forward<T: Tensor>(&self, input: &T) -> Result<Codes<T>> {
        self.run(input, None)
    }

    /// The codes, their scales, and what was normalized: the sum of the input and a residual.
    pub fn forward_hidden<T: Tensor>(&self, input: &T) -> Result<(Codes<T>, T)> {
        let view = input.view()?;
        let dtype = hidden_dtype(checked(self.method.parameters())?, view.dtype());
        let mut hidden = input.empty(view.shape(), dtype)?;
        let codes = self.run(input, Some(&mut hidden.view_mut()?))?;
        Ok((codes, hidden))
    }

    fn run<T: Tensor>(&self, input: &T, hidden: Option<&mut ViewMut<'_>>) -> Result<Codes<T>> {
        let view = input.view()?;
        let scales = self.scales_shape(view.shape(), view.dtype())?;
        let mut codes = input.empty(view.shape(), self.quantization.dtype)?;
        let mut scales = scales.map(|shape| input.empty(&shape, DType::F32)).transpose()?;
        let mut scales_view = scales.as_mut().map(Tensor::view_mut).transpose()?;
        let stream = input.device().stream();
        self.forward_into(&view, &mut codes.view_mut()?, scales_view.as_mut(), hidden, &stream)?;
        drop(scales_view);
        Ok(Codes { codes, scales })
    }
}
