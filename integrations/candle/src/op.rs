//! Norms as candle's custom operators.
//!
//! candle's operators have one result and at most three arguments, and their backward pass returns a gradient for each: so one pass over
//! memory gives all of them. What it needs of the forward pass, the statistics, waits in the operator. A method with more parameters than
//! fit has its weight and bias stacked to one argument ([`Role::WeightAndBias`]), whose gradient candle takes apart.

use crate::memory::{Memory, beside, compute, fault, tensor};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
use normkit::norm::{Gradients, RunningViews};
use normkit::spec::{MOMENTS, STATISTICS};
use normkit::tensor::{View, ViewMut};
use normkit::{BatchNorm, Method, Stream, Workspace};
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
    /// Of a batch norm, the mean and the variance, which are constants, and where the method's launches go.
    pub(crate) frozen: Option<(View<'a>, View<'a>, &'a Stream<'a>)>,
}

/// Makes the method of a call from its parameters.
pub(crate) type Build = dyn for<'a> Fn(Parts<'a>) -> normkit::Result<Box<dyn Method + 'a>> + Send + Sync;

/// Running statistics that a training pass moves.
pub(crate) struct Running {
    pub(crate) channels: usize,
    pub(crate) eps: f64,
    pub(crate) factor: f64,
    /// Mean and variance, `[channels]`, of the dtype that is computed in.
    pub(crate) before: [Tensor; 2],
    /// The same after the pass.
    pub(crate) after: Moved,
}

/// Mean and variance that a pass has moved.
pub(crate) type Moved = Arc<Mutex<Option<[Tensor; 2]>>>;

/// A norm whose arguments are the input and, in this order, tensors of these roles.
pub(crate) struct Op {
    pub(crate) name: &'static str,
    pub(crate) roles: Vec<Role>,
    pub(crate) build: Box<Build>,
    /// Whether a backward pass can come.
    pub(crate) keeps: bool,
    /// A batch norm in training, whose running statistics move.
    pub(crate) running: Option<Running>,
    /// Those of a batch norm that are constants.
    pub(crate) frozen: Option<[Tensor; 2]>,
    pub(crate) statistics: OnceLock<Tensor>,
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
        Op { name, roles, build: Box::new(build), keeps: false, running: None, frozen: None, statistics }
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

    fn forward<S: Memory>(&self, arguments: &[(&S, &Layout)]) -> Result<(S, Shape)> {
        let op = self.name;
        let views = arguments.iter().map(|(storage, layout)| storage.view(op, layout));
        let mut views = views.collect::<Result<Vec<_>>>()?.into_iter();
        let (Some(input), Some(&(storage, layout))) = (views.next(), arguments.first()) else {
            return Err(candle_core::Error::Msg(format!("{op}: expected an input")).bt());
        };
        let mut output = S::fresh(op, storage.device(), storage.dtype(), layout.shape().elem_count())?;
        let parts = self.parts(views).map_err(|error| fault(op, error))?;
        self.run(storage, &input, parts, &mut output.view_mut(op, layout.dims())?)?;
        Ok((output, layout.shape().clone()))
    }

    /// Beside memory like that of the input.
    fn run<S: Memory>(
        &self,
        like: &S,
        input: &View<'_>,
        parts: Parts<'_>,
        output: &mut ViewMut<'_>,
    ) -> Result<()> {
        let (op, device, shape) = (self.name, like.device(), input.shape());
        let dtype = compute(op, like.dtype())?;
        let fresh = |[rows, numbers]: [usize; 2]| S::fresh(op, device, dtype, rows * numbers);
        if let Some(running) = &self.running {
            let (channels, norm) = (running.channels, BatchNorm::new(running.channels).eps(running.eps));
            let norm = bound!(norm, weight_view: parts.weight, bias_view: parts.bias);
            // What is wrong with the input is said before memory for channels that it may not have is made.
            norm.lower(shape, input.dtype()).map_err(|error| fault(op, error))?;
            let (of, of_parts) = ([channels, STATISTICS], [channels, MOMENTS]);
            let (mut statistics, mut moments) = (fresh(of)?, fresh(of_parts)?);
            let [mut mean, mut var]: [S; 2] = self.copies(&running.before, device)?;
            let views = RunningViews {
                mean: mean.view_mut(op, &[channels])?,
                var: var.view_mut(op, &[channels])?,
                factor: running.factor,
            };
            let of_rows = &mut statistics.view_mut(op, &of)?;
            let of_parts = &mut moments.view_mut(op, &of_parts)?;
            S::run(op, device, |_, stream| {
                let done = norm.train_into(input, output, of_rows, of_parts, views, stream);
                done.map_err(|error| fault(op, error))
            })?;
            let moved = [mean, var].map(|storage| tensor(storage, channels));
            *running.after.lock().unwrap_or_else(PoisonError::into_inner) = Some(moved);
            self.keep(Some((statistics, of)));
            return Ok(());
        }
        self.with_method::<S, _>(device, parts, |method, _, stream| {
            let of = if self.keeps {
                method.statistics_shape(shape, input.dtype()).map_err(|error| fault(op, error))?
            } else {
                None
            };
            let mut statistics = of.map(fresh).transpose()?;
            let mut of_rows = match (&mut statistics, &of) {
                (Some(statistics), Some(of)) => Some(statistics.view_mut(op, of)?),
                _ => None,
            };
            let done = method.forward_into(input, output, of_rows.as_mut(), stream);
            done.map_err(|error| fault(op, error))?;
            drop(of_rows);
            self.keep(statistics.zip(of));
            Ok(())
        })
    }

