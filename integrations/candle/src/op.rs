//! Norms as candle's custom operators.
//!
//! candle's operators have one result and at most three arguments, and their backward pass returns a gradient for each: so one pass over
//! memory gives all of them. What it needs of the forward pass, the statistics, waits in the operator. A method with more parameters than
//! fit has its weight and bias stacked to one argument ([`Role::WeightAndBias`]), whose gradient candle takes apart.

use crate::storage::{fault, halves_mut, on_cpu, tensor, view, view_mut, zeros};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
use normkit::norm::{Gradients, RunningViews};
use normkit::spec::{MOMENTS, STATISTICS};
use normkit::tensor::{HostTensor, Tensor as _, View};
use normkit::{BatchNorm, Device, Method, Workspace};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What an argument after the input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Weight,
    Bias,
    Alpha,
    /// `[2, ...]`: both.
    WeightAndBias,
}

/// The parameters of a call, as views.
#[derive(Default)]
pub(crate) struct Parts<'a> {
    pub(crate) weight: Option<View<'a>>,
    pub(crate) bias: Option<View<'a>>,
    pub(crate) alpha: Option<View<'a>>,
}

/// Makes the method of a call from its parameters.
pub(crate) type Build = dyn for<'a> Fn(Parts<'a>) -> normkit::Result<Box<dyn Method + 'a>> + Send + Sync;

/// Running statistics that a training pass moves.
pub(crate) struct Running {
    pub(crate) mean: HostTensor,
    pub(crate) var: HostTensor,
    pub(crate) factor: f64,
}

/// A norm whose arguments are the input and, in this order, tensors of these roles.
pub(crate) struct Op {
    pub(crate) name: &'static str,
    pub(crate) roles: Vec<Role>,
    pub(crate) build: Box<Build>,
    /// Whether a backward pass can come.
    pub(crate) keeps: bool,
    /// A batch norm in training, with its channels and eps, whose running statistics move.
    pub(crate) running: Option<(usize, f64, Arc<Mutex<Running>>)>,
    pub(crate) statistics: OnceLock<HostTensor>,
}

/// Scratch memory of earlier backward passes, for later ones.
static SCRATCH: Mutex<Vec<Workspace>> = Mutex::new(Vec::new());

/// Runs `body` with scratch memory that nobody else uses meanwhile.
pub(crate) fn with_workspace<R>(body: impl FnOnce(&mut Workspace) -> R) -> R {
    let lock = || SCRATCH.lock().unwrap_or_else(PoisonError::into_inner);
    let mut workspace = lock().pop().unwrap_or_default();
    let result = body(&mut workspace);
    lock().push(workspace);
    result
}

/// Binds those of the parameters that there are.
macro_rules! bound {
    ($norm:expr, $($call:ident: $view:expr),*) => {{
        let mut norm = $norm;
        $(if let Some(view) = $view {
            norm = norm.$call(view);
        })*
        norm
    }};
}
pub(crate) use bound;

impl Op {
    pub(crate) fn new<F>(name: &'static str, build: F) -> Self
    where
        F: for<'a> Fn(Parts<'a>) -> normkit::Result<Box<dyn Method + 'a>> + Send + Sync + 'static,
    {
        let (roles, statistics) = (Vec::new(), OnceLock::new());
        Op { name, roles, build: Box::new(build), keeps: false, running: None, statistics }
    }

    /// The result on an input and further arguments with their roles.
    pub(crate) fn apply(mut self, input: &Tensor, rest: &[(Role, &Tensor)]) -> Result<Tensor> {
        self.keeps = input.track_op() || rest.iter().any(|(_, tensor)| tensor.track_op());
        self.roles = rest.iter().map(|(role, _)| *role).collect();
        match rest {
            [] => input.apply_op1(self),
            [(_, second)] => input.apply_op2(second, self),
            [(_, second), (_, third)] => input.apply_op3(second, third, self),
            _ => Err(candle_core::Error::Msg(format!("{}: expected at most three tensors", self.name)).bt()),
        }
    }

