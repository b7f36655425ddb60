//! The norm after a sublayer and the norm before the next one, with the residual between them, in one pass over memory.

use super::arguments::{self, BackwardArguments, ForwardArguments, InnerArguments, InnerBackwardArguments};
use super::{Gradients, Method, Parameters, checked};
use crate::backend;
use crate::spec::{Inner, Norm, Prologue, STATISTICS, Spec, Statistic};
use crate::tensor::{DType, Tensor, View, ViewMut};
use crate::{DeviceTensor, Error, Result, Stream, Workspace};

/// Both norms around the residual between two sublayers, as in Gemma 2 and 3 and in Peri-LN (the sandwich norm of CogView),
/// in one pass over memory. With `x` the output of a sublayer and `r` the residual stream:
///
/// ```text
/// h = r + after(x)         the stream that goes on
/// y = before(h)            the input of the next sublayer
/// ```
///
/// `before` sees `h` before that is rounded to its dtype, and `h` is not read back. Each is a [`LayerNorm`](super::LayerNorm) or an
/// [`RmsNorm`](super::RmsNorm) of the same trailing axes, with its own eps, weight, bias and weight offset, and with nothing
/// fused.
///
/// Backward, with `dy` and `dh` the gradients of `y` and of `h`:
///
/// ```text
/// g  = (gradient of before at h, given dy) + dh
/// dr = g
/// dx = gradient of after at x, given g
/// ```
///
/// `x` and `r` have one shape; `h` has the dtype of `r`, `y` that of `x`.
///
/// On CUDA and WebGPU, backward takes memory of the size of `x` in float32 (float64 for that) unless the gradient of `r` is written in
/// that type. On CUDA, forward returns [`Error::Limit`] for rows that are too long for the blocks that can meet, and a `before` that
/// rounds normalized values in 16 bits needs `r` where `h` has another dtype than `x` ([`Error::Unsupported`]). On WebGPU, rows of more
/// than 4096 elements are read once more for the statistics of `after`.
///
/// Sources: Ding et al. 2021 (arXiv 2105.13290), Kim et al. 2025 (arXiv 2502.02732).
///
/// ```
/// use normkit::norm::Sandwich;
/// use normkit::prelude::*;
/// let x = HostTensor::from_vec(vec![3.0f32, 4.0], &[1, 2])?;
/// let r = HostTensor::from_vec(vec![2.0f32, 0.0], &[1, 2])?;
/// let norms = Sandwich::new(RmsNorm::new([2]).eps(0.0), LayerNorm::new([2]).eps(0.0));
/// let (y, h, saved) = norms.forward_train(&x, &r)?;
/// let rms = 12.5f64.sqrt();
/// assert!((h.to_f64()[0] - (2.0 + 3.0 / rms)).abs() < 1e-6);
/// assert!((y.to_f64()[0] - 1.0).abs() < 1e-6);
/// let grads = norms.backward(&y, Some(&h), &x, &r, &saved)?;
/// assert_eq!(grads.input.shape(), [1, 2]);
/// # Ok::<(), normkit::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Sandwich<A, B> {
    after: A,
    before: B,
}

/// Where a backward pass has the hidden value `h` from.
#[derive(Clone, Copy)]
pub enum HiddenFrom<'v, 'a> {
    /// It is made again from the sublayer's output and this residual, as it was before it was rounded.
    Residual(&'v View<'a>),
    /// This is what the forward pass wrote; exact where its dtype is that of the arithmetic.
    Hidden(&'v View<'a>),
}

/// What a forward pass of a [`Sandwich`] writes the statistics of its norms to, each `[rows, 4]` and optional.
#[derive(Default)]
pub struct SandwichStatistics<'a> {
    /// Of the norm after the sublayer.
    pub after: Option<ViewMut<'a>>,
    /// Of the norm before the next one.
    pub before: Option<ViewMut<'a>>,
}

