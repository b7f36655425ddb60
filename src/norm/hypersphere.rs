//! A step on the hypersphere, as nGPT has it in the place of a residual and a norm, in one pass over memory.

use super::arguments::{
    self, BackwardArguments, ForwardArguments, InnerArguments, InnerBackwardArguments, MixArguments,
    MixBackwardArguments,
};
use super::{Gradients, Parameters, affine_along, check_eps};
use crate::backend;
use crate::spec::{EpsPosition, Fusion, Inner, Mix, Norm, Prologue, STATISTICS, Spec, Statistic};
use crate::tensor::{DType, Dims, Layout, Tensor, View, ViewMut};
use crate::{DeviceTensor, Error, Result, Stream, Workspace};

/// The step of nGPT's residual stream on the hypersphere, in one pass over memory. With `r` the stream, the input, `x` the
/// output of a sublayer, the branch, and `alpha` a learned number for each column:
///
/// ```text
/// unit(v) = v / max(|v|, eps)                 |v|: the 2-norm over the last axis
/// a = unit(r),  b = unit(x)
/// h = unit(a + m (b - a))                     m = |alpha_scale * alpha|
/// ```
///
/// `h` is the stream that goes on, and has the dtype of `r`. It is rounded once; everything before is in float32 (float64 for that).
/// `unit` is [`Normalize`](super::Normalize) of the last axis, and `a + m (b - a)` is taken as `(1 - m) a + m b`.
///
/// Backward, with `dh` the gradient of `h`, and the gradient of `unit` at `v` being `(g - u Σ g u) / |v|` with `u = unit(v)` where
/// `|v| > eps`, else `g / eps`:
///
/// ```text
/// g      = gradient of the outer unit, given dh
/// dr     = gradient of unit at r, given (1 - m) g
/// dx     = gradient of unit at x, given m g
/// dalpha = sgn(alpha_scale * alpha) * alpha_scale * (Σ g b - Σ g a)      over rows; sgn(0) = 0
/// ```
///
/// `x` and `r` have one shape, `alpha` that of the last axis. In nGPT's code alpha is a parameter times a number, the first kept at
/// another size for the optimizer's sake: [`alpha_scale`](HypersphereStep::alpha_scale) is that number.
///
/// On CUDA and WebGPU, backward takes memory of the size of `r` in float32 (float64 for that). On CUDA, rows that are too long for the
/// blocks that can meet are [`Error::Limit`]; on WebGPU, tensors of float64 are [`Error::UnsupportedDType`].
///
/// Source: Loshchilov et al. 2024 (arXiv 2410.01131).
///
/// ```
/// use normkit::norm::HypersphereStep;
/// use normkit::prelude::*;
/// let x = HostTensor::from_vec(vec![0.0f32, 5.0], &[1, 2])?;
/// let r = HostTensor::from_vec(vec![2.0f32, 0.0], &[1, 2])?;
/// let alpha = HostTensor::from_vec(vec![0.5f32, 0.5], &[2])?;
/// // Half of the way from (1, 0) to (0, 1), and back to length 1.
/// let step = HypersphereStep::new(&alpha);
/// let (h, saved) = step.forward_train(&r, &x)?;
/// assert!(h.to_f64().iter().all(|h| (h - 0.5f64.sqrt()).abs() < 1e-6));
/// let grads = step.backward(&h, &r, &x, &saved)?;
/// assert_eq!(grads.alpha.shape(), [2]);
/// # Ok::<(), normkit::Error>(())
/// ```
#[derive(Clone)]
pub struct HypersphereStep<'a> {
    alpha: Result<View<'a>>,
    alpha_scale: f64,
    eps: f64,
}

/// What a forward pass of a [`HypersphereStep`] writes the statistics of its norms to, each `[rows, 4]` and optional.
#[derive(Default)]
pub struct HypersphereStatistics<'a> {
    /// Of the stream that comes in.
    pub input: Option<ViewMut<'a>>,
    /// Of the sublayer's output.
    pub branch: Option<ViewMut<'a>>,
    /// Of what lies between the two.
    pub output: Option<ViewMut<'a>>,
}

/// Where a backward pass of a [`HypersphereStep`] writes its gradients; each is optional, and what is absent is not computed.
#[derive(Default)]
pub struct HypersphereGradients<'a> {
    /// Gradient of the stream that came in.
    pub input: Option<ViewMut<'a>>,
    /// Gradient of the sublayer's output.
    pub branch: Option<ViewMut<'a>>,
    /// Gradient of alpha.
    pub alpha: Option<ViewMut<'a>>,
}

/// What [`HypersphereStep::forward_train`] keeps for [`HypersphereStep::backward`]: statistics, `[rows, 4]` each.
#[derive(Debug, Clone)]
pub struct HypersphereSaved {
    /// Of the stream that came in.
    pub input: DeviceTensor,
    /// Of the sublayer's output.
    pub branch: DeviceTensor,
    /// Of what lies between the two.
    pub output: DeviceTensor,
}

