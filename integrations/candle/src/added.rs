//! A residual connection and the norm after it: two results of one pass over memory.
//!
//! candle's operators have one result. So the first, `h = x + residual`, computes the second as well and lays it aside; the second
//! operator, of `h` and the parameters, only picks it up. Its backward pass is the norm's, and candle adds what it gives to the other
//! gradients of `h` before those go to `x` and `residual`.

use crate::memory::{Memory, beside, compute, fault, tensor};
use crate::op::Parts;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor};
use normkit::Method;
use normkit::norm::Gradients;
use normkit::tensor::{View, ViewMut};
use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Makes the norm of `input + residual` from those and its parameters.
type Build = dyn for<'a> Fn(View<'a>, Parts<'a>) -> normkit::Result<Box<dyn Method + 'a>> + Send + Sync;

/// What both operators know.
struct Pass {
    name: &'static str,
    build: Box<Build>,
    /// Detached: the input, the residual, and weight and bias.
    input: Tensor,
    residual: Tensor,
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    keeps: bool,
    statistics: OnceLock<Tensor>,
    /// The second result, until it is picked up.
    aside: Mutex<Option<Storage>>,
}

/// `norm(input + residual)` and the sum itself.
pub(crate) fn added<F>(
    name: &'static str,
    (input, residual): (&Tensor, &Tensor),
    (weight, bias): (Option<&Tensor>, Option<&Tensor>),
    build: F,
) -> Result<(Tensor, Tensor)>
where
    F: for<'a> Fn(View<'a>, Parts<'a>) -> normkit::Result<Box<dyn Method + 'a>> + Send + Sync + 'static,
{
    let all = [Some(input), Some(residual), weight, bias];
    let pass = Arc::new(Pass {
        name,
        build: Box::new(build),
        input: input.detach(),
        residual: residual.detach(),
        weight: weight.map(Tensor::detach),
        bias: bias.map(Tensor::detach),
        keeps: all.iter().flatten().any(|tensor| tensor.track_op()),
        statistics: OnceLock::new(),
        aside: Mutex::new(None),
    });
    let hidden = input.apply_op2(residual, Sum(pass.clone()))?;
    let output = match (weight, bias) {
        (Some(weight), Some(bias)) => hidden.apply_op3(weight, bias, Norm(pass))?,
        (Some(one), None) | (None, Some(one)) => hidden.apply_op2(one, Norm(pass))?,
        (None, None) => hidden.apply_op1(Norm(pass))?,
    };
    Ok((output, hidden))
}

impl Pass {
    /// The sum, of the residual's dtype; the norm is laid aside.
    fn forward<S: Memory>(
        &self,
        (input, l1): (&S, &Layout),
        (residual, l2): (&S, &Layout),
    ) -> Result<(S, Shape)> {
        let (op, device, shape) = (self.name, input.device(), l1.shape());
        let fault = |error| fault(op, error);
        let mut hidden = S::fresh(op, device, residual.dtype(), shape.elem_count())?;
        let mut output = S::fresh(op, device, input.dtype(), shape.elem_count())?;
        let compute = compute(op, input.dtype())?;
        let (input, residual) = (input.view(op, l1)?, residual.view(op, l2)?);
        let lent = [&self.weight, &self.bias].map(|tensor| tensor.as_ref().map(Tensor::storage_and_layout));
        let [weight, bias] = &lent;
        let (weight, bias) = (seen::<S, _>(op, weight, device)?, seen::<S, _>(op, bias, device)?);
        let method = (self.build)(residual, Parts { weight, bias, ..Parts::default() }).map_err(fault)?;
        let of = if self.keeps {
            method.statistics_shape(input.shape(), input.dtype()).map_err(fault)?
        } else {
            None
        };
        let mut statistics = of.map(|of| S::fresh(op, device, compute, of.iter().product())).transpose()?;
        let mut of_rows = match (&mut statistics, &of) {
            (Some(statistics), Some(of)) => Some(statistics.view_mut(op, of)?),
            _ => None,
        };
        let (mut y, mut h) = (output.view_mut(op, shape.dims())?, hidden.view_mut(op, shape.dims())?);
        S::run(op, device, |_, stream| {
            let done = method.forward_hidden_into(&input, &mut y, Some(&mut h), of_rows.as_mut(), stream);
            done.map_err(fault)
        })?;
        drop((y, h, of_rows));
        if let Some((statistics, of)) = statistics.zip(of) {
            let _ = self.statistics.set(tensor(statistics, &of));
        }
        *self.aside.lock().unwrap_or_else(PoisonError::into_inner) = Some(output.into_storage());
        Ok((hidden, shape.clone()))
    }