/// Where a backward pass of a [`Sandwich`] writes its gradients; each is optional, and what is absent is not computed.
#[derive(Default)]
pub struct SandwichGradients<'a> {
    /// Gradient of the sublayer's output.
    pub input: Option<ViewMut<'a>>,
    /// Gradient of the residual.
    pub residual: Option<ViewMut<'a>>,
    /// Gradient of the weight of the norm after the sublayer.
    pub after_weight: Option<ViewMut<'a>>,
    /// Gradient of its bias.
    pub after_bias: Option<ViewMut<'a>>,
    /// Gradient of the weight of the norm before the next sublayer.
    pub before_weight: Option<ViewMut<'a>>,
    /// Gradient of its bias.
    pub before_bias: Option<ViewMut<'a>>,
}

/// What [`Sandwich::forward_train`] keeps for [`Sandwich::backward`].
#[derive(Debug, Clone)]
pub struct SandwichSaved {
    /// The statistics of the norm after the sublayer, `[rows, 4]`.
    pub after: DeviceTensor,
    /// Those of the norm before the next one.
    pub before: DeviceTensor,
}

/// The gradients that [`Sandwich::backward`] returns: of both inputs, and of each parameter that was bound.
#[derive(Debug, Clone)]
pub struct SandwichGrads<T> {
    /// Gradient of the sublayer's output.
    pub input: T,
    /// Gradient of the residual.
    pub residual: T,
    /// Gradient of the weight of the norm after the sublayer.
    pub after_weight: Option<T>,
    /// Gradient of its bias.
    pub after_bias: Option<T>,
    /// Gradient of the weight of the norm before the next sublayer.
    pub before_weight: Option<T>,
    /// Gradient of its bias.
    pub before_bias: Option<T>,
}

/// The norm that a method lowers to, if it can be one of the two.
fn plain(name: &'static str, method: &impl Method, shape: &[usize], dtype: DType) -> Result<Norm> {
    let refused = |what: &str| Error::argument(name, "a norm of the trailing axes with nothing fused", what);
    let parameters = checked(method.parameters())?;
    let Spec::Norm(norm) = method.lower(shape, dtype)? else { return Err(refused(method.name())) };
    let kept = norm.shape.len() - norm.reduced.len();
    if norm.reduced.is_empty() || !norm.reduced.iter().copied().eq(kept..norm.shape.len()) {
        return Err(refused("one of other axes"));
    }
    if norm.frozen || method.given().is_some() || matches!(norm.statistic, Statistic::Norm(_)) {
        return Err(refused(method.name()));
    }
    if !norm.fusion.is_none() {
        return Err(refused("something fused"));
    }
    if parameters.mask.is_some() {
        return Err(refused("a mask"));
    }
    if norm.affine.axes != norm.reduced {
        return Err(refused("a weight or a bias that varies along other axes"));
    }
    Ok(norm)
}

/// An error of the norm before the next sublayer, whose arguments have that in their names.
fn named_before(error: Error) -> Error {
    let Error::Argument { name, expected, found } = error else { return error };
    let name = match name {
        "weight" => "before.weight",
        "bias" => "before.bias",
        "statistics" => "before.statistics",
        "grad_weight" => "before.grad_weight",
        "grad_bias" => "before.grad_bias",
        "grad_before" => "grad_residual",
        other => other,
    };
    Error::Argument { name, expected, found }
}

impl<A: Method, B: Method> Sandwich<A, B> {
    /// The norm after a sublayer, and the norm before the next one.
    pub fn new(after: A, before: B) -> Self {
        Sandwich { after, before }
    }

    /// The spec for inputs of this shape, or what is wrong with the configuration; `dtype` is that of the sublayer's output.
    pub fn lower(&self, shape: &[usize], dtype: DType) -> Result<Spec> {
        let after = plain("after", &self.after, shape, dtype)?;
        let mut before = plain("before", &self.before, shape, dtype)?;
        if after.reduced != before.reduced {
            let axes = |norm: &Norm| format!("the last {} axes", norm.reduced.len());
            return Err(Error::argument("after", axes(&before), axes(&after)));
        }
        before.fusion.prologue = Prologue::Residual { input_scale: 1.0, residual_scale: 1.0 };
        before.fusion.inner = Some(Inner::of(&after));
        Ok(Spec::Norm(before))
    }