/// The gradients that [`HypersphereStep::backward`] returns.
#[derive(Debug, Clone)]
pub struct HypersphereGrads<T> {
    /// Gradient of the stream that came in.
    pub input: T,
    /// Gradient of the sublayer's output.
    pub branch: T,
    /// Gradient of alpha.
    pub alpha: T,
}

/// The names that a step has for what its spec calls otherwise.
fn renamed(error: Error) -> Error {
    let name = |name| match name {
        "residual" => "branch",
        "grad_before" => "grad_branch",
        "statistics" => "output.statistics",
        "after.statistics" => "input.statistics",
        other => other,
    };
    match error {
        Error::Argument { name: of, expected, found } => Error::Argument { name: name(of), expected, found },
        Error::UnsupportedDType { name: of, dtype, backend } => {
            Error::UnsupportedDType { name: name(of), dtype, backend }
        }
        other => other,
    }
}

/// The spec of a step over tensors of this shape.
pub(crate) fn spec(shape: &[usize], eps: f64, alpha_scale: f64) -> Result<Spec> {
    Layout::contiguous(shape).checked_span()?;
    let Some(last) = shape.len().checked_sub(1).filter(|&last| shape[last] > 0) else {
        return Err(Error::argument("input", "elements along a last axis", format!("{shape:?}")));
    };
    if !alpha_scale.is_finite() {
        return Err(Error::argument("alpha_scale", "a finite number", alpha_scale));
    }
    let mut norm = Norm {
        shape: Dims::from_slice(shape),
        reduced: Dims::from_slice(&[last]),
        affine: affine_along(shape, &[last]),
        statistic: Statistic::Norm(2.0),
        prefix: shape[last],
        eps: check_eps(eps)?,
        eps_position: EpsPosition::Floor,
        weight_offset: 0.0,
        round_normalized: false,
        frozen: false,
        fusion: Fusion::default(),
    };
    norm.fusion = Fusion {
        prologue: Prologue::Residual { input_scale: 1.0, residual_scale: 1.0 },
        inner: Some(Inner::of(&norm)),
        mix: Some(Mix { alpha_scale }),
        ..Fusion::default()
    };
    Ok(Spec::Norm(norm))
}

impl<'a> HypersphereStep<'a> {
    /// With alpha's number for each column; `alpha_scale` is 1, eps 1e-12.
    pub fn new(alpha: &'a impl Tensor) -> Self {
        HypersphereStep { alpha: alpha.view(), alpha_scale: 1.0, eps: 1e-12 }
    }

    /// As [`new`](HypersphereStep::new), for a view.
    pub fn of_view(alpha: View<'a>) -> Self {
        HypersphereStep { alpha: Ok(alpha), alpha_scale: 1.0, eps: 1e-12 }
    }

    /// What alpha is multiplied by; a finite number.
    pub fn alpha_scale(mut self, alpha_scale: f64) -> Self {
        self.alpha_scale = alpha_scale;
        self
    }