    fn parts<'a>(&self, views: impl Iterator<Item = View<'a>>) -> normkit::Result<Parts<'a>> {
        let mut parts = Parts::default();
        for (role, view) in self.roles.iter().zip(views) {
            match role {
                Role::Weight => parts.weight = Some(view),
                Role::Bias => parts.bias = Some(view),
                Role::Alpha => parts.alpha = Some(view),
                Role::WeightAndBias => {
                    let half = |index: usize| {
                        let layout = view.layout().clone().sliced(0, index..index + 1, 1)?;
                        let shape = layout.shape()[1..].to_vec();
                        // Dropping an axis of size 1 always works.
                        let layout = layout.reshaped(&shape).unwrap_or(layout);
                        view.clone().with_layout(layout)
                    };
                    (parts.weight, parts.bias) = (Some(half(0)?), Some(half(1)?));
                }
            }
        }
        Ok(parts)
    }

    fn forward(&self, arguments: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)> {
        let op = self.name;
        let views = arguments.iter().map(|(storage, layout)| view(op, storage, layout));
        let mut views = views.collect::<Result<Vec<_>>>()?.into_iter();
        let Some(input) = views.next() else {
            return Err(candle_core::Error::Msg(format!("{op}: expected an input")).bt());
        };
        let (storage, layout) = arguments[0];
        let dtype = candle_core::backend::BackendStorage::dtype(storage);
        let mut output = zeros(op, dtype, layout.shape().elem_count())?;
        self.run(&input, self.parts(views).map_err(|error| fault(op, error))?, &mut output, layout.dims())?;
        Ok((output, layout.shape().clone()))
    }

    fn run(
        &self,
        input: &View<'_>,
        parts: Parts<'_>,
        output: &mut CpuStorage,
        shape: &[usize],
    ) -> Result<()> {
        let (op, stream, compute) = (self.name, Device::Cpu.stream(), input.dtype().compute());
        let fault = |error| fault(op, error);
        let mut output = view_mut(op, output, shape)?;
        if let Some((channels, eps, running)) = &self.running {
            let norm =
                bound!(BatchNorm::new(*channels).eps(*eps), weight_view: parts.weight, bias_view: parts.bias);
            // What is wrong with the input is said before memory for channels that it may not have is made.
            norm.lower(shape, input.dtype()).map_err(fault)?;
            let mut statistics = HostTensor::zeros(&[*channels, STATISTICS], compute).map_err(fault)?;
            let mut moments = HostTensor::zeros(&[*channels, MOMENTS], compute).map_err(fault)?;
            let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
            let Running { mean, var, factor } = &mut *running;
            let views = RunningViews {
                mean: mean.view_mut().map_err(fault)?,
                var: var.view_mut().map_err(fault)?,
                factor: *factor,
            };
            let (of_rows, of_parts) =
                (&mut statistics.view_mut().map_err(fault)?, &mut moments.view_mut().map_err(fault)?);
            norm.train_into(input, &mut output, of_rows, of_parts, views, &stream).map_err(fault)?;
            self.keep(Some(statistics));
            return Ok(());
        }
        let method = (self.build)(parts).map_err(fault)?;
        let rows =
            if self.keeps { method.statistics_shape(shape, input.dtype()).map_err(fault)? } else { None };
        let mut statistics =
            rows.map(|shape| HostTensor::zeros(&shape, compute)).transpose().map_err(fault)?;
        let mut of_rows = statistics.as_mut().map(|tensor| tensor.view_mut()).transpose().map_err(fault)?;
        method.forward_into(input, &mut output, of_rows.as_mut(), &stream).map_err(fault)?;
        drop(of_rows);
        self.keep(statistics);
        Ok(())
    }

    fn keep(&self, statistics: Option<HostTensor>) {
        if let Some(statistics) = statistics.filter(|_| self.keeps) {
            // An operator is applied once.
            let _ = self.statistics.set(statistics);
        }
    }

    /// The gradients of the arguments that need one, given that of the result: in one pass.
    fn backward(&self, arguments: &[&Tensor], grad: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let op = self.name;
        let fault = |error| fault(op, error);
        let (grad_storage, grad_layout) = grad.storage_and_layout();
        let grad_output = view(op, on_cpu(op, &grad_storage)?, grad_layout)?;
        let lent: Vec<_> = arguments.iter().map(|tensor| tensor.storage_and_layout()).collect();
        let views = lent.iter().map(|(storage, layout)| view(op, on_cpu(op, storage)?, layout));
        let mut views = views.collect::<Result<Vec<_>>>()?.into_iter();
        let Some(input) = views.next() else { return Ok(Vec::new()) };
        let method = self.parts(views).and_then(|parts| (self.build)(parts)).map_err(fault)?;

        let fresh = arguments.iter().map(|tensor| {
            let wanted = tensor.track_op();
            wanted.then(|| zeros(op, tensor.dtype(), tensor.elem_count())).transpose()
        });
        let mut fresh = fresh.collect::<Result<Vec<_>>>()?;
        let mut grads = Gradients::default();
        for (index, (storage, tensor)) in fresh.iter_mut().zip(arguments).enumerate() {
            let Some(storage) = storage else { continue };
            let role = index.checked_sub(1).and_then(|index| self.roles.get(index));
            match role {
                None => grads.input = Some(view_mut(op, storage, tensor.dims())?),
                Some(Role::Weight) => grads.weight = Some(view_mut(op, storage, tensor.dims())?),
                Some(Role::Bias) => grads.bias = Some(view_mut(op, storage, tensor.dims())?),
                Some(Role::Alpha) => grads.alpha = Some(view_mut(op, storage, tensor.dims())?),
                Some(Role::WeightAndBias) => {
                    let (weight, bias) = halves_mut(op, storage, &tensor.dims()[1..])?;
                    (grads.weight, grads.bias) = (Some(weight), Some(bias));
                }
            }
        }
        let statistics = self.statistics.get().map(|tensor| tensor.view()).transpose().map_err(fault)?;
        with_workspace(|workspace| {
            let stream = Device::Cpu.stream();
            method.backward_into(&grad_output, &input, statistics.as_ref(), grads, workspace, &stream)
        })
        .map_err(fault)?;
        let made = fresh.into_iter().zip(arguments);
        made.map(|(storage, like)| storage.map(|storage| tensor(op, storage, like.shape())).transpose())
            .collect()
    }
}

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(&[(s1, l1)])
    }

    fn bwd(&self, input: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(self.backward(&[input], grad)?.pop().flatten())
    }
}

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward(&[(s1, l1), (s2, l2)])
    }

    fn bwd(
        &self,
        input: &Tensor,
        second: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut grads = self.backward(&[input, second], grad)?.into_iter();
        let mut next = || grads.next().flatten();
        Ok((next(), next()))
    }
}

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward(&[(s1, l1), (s2, l2), (s3, l3)])
    }

    fn bwd(
        &self,
        input: &Tensor,
        second: &Tensor,
        third: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut grads = self.backward(&[input, second, third], grad)?.into_iter();
        let mut next = || grads.next().flatten();
        Ok((next(), next(), next()))
    }
}