    /// Shape of the statistics of either norm, `[rows, 4]`. Their dtype is the input dtype's [`compute`](DType::compute).
    pub fn statistics_shape(&self, shape: &[usize], dtype: DType) -> Result<[usize; 2]> {
        Ok([self.lower(shape, dtype)?.rows(), STATISTICS])
    }

    /// Bytes of scratch that a backward pass over inputs of `shape` needs at most.
    pub fn workspace_size(&self, shape: &[usize], dtype: DType) -> Result<usize> {
        Ok(backend::workspace_size(&self.lower(shape, dtype)?, dtype))
    }

    /// The parameters of the norm before the next sublayer, with the residual.
    fn parameters<'p>(&'p self, spec: &Spec, residual: Option<&View<'p>>) -> Result<Parameters<'p>> {
        let fusion = spec.fusion();
        Ok(Parameters { fusion, before: residual.cloned(), ..checked(self.before.parameters())?.clone() })
    }

    /// Writes `y` to `output` (the input's shape and dtype), `h` to `hidden` if given (the residual's dtype), and the statistics that
    /// backward needs to `statistics`.
    ///
    /// **In place:** `hidden` and `output` may each be exactly the input or the residual; see [`ViewMut::in_place`].
    pub fn forward_into<'v>(
        &'v self,
        input: &'v View<'v>,
        residual: &'v View<'v>,
        output: &'v mut ViewMut<'_>,
        hidden: Option<&'v mut ViewMut<'_>>,
        statistics: SandwichStatistics<'v>,
        stream: &Stream<'_>,
    ) -> Result<()> {
        let spec = self.lower(input.shape(), input.dtype())?;
        let parameters = self.parameters(&spec, Some(residual))?;
        let inner =
            InnerArguments { parameters: checked(self.after.parameters())?, statistics: statistics.after };
        let arguments = ForwardArguments {
            output: Some(output.reborrow()),
            hidden: hidden.map(|view| view.reborrow()),
            statistics: statistics.before,
            inner: Some(inner),
            ..ForwardArguments::new(input)
        };
        let operands = arguments::forward(&spec, &parameters, arguments, stream).map_err(named_before)?;
        backend::forward(&spec, operands, stream)
    }

    /// Writes the gradients that `grads` asks for, given those of `y` and, where it was used, of `h`, and the statistics that the
    /// forward pass saved.
    ///
    /// **In place:** the gradient of the input may be exactly `grad_output`, that of the residual exactly `grad_hidden`.
    pub fn backward_into<'v>(
        &'v self,
        grad_output: &'v View<'v>,
        grad_hidden: Option<&'v View<'v>>,
        input: &'v View<'v>,
        hidden: HiddenFrom<'v, 'v>,
        [of_after, of_before]: [&'v View<'v>; 2],
        grads: SandwichGradients<'v>,
        workspace: &mut Workspace,
        stream: &Stream<'_>,
    ) -> Result<()> {
        let spec = self.lower(input.shape(), input.dtype())?;
        let (residual, saved) = match hidden {
            HiddenFrom::Residual(residual) => (Some(residual), None),
            HiddenFrom::Hidden(hidden) => (None, Some(hidden)),
        };
        let parameters = self.parameters(&spec, residual)?;
        let inner = InnerBackwardArguments {
            parameters: checked(self.after.parameters())?,
            statistics: of_after,
            hidden: saved,
            grad_weight: grads.after_weight,
            grad_bias: grads.after_bias,
        };
        let of_norm = Gradients {
            input: grads.input,
            before: grads.residual,
            weight: grads.before_weight,
            bias: grads.before_bias,
            ..Gradients::default()
        };
        let arguments = BackwardArguments {
            grad_hidden,
            statistics: Some(of_before),
            inner: Some(inner),
            ..BackwardArguments::new(grad_output, input, of_norm)
        };
        let operands = arguments::backward(&spec, &parameters, arguments, stream).map_err(named_before)?;
        backend::backward(&spec, operands, workspace, stream)
    }

    /// `y` and `h`.
    pub fn forward<T: Tensor>(&self, input: &T, residual: &T) -> Result<(T, T)> {
        self.run(input, residual, SandwichStatistics::default())
    }

    /// `y`, `h`, and what [`backward`](Sandwich::backward) needs.
    pub fn forward_train<T: Tensor>(&self, input: &T, residual: &T) -> Result<(T, T, SandwichSaved)> {
        let view = input.view()?;
        let shape = self.statistics_shape(view.shape(), view.dtype())?;
        let zeros = || input.device().zeros(&shape, view.dtype().compute());
        let mut saved = SandwichSaved { after: zeros()?, before: zeros()? };
        let statistics = SandwichStatistics {
            after: Some(saved.after.view_mut()?),
            before: Some(saved.before.view_mut()?),
        };
        let (output, hidden) = self.run(input, residual, statistics)?;
        Ok((output, hidden, saved))
    }

    fn run<T: Tensor>(&self, input: &T, residual: &T, statistics: SandwichStatistics<'_>) -> Result<(T, T)> {
        let (view, of_residual) = (input.view()?, residual.view()?);
        let mut output = input.empty(view.shape(), view.dtype())?;
        let mut hidden = input.empty(view.shape(), of_residual.dtype())?;
        self.forward_into(
            &view,
            &of_residual,
            &mut output.view_mut()?,
            Some(&mut hidden.view_mut()?),
            statistics,
            &input.device().stream(),
        )?;
        Ok((output, hidden))
    }

    /// The gradients of both inputs and of every bound parameter, given those of `y` and, where it was used, of `h`.
    pub fn backward<T: Tensor>(
        &self,
        grad_output: &T,
        grad_hidden: Option<&T>,
        input: &T,
        residual: &T,
        saved: &SandwichSaved,
    ) -> Result<SandwichGrads<T>> {
        let residual = residual.view()?;
        self.gradients(grad_output, grad_hidden, input, HiddenFrom::Residual(&residual), saved)
    }

    /// As [`backward`](Sandwich::backward), from `h` where the residual is gone. In 16 bits `h` has lost digits.
    pub fn backward_of_hidden<T: Tensor>(
        &self,
        grad_output: &T,
        grad_hidden: Option<&T>,
        input: &T,
        hidden: &T,
        saved: &SandwichSaved,
    ) -> Result<SandwichGrads<T>> {
        let hidden = hidden.view()?;
        self.gradients(grad_output, grad_hidden, input, HiddenFrom::Hidden(&hidden), saved)
    }

    fn gradients<T: Tensor>(
        &self,
        grad_output: &T,
        grad_hidden: Option<&T>,
        input: &T,
        hidden: HiddenFrom<'_, '_>,
        saved: &SandwichSaved,
    ) -> Result<SandwichGrads<T>> {
        let view = input.view()?;
        let (HiddenFrom::Residual(of_sum) | HiddenFrom::Hidden(of_sum)) = hidden;
        let (after, before) = (checked(self.after.parameters())?, checked(self.before.parameters())?);
        let like = |p: &Option<View<'_>>| p.as_ref().map(|p| input.empty(p.shape(), p.dtype())).transpose();
        let mut grads = SandwichGrads {
            input: input.empty(view.shape(), view.dtype())?,
            residual: input.empty(view.shape(), of_sum.dtype())?,
            after_weight: like(&after.weight)?,
            after_bias: like(&after.bias)?,
            before_weight: like(&before.weight)?,
            before_bias: like(&before.bias)?,
        };
        let targets = SandwichGradients {
            input: Some(grads.input.view_mut()?),
            residual: Some(grads.residual.view_mut()?),
            after_weight: grads.after_weight.as_mut().map(Tensor::view_mut).transpose()?,
            after_bias: grads.after_bias.as_mut().map(Tensor::view_mut).transpose()?,
            before_weight: grads.before_weight.as_mut().map(Tensor::view_mut).transpose()?,
            before_bias: grads.before_bias.as_mut().map(Tensor::view_mut).transpose()?,
        };
        let (grad_output, grad_hidden) = (grad_output.view()?, grad_hidden.map(Tensor::view).transpose()?);
        let (of_after, of_before) = (saved.after.view()?, saved.before.view()?);
        self.backward_into(
            &grad_output,
            grad_hidden.as_ref(),
            &view,
            hidden,
            [&of_after, &of_before],
            targets,
            &mut Workspace::new(),
            &input.device().stream(),
        )?;
        Ok(grads)
    }
}
