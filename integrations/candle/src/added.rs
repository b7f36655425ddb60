//! A residual connection and the norm after it: two results of one pass over memory.
//!
//! candle's operators have one result. So the first, `h = x + residual`, computes the second as well and lays it aside; the second
//! operator, of `h` and the parameters, only picks it up. Its backward pass is the norm's, and candle adds what it gives to the other
//! gradients of `h` before those go to `x` and `residual`.

use crate::op::{Parts, with_workspace};
use crate::storage::{fault, on_cpu, tensor, view, view_mut, zeros};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor};
use normkit::norm::Gradients;
use normkit::tensor::{HostTensor, Tensor as _, View};
use normkit::{Device, Method};
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
    statistics: OnceLock<HostTensor>,
    /// The second result, until it is picked up.
    aside: Mutex<Option<CpuStorage>>,
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
    fn forward(&self, input: &View<'_>, residual: View<'_>, hidden: &mut CpuStorage) -> Result<()> {
        let op = self.name;
        let fault = |error| fault(op, error);
        let shape = input.shape();
        let lent = [&self.weight, &self.bias].map(|tensor| tensor.as_ref().map(Tensor::storage_and_layout));
        let [weight, bias] = &lent;
        let parts = Parts { weight: seen(op, weight)?, bias: seen(op, bias)?, alpha: None };
        let method = (self.build)(residual, parts).map_err(fault)?;
        let mut output = zeros(op, self.input.dtype(), input.layout().len())?;
        let rows =
            if self.keeps { method.statistics_shape(shape, input.dtype()).map_err(fault)? } else { None };
        let compute = input.dtype().compute();
        let mut statistics =
            rows.map(|shape| HostTensor::zeros(&shape, compute)).transpose().map_err(fault)?;
        let mut of_rows = statistics.as_mut().map(|tensor| tensor.view_mut()).transpose().map_err(fault)?;
        let (mut y, mut h) = (view_mut(op, &mut output, shape)?, view_mut(op, hidden, shape)?);
        let stream = Device::Cpu.stream();
        method.forward_hidden_into(input, &mut y, Some(&mut h), of_rows.as_mut(), &stream).map_err(fault)?;
        drop((y, h, of_rows));
        if let Some(statistics) = statistics {
            let _ = self.statistics.set(statistics);
        }
        *self.aside.lock().unwrap_or_else(PoisonError::into_inner) = Some(output);
        Ok(())
    }

    fn pick_up(&self) -> Result<(CpuStorage, Shape)> {
        let aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner).take();
        let missing = || candle_core::Error::Msg(format!("{}: expected one use of a sum", self.name)).bt();
        Ok((aside.ok_or_else(missing)?, self.input.shape().clone()))
    }

    /// The gradients of the hidden value, the weight and the bias, where `wanted` says so.
    fn backward(&self, wanted: [bool; 3], grad: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let op = self.name;
        let fault = |error| fault(op, error);
        let lent =
            [Some(&self.input), Some(&self.residual), self.weight.as_ref(), self.bias.as_ref(), Some(grad)];
        let lent = lent.map(|tensor| tensor.map(Tensor::storage_and_layout));
        let of = |index: usize| seen(op, &lent[index]);
        let (Some(input), Some(residual), Some(grad_output)) = (of(0)?, of(1)?, of(4)?) else {
            return Ok([None, None, None]);
        };
        let parts = Parts { weight: of(2)?, bias: of(3)?, alpha: None };
        let method = (self.build)(residual, parts).map_err(fault)?;
        let like = [Some(&self.residual), self.weight.as_ref(), self.bias.as_ref()];
        let fresh = |index: usize| {
            let like = like[index].filter(|_| wanted[index]);
            like.map(|like| zeros(op, like.dtype(), like.elem_count())).transpose()
        };
        let (mut hidden, mut weight, mut bias) = (fresh(0)?, fresh(1)?, fresh(2)?);
        let target = |storage, index: usize| match (storage, like[index]) {
            (Some(storage), Some(like)) => view_mut(op, storage, like.dims()).map(Some),
            _ => Ok(None),
        };
        let grads = Gradients {
            before: target(hidden.as_mut(), 0)?,
            weight: target(weight.as_mut(), 1)?,
            bias: target(bias.as_mut(), 2)?,
            ..Gradients::default()
        };
        let statistics = self.statistics.get().map(|tensor| tensor.view()).transpose().map_err(fault)?;
        with_workspace(|workspace| {
            let stream = Device::Cpu.stream();
            method.backward_into(&grad_output, &input, statistics.as_ref(), grads, workspace, &stream)
        })
        .map_err(fault)?;
        let made = |storage: Option<CpuStorage>, index: usize| match (storage, like[index]) {
            (Some(storage), Some(like)) => tensor(op, storage, like.shape()).map(Some),
            _ => Ok(None),
        };
        Ok([made(hidden, 0)?, made(weight, 1)?, made(bias, 2)?])
    }
}

/// The memory of a tensor that may not be there, to read.
fn seen<'a, S: Deref<Target = Storage>>(
    op: &'static str,
    lent: &'a Option<(S, &Layout)>,
) -> Result<Option<View<'a>>> {
    lent.as_ref().map(|(storage, layout)| view(op, on_cpu(op, storage)?, layout)).transpose()
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
        let op = self.0.name;
        let dtype = candle_core::backend::BackendStorage::dtype(s2);
        let mut hidden = zeros(op, dtype, l1.shape().elem_count())?;
        self.0.forward(&view(op, s1, l1)?, view(op, s2, l2)?, &mut hidden)?;
        Ok((hidden, l1.shape().clone()))
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
