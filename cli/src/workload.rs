//! A method with all its tensors allocated, forward and backward, ready to be run again and again.

use crate::device::Place;
use crate::failure::Result;
use crate::method::{self, Around, MethodName, Settings, Tensors};
use normkit::spec::{Epilogue, Fusion, Prologue};
use normkit::tensor::{DType, HostTensor, Layout, Tensor, View, ViewMut};
use normkit::{DeviceTensor, Gradients, Method, Stream, Workspace};

/// What a workload computes with, in host memory.
pub(crate) struct Operands {
    pub(crate) input: HostTensor,
    pub(crate) grad_output: HostTensor,
    pub(crate) weight: Option<HostTensor>,
    pub(crate) bias: Option<HostTensor>,
    pub(crate) alpha: Option<HostTensor>,
    pub(crate) around: AroundOperands,
}

/// What surrounds the norm, with tensors of the input's shape: what that needs, and the gradient of what is normalized.
#[derive(Default)]
pub(crate) struct AroundOperands {
    pub(crate) fusion: Fusion,
    pub(crate) before: Option<HostTensor>,
    pub(crate) after: Option<HostTensor>,
    pub(crate) grad_hidden: Option<HostTensor>,
}

/// A forward and a backward pass over operands in a device's memory.
pub(crate) struct Workload {
    method: MethodName,
    settings: Settings,
    /// How input, output and their gradients lie in memory.
    layout: Layout,
    dtype: DType,
    input: DeviceTensor,
    grad_output: DeviceTensor,
    parameters: Parameters,
    output: DeviceTensor,
    statistics: Option<DeviceTensor>,
    grad_input: DeviceTensor,
    grad_parameters: Parameters,
    around: Surrounding,
    workspace: Workspace,
    stream: Stream<'static>,
}

/// What surrounds the norm.
struct Surrounding {
    fusion: Fusion,
    before: Option<DeviceTensor>,
    after: Option<DeviceTensor>,
    hidden: Option<DeviceTensor>,
    grad_hidden: Option<DeviceTensor>,
    grad_before: Option<DeviceTensor>,
    grad_after: Option<DeviceTensor>,
    /// Backward reads the hidden value and not what it is the sum of.
    is_exact: bool,
}

impl Surrounding {
    /// The operands, in `layout`.
    fn around(&self, layout: &Layout, is_backward: bool) -> Result<Around<'_>> {
        let before = if is_backward && self.is_exact { &None } else { &self.before };
        Ok(Around {
            fusion: self.fusion,
            before: laid_out(viewed(before)?, layout)?,
            after: laid_out(viewed(&self.after)?, layout)?,
        })
    }
}

fn laid_out<'a>(view: Option<View<'a>>, layout: &Layout) -> Result<Option<View<'a>>> {
    Ok(view.map(|view| view.with_layout(layout.clone())).transpose()?)
}

fn laid_out_mut<'a>(view: Option<ViewMut<'a>>, layout: &Layout) -> Result<Option<ViewMut<'a>>> {
    Ok(view.map(|view| view.with_layout(layout.clone())).transpose()?)
}

/// The learned tensors, or their gradients.
struct Parameters {
    weight: Option<DeviceTensor>,
    bias: Option<DeviceTensor>,
    alpha: Option<DeviceTensor>,
}

fn viewed(tensor: &Option<DeviceTensor>) -> Result<Option<View<'_>>> {
    Ok(tensor.as_ref().map(Tensor::view).transpose()?)
}

fn viewed_mut(tensor: &mut Option<DeviceTensor>) -> Result<Option<ViewMut<'_>>> {
    Ok(tensor.as_mut().map(Tensor::view_mut).transpose()?)
}

impl Parameters {
    /// The method with these parameters, for inputs of `shape`.
    fn method<'a>(
        &'a self,
        name: MethodName,
        shape: &[usize],
        settings: &Settings,
        around: Around<'a>,
    ) -> Result<Box<dyn Method + 'a>> {
        let (weight, bias, alpha) = (viewed(&self.weight)?, viewed(&self.bias)?, viewed(&self.alpha)?);
        let normalized = match weight.as_ref().or(bias.as_ref()) {
            Some(parameter) => parameter.shape().to_vec(),
            None => shape[shape.len().saturating_sub(1)..].to_vec(),
        };
        method::build(
            name,
            shape,
            &normalized,
            settings,
            Tensors { weight, bias, alpha, running: None, around },
        )
    }

    fn zeros_like(&self) -> Result<Self> {
        let like = |tensor: &Option<DeviceTensor>| -> Result<Option<DeviceTensor>> {
            let Some(tensor) = tensor else { return Ok(None) };
            let view = tensor.view()?;
            Ok(Some(tensor.empty(view.shape(), view.dtype())?))
        };
        Ok(Parameters { weight: like(&self.weight)?, bias: like(&self.bias)?, alpha: like(&self.alpha)? })
    }
}