    /// Runs `body` with the method of a call, beside what else a launch takes.
    fn with_method<S: Memory, R>(
        &self,
        device: &S::Device,
        parts: Parts<'_>,
        body: impl FnOnce(&dyn Method, &mut Workspace, &Stream<'_>) -> Result<R>,
    ) -> Result<R> {
        let op = self.name;
        let lent = self.frozen.as_ref().map(|both| both.each_ref().map(Tensor::storage_and_layout));
        let views = lent.as_ref().map(|[mean, var]| {
            let view = |storage, layout| beside::<S>(op, storage, device)?.view(op, layout);
            Ok::<_, candle_core::Error>((view(&mean.0, mean.1)?, view(&var.0, var.1)?))
        });
        let views = views.transpose()?;
        S::run(op, device, |workspace, stream| {
            let frozen = views.map(|(mean, var)| (mean, var, stream));
            let method = (self.build)(Parts { frozen, ..parts }).map_err(|error| fault(op, error))?;
            body(&*method, workspace, stream)
        })
    }

    /// Copies of running statistics, which may move.
    fn copies<S: Memory>(&self, of: &[Tensor; 2], device: &S::Device) -> Result<[S; 2]> {
        let copy = |tensor: &Tensor| {
            let (storage, layout) = tensor.storage_and_layout();
            beside::<S>(self.name, &storage, device)?.try_clone(layout)
        };
        Ok([copy(&of[0])?, copy(&of[1])?])
    }

    fn keep<S: Memory>(&self, statistics: Option<(S, [usize; 2])>) {
        if let Some((statistics, shape)) = statistics.filter(|_| self.keeps) {
            // An operator is applied once.
            let _ = self.statistics.set(tensor(statistics, &shape));
        }
    }

    /// The gradients of the arguments that need one, given that of the result: in one pass.
    fn backward(&self, arguments: &[&Tensor], grad: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let (storage, layout) = grad.storage_and_layout();
        match &*storage {
            #[cfg(feature = "cuda")]
            candle_core::Storage::Cuda(storage) => self.backward_on(arguments, (storage, layout)),
            storage => self.backward_on(arguments, (CpuStorage::of(self.name, storage)?, layout)),
        }
    }

    fn backward_on<S: Memory>(
        &self,
        arguments: &[&Tensor],
        (grad, layout): (&S, &Layout),
    ) -> Result<Vec<Option<Tensor>>> {
        let (op, device) = (self.name, grad.device());
        let grad_output = grad.view(op, layout)?;
        let lent: Vec<_> = arguments.iter().map(|tensor| tensor.storage_and_layout()).collect();
        let views = lent.iter().map(|(storage, layout)| beside::<S>(op, storage, device)?.view(op, layout));
        let mut views = views.collect::<Result<Vec<_>>>()?.into_iter();
        let Some(input) = views.next() else { return Ok(Vec::new()) };
        let parts = self.parts(views).map_err(|error| fault(op, error))?;

        let fresh = arguments.iter().map(|tensor| {
            let wanted = tensor.track_op();
            wanted.then(|| S::fresh(op, device, tensor.dtype(), tensor.elem_count())).transpose()
        });
        let mut fresh = fresh.collect::<Result<Vec<_>>>()?;
        let mut grads = Gradients::default();
        for (index, (storage, tensor)) in fresh.iter_mut().zip(arguments).enumerate() {
            let Some(storage) = storage else { continue };
            let role = index.checked_sub(1).and_then(|index| self.roles.get(index));
            let place = match role {
                None => &mut grads.input,
                Some(Role::Weight) => &mut grads.weight,
                Some(Role::Bias) => &mut grads.bias,
                Some(Role::Alpha) => &mut grads.alpha,
                Some(Role::WeightAndBias) => {
                    let (weight, bias) = storage.halves_mut(op, &tensor.dims()[1..])?;
                    (grads.weight, grads.bias) = (Some(weight), Some(bias));
                    continue;
                }
            };
            *place = Some(storage.view_mut(op, tensor.dims())?);
        }
        let statistics = self.statistics.get().map(Tensor::storage_and_layout);
        let statistics = statistics
            .as_ref()
            .map(|(storage, layout)| beside::<S>(op, storage, device)?.view(op, layout))
            .transpose()?;
        self.with_method::<S, _>(device, parts, |method, workspace, stream| {
            let done =
                method.backward_into(&grad_output, &input, statistics.as_ref(), grads, workspace, stream);
            done.map_err(|error| fault(op, error))
        })?;
        Ok(fresh
            .into_iter()
            .zip(arguments)
            .map(|(storage, like)| storage.map(|storage| tensor(storage, like.shape())))
            .collect())
    }
}

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(&[(s1, l1)])
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout) -> Result<(CudaStorage, Shape)> {
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

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
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

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
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