    /// The least divisor of each of the norms. Not negative.
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    fn alpha(&self) -> Result<&View<'a>> {
        self.alpha.as_ref().map_err(Error::clone)
    }

    /// The spec for tensors of this shape, or what is wrong with the configuration. Its residual is the branch.
    pub fn lower(&self, shape: &[usize]) -> Result<Spec> {
        spec(shape, self.eps, self.alpha_scale).map_err(renamed)
    }

    /// Shape of the statistics of each norm, `[rows, 4]`. Their dtype is the stream's [`compute`](DType::compute).
    pub fn statistics_shape(&self, shape: &[usize]) -> Result<[usize; 2]> {
        Ok([self.lower(shape)?.rows(), STATISTICS])
    }

    /// Bytes of scratch that a backward pass over tensors of `shape` needs at most; `dtype` is that of the stream.
    pub fn workspace_size(&self, shape: &[usize], dtype: DType) -> Result<usize> {
        Ok(backend::workspace_size(&self.lower(shape)?, dtype))
    }

    /// The step's other operand, to the spec.
    fn parameters<'p>(spec: &Spec, branch: &View<'p>) -> Parameters<'p> {
        Parameters { fusion: spec.fusion(), before: Some(branch.clone()), ..Parameters::default() }
    }

    /// Writes `h` to `output`, which has shape and dtype of the input, and the statistics that backward needs to `statistics`.
    ///
    /// **In place:** `output` may be exactly the input or the branch; see [`ViewMut::in_place`].
    pub fn forward_into<'v>(
        &'v self,
        input: &'v View<'v>,
        branch: &'v View<'v>,
        output: &'v mut ViewMut<'_>,
        statistics: HypersphereStatistics<'v>,
        stream: &Stream<'_>,
    ) -> Result<()> {
        let spec = self.lower(input.shape())?;
        let none = Parameters::default();
        let parameters = Self::parameters(&spec, branch);
        let arguments = ForwardArguments {
            output: Some(output.reborrow()),
            statistics: statistics.output,
            inner: Some(InnerArguments { parameters: &none, statistics: statistics.input }),
            mix: Some(MixArguments { alpha: self.alpha()?, statistics: statistics.branch }),
            ..ForwardArguments::new(input)
        };
        let operands = arguments::forward(&spec, &parameters, arguments, stream).map_err(renamed)?;
        backend::forward(&spec, operands, stream)
    }

    /// Writes the gradients that `grads` asks for, given that of `h` and the statistics that the forward pass saved: of the input, of
    /// the branch and of the output.
    ///
    /// **In place:** the gradient of the input may be exactly `grad_output`.
    pub fn backward_into<'v>(
        &'v self,
        grad_output: &'v View<'v>,
        input: &'v View<'v>,
        branch: &'v View<'v>,
        [of_input, of_branch, of_output]: [&'v View<'v>; 3],
        grads: HypersphereGradients<'v>,
        workspace: &mut Workspace,
        stream: &Stream<'_>,
    ) -> Result<()> {
        let spec = self.lower(input.shape())?;
        let none = Parameters::default();
        let parameters = Self::parameters(&spec, branch);
        let inner = InnerBackwardArguments {
            parameters: &none,
            statistics: of_input,
            hidden: None,
            grad_weight: None,
            grad_bias: None,
        };
        let mix =
            MixBackwardArguments { alpha: self.alpha()?, statistics: of_branch, grad_alpha: grads.alpha };
        let of_norm = Gradients { input: grads.input, before: grads.branch, ..Gradients::default() };
        let arguments = BackwardArguments {
            statistics: Some(of_output),
            inner: Some(inner),
            mix: Some(mix),
            ..BackwardArguments::new(grad_output, input, of_norm)
        };
        let operands = arguments::backward(&spec, &parameters, arguments, stream).map_err(renamed)?;
        backend::backward(&spec, operands, workspace, stream)
    }

    /// `h`.
    pub fn forward<T: Tensor>(&self, input: &T, branch: &T) -> Result<T> {
        self.run(input, branch, HypersphereStatistics::default())
    }

    /// `h`, and what [`backward`](HypersphereStep::backward) needs.
    pub fn forward_train<T: Tensor>(&self, input: &T, branch: &T) -> Result<(T, HypersphereSaved)> {
        let view = input.view()?;
        let shape = self.statistics_shape(view.shape())?;
        let zeros = || input.device().zeros(&shape, view.dtype().compute());
        let mut saved = HypersphereSaved { input: zeros()?, branch: zeros()?, output: zeros()? };
        let statistics = HypersphereStatistics {
            input: Some(saved.input.view_mut()?),
            branch: Some(saved.branch.view_mut()?),
            output: Some(saved.output.view_mut()?),
        };
        let output = self.run(input, branch, statistics)?;
        Ok((output, saved))
    }

    fn run<T: Tensor>(&self, input: &T, branch: &T, statistics: HypersphereStatistics<'_>) -> Result<T> {
        let (of_input, of_branch) = (input.view()?, branch.view()?);
        let mut output = input.empty(of_input.shape(), of_input.dtype())?;
        let stream = input.device().stream();
        self.forward_into(&of_input, &of_branch, &mut output.view_mut()?, statistics, &stream)?;
        Ok(output)
    }

    /// The gradients of the stream that came in, of the sublayer's output and of alpha, given that of `h`.
    pub fn backward<T: Tensor>(
        &self,
        grad_output: &T,
        input: &T,
        branch: &T,
        saved: &HypersphereSaved,
    ) -> Result<HypersphereGrads<T>> {
        let alpha = self.alpha()?;
        let (of_input, of_branch) = (input.view()?, branch.view()?);
        let mut grads = HypersphereGrads {
            input: input.empty(of_input.shape(), of_input.dtype())?,
            branch: input.empty(of_branch.shape(), of_branch.dtype())?,
            alpha: input.empty(alpha.shape(), alpha.dtype())?,
        };
        let targets = HypersphereGradients {
            input: Some(grads.input.view_mut()?),
            branch: Some(grads.branch.view_mut()?),
            alpha: Some(grads.alpha.view_mut()?),
        };
        let statistics = [saved.input.view()?, saved.branch.view()?, saved.output.view()?];
        self.backward_into(
            &grad_output.view()?,
            &of_input,
            &of_branch,
            statistics.each_ref(),
            targets,
            &mut Workspace::new(),
            &input.device().stream(),
        )?;
        Ok(grads)
    }
}