impl Workload {
    /// Moves `operands` to `place` and allocates the results. `layout` says how tensors of the input's shape lie in
    /// memory, without gaps.
    pub(crate) fn new(
        place: &Place,
        method: MethodName,
        settings: Settings,
        layout: Layout,
        operands: Operands,
    ) -> Result<Self> {
        let (device, dtype) = (place.device(), operands.input.dtype());
        let shape = layout.shape();
        let upload = |tensor: Option<HostTensor>| tensor.map(|tensor| device.upload(&tensor)).transpose();
        let parameters = Parameters {
            weight: upload(operands.weight)?,
            bias: upload(operands.bias)?,
            alpha: upload(operands.alpha)?,
        };
        let AroundOperands { fusion, before, after, grad_hidden } = operands.around;
        let is_exact = fusion.prologue.operand() == Some("residual") && dtype == dtype.compute();
        let mut around = Surrounding {
            fusion,
            before: upload(before)?,
            after: upload(after)?,
            hidden: None,
            grad_hidden: upload(grad_hidden)?,
            grad_before: None,
            grad_after: None,
            is_exact,
        };
        let like = |has: bool| has.then(|| device.zeros(shape, dtype)).transpose();
        around.hidden = like(around.grad_hidden.is_some())?;
        // The gradient of a residual is that of what it is added to.
        around.grad_before = like(fusion.prologue == Prologue::Gate)?;
        around.grad_after = like(fusion.epilogue == Epilogue::Gate)?;
        let applied = parameters.method(method, shape, &settings, around.around(&layout, false)?)?;
        let statistics = applied.statistics_shape(shape, dtype)?;
        let workspace = applied.workspace_size(shape, dtype)?;
        drop(applied);
        Ok(Workload {
            method,
            settings,
            dtype,
            input: device.upload(&operands.input)?,
            grad_output: device.upload(&operands.grad_output)?,
            output: device.zeros(shape, dtype)?,
            statistics: statistics.map(|shape| device.zeros(&shape, dtype.compute())).transpose()?,
            grad_input: device.zeros(shape, dtype)?,
            grad_parameters: parameters.zeros_like()?,
            parameters,
            around,
            workspace: Workspace::with_capacity(device, workspace)?,
            stream: place.stream()?,
            layout,
        })
    }

    /// Launches the forward pass as inference runs it: without keeping statistics.
    pub(crate) fn forward(&mut self) -> Result<()> {
        self.run_forward(false)
    }

    /// Launches the forward pass as training runs it: with the statistics that [`backward`](Self::backward) needs.
    pub(crate) fn forward_train(&mut self) -> Result<()> {
        self.run_forward(true)
    }

    fn run_forward(&mut self, keeps: bool) -> Result<()> {
        let mut hidden = self.around.hidden.take();
        let around = self.around.around(&self.layout, false)?;
        let method = self.parameters.method(self.method, self.layout.shape(), &self.settings, around)?;
        let mut statistics = if keeps { viewed_mut(&mut self.statistics)? } else { None };
        let input = self.input.view()?.with_layout(self.layout.clone())?;
        let mut output = self.output.view_mut()?.with_layout(self.layout.clone())?;
        let mut hidden_view = laid_out_mut(viewed_mut(&mut hidden)?, &self.layout)?;
        method.forward_hidden_into(
            &input,
            &mut output,
            hidden_view.as_mut(),
            statistics.as_mut(),
            &self.stream,
        )?;
        drop(hidden_view);
        drop(method);
        self.around.hidden = hidden;
        Ok(())
    }

    /// Launches the backward pass, with the gradients of the input and of every parameter.
    pub(crate) fn backward(&mut self) -> Result<()> {
        let (mut grad_before, mut grad_after) =
            (self.around.grad_before.take(), self.around.grad_after.take());
        let around = self.around.around(&self.layout, true)?;
        let method = self.parameters.method(self.method, self.layout.shape(), &self.settings, around)?;
        let gradients = Gradients {
            input: Some(self.grad_input.view_mut()?.with_layout(self.layout.clone())?),
            weight: viewed_mut(&mut self.grad_parameters.weight)?,
            bias: viewed_mut(&mut self.grad_parameters.bias)?,
            alpha: viewed_mut(&mut self.grad_parameters.alpha)?,
            before: laid_out_mut(viewed_mut(&mut grad_before)?, &self.layout)?,
            after: laid_out_mut(viewed_mut(&mut grad_after)?, &self.layout)?,
            ..Gradients::default()
        };
        let statistics = viewed(&self.statistics)?;
        let grad_output = self.grad_output.view()?.with_layout(self.layout.clone())?;
        let input = if self.around.is_exact { self.around.hidden.as_ref() } else { None };
        let input = input.unwrap_or(&self.input).view()?.with_layout(self.layout.clone())?;
        let grad_hidden = laid_out(viewed(&self.around.grad_hidden)?, &self.layout)?;
        let workspace = &mut self.workspace;
        method.backward_hidden_into(
            &grad_output,
            grad_hidden.as_ref(),
            &input,
            statistics.as_ref(),
            gradients,
            workspace,
            &self.stream,
        )?;
        drop(method);
        (self.around.grad_before, self.around.grad_after) = (grad_before, grad_after);
        Ok(())
    }

    /// The input's dtype.
    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn output(&self) -> &DeviceTensor {
        &self.output
    }

    pub(crate) fn grad_input(&self) -> &DeviceTensor {
        &self.grad_input
    }
}
