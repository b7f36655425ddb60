//! A method with all its tensors allocated, forward and backward, ready to be run again and again.

use crate::device::Place;
use crate::failure::Result;
use crate::method::{self, MethodName, Settings, Tensors};
use normkit::tensor::{HostTensor, Layout, Tensor, View, ViewMut};
use normkit::{DeviceTensor, Gradients, Method, Stream, Workspace};

/// What a workload computes with, in host memory.
pub(crate) struct Operands {
    pub(crate) input: HostTensor,
    pub(crate) grad_output: HostTensor,
    pub(crate) weight: Option<HostTensor>,
    pub(crate) bias: Option<HostTensor>,
    pub(crate) alpha: Option<HostTensor>,
}

/// A forward and a backward pass over operands in a device's memory.
pub(crate) struct Workload {
    method: MethodName,
    settings: Settings,
    /// How input, output and their gradients lie in memory.
    layout: Layout,
    input: DeviceTensor,
    grad_output: DeviceTensor,
    parameters: Parameters,
    output: DeviceTensor,
    statistics: Option<DeviceTensor>,
    grad_input: DeviceTensor,
    grad_parameters: Parameters,
    workspace: Workspace,
    stream: Stream<'static>,
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
    ) -> Result<Box<dyn Method + 'a>> {
        let (weight, bias, alpha) = (viewed(&self.weight)?, viewed(&self.bias)?, viewed(&self.alpha)?);
        let normalized = match weight.as_ref().or(bias.as_ref()) {
            Some(parameter) => parameter.shape().to_vec(),
            None => shape[shape.len().saturating_sub(1)..].to_vec(),
        };
        method::build(name, shape, &normalized, settings, Tensors { weight, bias, alpha, running: None })
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
        let applied = parameters.method(method, shape, &settings)?;
        let statistics = applied.statistics_shape(shape, dtype)?;
        let workspace = applied.workspace_size(shape, dtype)?;
        drop(applied);
        Ok(Workload {
            method,
            settings,
            input: device.upload(&operands.input)?,
            grad_output: device.upload(&operands.grad_output)?,
            output: device.zeros(shape, dtype)?,
            statistics: statistics.map(|shape| device.zeros(&shape, dtype.compute())).transpose()?,
            grad_input: device.zeros(shape, dtype)?,
            grad_parameters: parameters.zeros_like()?,
            parameters,
            workspace: Workspace::with_capacity(device, workspace)?,
            stream: place.stream()?,
            layout,
        })
    }

    /// Launches the forward pass as inference runs it: without keeping statistics.
    pub(crate) fn forward(&mut self) -> Result<()> {
        let method = self.parameters.method(self.method, self.layout.shape(), &self.settings)?;
        let input = self.input.view()?.with_layout(self.layout.clone())?;
        let mut output = self.output.view_mut()?.with_layout(self.layout.clone())?;
        method.forward_into(&input, &mut output, None, &self.stream)?;
        Ok(())
    }

    /// Launches the forward pass as training runs it: with the statistics that [`backward`](Self::backward) needs.
    pub(crate) fn forward_train(&mut self) -> Result<()> {
        let method = self.parameters.method(self.method, self.layout.shape(), &self.settings)?;
        let mut statistics = viewed_mut(&mut self.statistics)?;
        let input = self.input.view()?.with_layout(self.layout.clone())?;
        let mut output = self.output.view_mut()?.with_layout(self.layout.clone())?;
        method.forward_into(&input, &mut output, statistics.as_mut(), &self.stream)?;
        Ok(())
    }

    /// Launches the backward pass, with the gradients of the input and of every parameter.
    pub(crate) fn backward(&mut self) -> Result<()> {
        let method = self.parameters.method(self.method, self.layout.shape(), &self.settings)?;
        let gradients = Gradients {
            input: Some(self.grad_input.view_mut()?.with_layout(self.layout.clone())?),
            weight: viewed_mut(&mut self.grad_parameters.weight)?,
            bias: viewed_mut(&mut self.grad_parameters.bias)?,
            alpha: viewed_mut(&mut self.grad_parameters.alpha)?,
            ..Gradients::default()
        };
        let statistics = viewed(&self.statistics)?;
        let grad_output = self.grad_output.view()?.with_layout(self.layout.clone())?;
        let input = self.input.view()?.with_layout(self.layout.clone())?;
        let workspace = &mut self.workspace;
        method.backward_into(
            &grad_output,
            &input,
            statistics.as_ref(),
            gradients,
            workspace,
            &self.stream,
        )?;
        Ok(())
    }

    pub(crate) fn output(&self) -> &DeviceTensor {
        &self.output
    }

    pub(crate) fn grad_input(&self) -> &DeviceTensor {
        &self.grad_input
    }
}