    fn pick_up<S: Memory>(&self) -> Result<(S, Shape)> {
        let aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner).take();
        let missing = || candle_core::Error::Msg(format!("{}: expected one use of a sum", self.name)).bt();
        let storage = aside.and_then(S::from_storage).ok_or_else(missing)?;
        Ok((storage, self.input.shape().clone()))
    }

    /// The gradients of the hidden value, the weight and the bias, where `wanted` says so.
    fn backward(&self, wanted: [bool; 3], grad: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let (storage, layout) = grad.storage_and_layout();
        match &*storage {
            #[cfg(feature = "cuda")]
            Storage::Cuda(storage) => self.backward_on(wanted, (storage, layout)),
            storage => self.backward_on(wanted, (CpuStorage::of(self.name, storage)?, layout)),
        }
    }

    fn backward_on<S: Memory>(
        &self,
        wanted: [bool; 3],
        (grad, layout): (&S, &Layout),
    ) -> Result<[Option<Tensor>; 3]> {
        let (op, device) = (self.name, grad.device());
        let grad_output = grad.view(op, layout)?;
        let all = [
            Some(&self.input),
            Some(&self.residual),
            self.weight.as_ref(),
            self.bias.as_ref(),
            self.statistics.get(),
        ];
        let lent = all.map(|tensor| tensor.map(Tensor::storage_and_layout));
        let of = |index: usize| seen::<S, _>(op, &lent[index], device);
        let (Some(input), Some(residual)) = (of(0)?, of(1)?) else {
            return Ok([None, None, None]);
        };
        let parts = Parts { weight: of(2)?, bias: of(3)?, ..Parts::default() };
        let method = (self.build)(residual, parts).map_err(|error| fault(op, error))?;
        let like = [Some(&self.residual), self.weight.as_ref(), self.bias.as_ref()];
        let fresh = |index: usize| {
            let like = like[index].filter(|_| wanted[index]);
            like.map(|like| S::fresh(op, device, like.dtype(), like.elem_count())).transpose()
        };
        let (mut hidden, mut weight, mut bias) = (fresh(0)?, fresh(1)?, fresh(2)?);
        let grads = Gradients {
            before: target(op, &mut hidden, like[0])?,
            weight: target(op, &mut weight, like[1])?,
            bias: target(op, &mut bias, like[2])?,
            ..Gradients::default()
        };
        let statistics = of(4)?;
        S::run(op, device, |workspace, stream| {
            let done =
                method.backward_into(&grad_output, &input, statistics.as_ref(), grads, workspace, stream);
            done.map_err(|error| fault(op, error))
        })?;
        let made = |storage: Option<S>, like: Option<&Tensor>| {
            storage.zip(like).map(|(storage, like)| tensor(storage, like.shape()))
        };
        Ok([made(hidden, like[0]), made(weight, like[1]), made(bias, like[2])])
    }
}

/// The memory of a tensor that may not be there, to read.
fn seen<'a, S: Memory, G: Deref<Target = Storage>>(
    op: &'static str,
    lent: &'a Option<(G, &Layout)>,
    device: &S::Device,
) -> Result<Option<View<'a>>> {
    lent.as_ref().map(|(storage, layout)| beside::<S>(op, storage, device)?.view(op, layout)).transpose()
}

/// The memory of a gradient that may not be wanted, to write.
fn target<'a, S: Memory>(
    op: &'static str,
    storage: &'a mut Option<S>,
    like: Option<&Tensor>,
) -> Result<Option<ViewMut<'a>>> {
    let wanted = storage.as_mut().zip(like);
    wanted.map(|(storage, like)| storage.view_mut(op, like.dims())).transpose()
}

/// `h = input + residual`, of the residual's dtype.
struct Sum(Arc<Pass>);

impl CustomOp2 for Sum {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.0.forward((s1, l1), (s2, l2))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.0.forward((s1, l1), (s2, l2))
    }

    fn bwd(
        &self,
        input: &Tensor,
        residual: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let of = |like: &Tensor| like.track_op().then(|| grad.to_dtype(like.dtype())).transpose();
        Ok((of(input)?, of(residual)?))
    }
}

/// The norm of `h`, which was computed with it.
struct Norm(Arc<Pass>);

impl CustomOp1 for Norm {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.0.pick_up()
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.0.pick_up()
    }

    fn bwd(&self, hidden: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let [hidden, _, _] = self.0.backward([hidden.track_op(), false, false], grad)?;
        Ok(hidden)
    }
}

impl CustomOp2 for Norm {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.0.pick_up()
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.0.pick_up()
    }

    fn bwd(
        &self,
        hidden: &Tensor,
        one: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let is_weight = self.0.weight.is_some();
        let wanted = [hidden.track_op(), one.track_op() && is_weight, one.track_op() && !is_weight];
        let [hidden, weight, bias] = self.0.backward(wanted, grad)?;
        Ok((hidden, weight.or(bias)))
    }
}

impl CustomOp3 for Norm {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.0.pick_up()
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.0.pick_up()
    }

    fn bwd(
        &self,
        hidden: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let wanted = [hidden, weight, bias].map(Tensor::track_op);
        let [hidden, weight, bias] = self.0.backward(wanted, grad)?;
        Ok((hidden, weight, bias))
    }
}
