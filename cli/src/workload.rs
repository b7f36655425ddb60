//! A method with all its tensors allocated, forward and backward, ready to be run again and again.

use crate::device::Place;
use crate::failure::Result;
use crate::method::{self, MethodName, Settings, Tensors};
use normkit::tensor::{HostTensor, Tensor};
use normkit::{DeviceTensor, Gradients, Method, Stream, Workspace};

/// What a workload computes with, in host memory.
pub(crate) struct Operands {
    pub(crate) input: HostTensor,
    pub(crate) grad_output: HostTensor,
    pub(crate) weight: HostTensor,
    pub(crate) bias: Option<HostTensor>,
    pub(crate) alpha: Option<HostTensor>,
}

/// A forward and a backward pass over operands in a device's memory.
pub(crate) struct Workload {
    method: MethodName,
    settings: Settings,
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
    weight: DeviceTensor,
    bias: Option<DeviceTensor>,
    alpha: Option<DeviceTensor>,
}

impl Parameters {
    /// The method with these parameters.
    fn method<'a>(&'a self, name: MethodName, settings: &Settings) -> Result<Box<dyn Method + 'a>> {
        let tensors = Tensors {
            weight: Some(self.weight.view()?),
            bias: self.bias.as_ref().map(Tensor::view).transpose()?,
            alpha: self.alpha.as_ref().map(Tensor::view).transpose()?,
        };
        let normalized_shape = tensors.weight.as_ref().map_or(Vec::new(), |w| w.shape().to_vec());
        Ok(method::build(name, &normalized_shape, settings, tensors))
    }

    fn zeros_like(&self) -> Result<Self> {
        let like = |tensor: &DeviceTensor| {
            let view = tensor.view()?;
            tensor.empty(view.shape(), view.dtype())
        };
        Ok(Parameters {
            weight: like(&self.weight)?,
            bias: self.bias.as_ref().map(like).transpose()?,
            alpha: self.alpha.as_ref().map(like).transpose()?,
        })
    }
}

impl Workload {
    /// Moves `operands` to `place` and allocates the results.
    pub(crate) fn new(
        place: &Place,
        method: MethodName,
        settings: Settings,
        operands: Operands,
    ) -> Result<Self> {
        let (shape, dtype) = (operands.input.shape().to_vec(), operands.input.dtype());
        let parameters = Parameters {
            weight: place.upload(operands.weight)?,
            bias: operands.bias.map(|bias| place.upload(bias)).transpose()?,
            alpha: operands.alpha.map(|alpha| place.upload(alpha)).transpose()?,
        };
        let applied = parameters.method(method, &settings)?;
        let statistics = applied.statistics_shape(&shape, dtype)?;
        let workspace = applied.workspace_size(&shape, dtype)?;
        drop(applied);
        let device = place.device();
        Ok(Workload {
            method,
            settings,
            input: place.upload(operands.input)?,
            grad_output: place.upload(operands.grad_output)?,
            output: device.zeros(&shape, dtype)?,
            statistics: statistics.map(|shape| device.zeros(&shape, dtype.compute())).transpose()?,
            grad_input: device.zeros(&shape, dtype)?,
            grad_parameters: parameters.zeros_like()?,
            parameters,
            workspace: Workspace::with_capacity(device, workspace)?,
            stream: place.stream()?,
        })
    }

    /// Launches the forward pass as inference runs it: without keeping statistics.
    pub(crate) fn forward(&mut self) -> Result<()> {
        let method = self.parameters.method(self.method, &self.settings)?;
        method.forward_into(&self.input.view()?, &mut self.output.view_mut()?, None, &self.stream)?;
        Ok(())
    }

    /// Launches the forward pass as training runs it: with the statistics that [`backward`](Self::backward) needs.
    pub(crate) fn forward_train(&mut self) -> Result<()> {
        let method = self.parameters.method(self.method, &self.settings)?;
        let mut statistics = self.statistics.as_mut().map(Tensor::view_mut).transpose()?;
        method.forward_into(
            &self.input.view()?,
            &mut self.output.view_mut()?,
            statistics.as_mut(),
            &self.stream,
        )?;
        Ok(())
    }

    /// Launches the backward pass, with the gradients of the input and of every parameter.
    pub(crate) fn backward(&mut self) -> Result<()> {
        let method = self.parameters.method(self.method, &self.settings)?;
        let gradients = Gradients {
            input: Some(self.grad_input.view_mut()?),
            weight: Some(self.grad_parameters.weight.view_mut()?),
            bias: self.grad_parameters.bias.as_mut().map(Tensor::view_mut).transpose()?,
            alpha: self.grad_parameters.alpha.as_mut().map(Tensor::view_mut).transpose()?,
        };
        let statistics = self.statistics.as_ref().map(Tensor::view).transpose()?;
        let (grad_output, input) = (self.grad_output.view()?, self.input.view()?);
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
