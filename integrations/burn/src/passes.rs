//! Forward and backward passes of any method on any backend that lends its memory.

use crate::call::{Bound, Call, with};
use crate::dtypes;
use crate::lend::{Fresh, Lend};
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use normkit::norm::{Gradients, RunningViews};
use normkit::spec::{MOMENTS, STATISTICS};
use normkit::tensor::{DType, View, ViewMut};
use normkit::{BatchNorm, Device, Error, Result, Stream, Workspace};
use std::sync::{Mutex, PoisonError};

/// What a forward pass gives.
pub(crate) struct Forwarded<P> {
    pub(crate) output: P,
    /// What was normalized, where a residual was added.
    pub(crate) hidden: Option<P>,
    /// What a backward pass needs.
    pub(crate) statistics: Option<P>,
    /// The batch's mean and unbiased variance.
    pub(crate) batch: Option<[P; 2]>,
}

/// What a forward pass is to give beside the output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) statistics: bool,
    pub(crate) batch: bool,
}

/// Which gradients a backward pass is to give.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Needs {
    pub(crate) input: bool,
    pub(crate) weight: bool,
    pub(crate) bias: bool,
    pub(crate) alpha: bool,
    pub(crate) residual: bool,
}

/// The gradients that were wanted.
pub(crate) struct Found<P> {
    pub(crate) input: Option<P>,
    pub(crate) weight: Option<P>,
    pub(crate) bias: Option<P>,
    pub(crate) alpha: Option<P>,
    pub(crate) residual: Option<P>,
}

/// Tensors to read, by number, so that any backend can lend them at once.
struct Reads<'t, P> {
    all: Vec<&'t P>,
}

impl<'t, P> Reads<'t, P> {
    fn add(&mut self, tensor: Option<&'t P>) -> Option<usize> {
        let tensor = tensor?;
        self.all.push(tensor);
        Some(self.all.len() - 1)
    }

    /// The numbers of what a call has beside its input.
    fn bound(&mut self, bound: &'t Bound<P>) -> Bound<usize> {
        let running = bound.running.as_ref().map(|[mean, var]| {
            self.all.extend([mean, var]);
            [self.all.len() - 2, self.all.len() - 1]
        });
        Bound {
            weight: self.add(bound.weight.as_ref()),
            bias: self.add(bound.bias.as_ref()),
            alpha: self.add(bound.alpha.as_ref()),
            residual: self.add(bound.residual.as_ref()),
            running,
        }
    }
}

/// The views of those numbers.
fn seen<'a>(numbers: &Bound<usize>, views: &[View<'a>]) -> Bound<View<'a>> {
    let view = |number: Option<usize>| number.map(|number| views[number].clone());
    Bound {
        weight: view(numbers.weight),
        bias: view(numbers.bias),
        alpha: view(numbers.alpha),
        residual: view(numbers.residual),
        running: numbers.running.map(|both| both.map(|number| views[number].clone())),
    }
}

/// Tensors to make, by number.
#[derive(Default)]
struct Makes {
    all: Vec<Fresh>,
}

impl Makes {
    fn add(&mut self, shape: &[usize], dtype: DType) -> usize {
        self.all.push(Fresh { shape: shape.to_vec(), dtype, zeroed: false });
        self.all.len() - 1
    }

    /// A tensor like another, if that is there.
    fn like<P: TensorMetadata>(&mut self, tensor: Option<&P>) -> Result<Option<usize>> {
        let Some(tensor) = tensor else { return Ok(None) };
        let dtype = dtypes::of("input", tensor.dtype())?;
        Ok(Some(self.add(&tensor.shape(), dtype)))
    }
}

/// The normalized input, and what else is wanted.
pub(crate) fn forward<B: Lend>(
    call: &Call,
    input: &FloatTensor<B>,
    bound: &Bound<FloatTensor<B>>,
    wanted: Wanted,
) -> Result<Forwarded<FloatTensor<B>>> {
    let (shape, dtype) = (input.shape().to_vec(), dtypes::of("input", input.dtype())?);
    for tensor in [&bound.weight, &bound.bias, &bound.alpha, &bound.residual].into_iter().flatten() {
        dtypes::of("parameter", tensor.dtype())?;
    }
    let mut reads = Reads { all: vec![input] };
    let numbers = reads.bound(bound);
    let saves = wanted.statistics && bound.running.is_none() && call.has_statistics();
    let rows = if saves || wanted.batch {
        // They follow from the input alone.
        call.bind(Bound::default(), &Device::Cpu.stream())?.statistics_shape(&shape, dtype)?
    } else {
        None
    };
    let mut makes = Makes::default();
    makes.add(&shape, dtype);
    let hidden = makes.like(bound.residual.as_ref())?;
    let statistics = rows.map(|[rows, _]| makes.add(&[rows, STATISTICS], dtype.compute()));
    let batch = rows.filter(|_| wanted.batch);
    if let Some([rows, _]) = batch {
        makes.add(&[rows, MOMENTS], dtype.compute());
        for _ in ["mean", "variance"] {
            let running = makes.add(&[rows], dtype.compute());
            makes.all[running].zeroed = true;
        }
    }
    let (_, made) = B::lend(&reads.all, &makes.all, |views, fresh, stream| {
        let (input, bound) = (&views[0], seen(&numbers, views));
        if let (Call::BatchNorm { channels, eps }, [output, statistics, moments, mean, var]) =
            (call, &mut *fresh)
        {
            let norm = BatchNorm::new(*channels).eps(*eps);
            let norm = with!(norm, weight_view: bound.weight, bias_view: bound.bias);
            // All of the batch's and nothing of what was there.
            let running = RunningViews { mean: mean.reborrow(), var: var.reborrow(), factor: 1.0 };
            return norm.train_into(input, output, statistics, moments, running, stream);
        }
        let method = call.bind(bound, stream)?;
        let mut rest = fresh.iter_mut();
        let Some(output) = rest.next() else { return Ok(()) };
        let hidden = hidden.and_then(|_| rest.next());
        let statistics = statistics.and_then(|_| rest.next());
        method.forward_hidden_into(input, output, hidden, statistics, stream)
    })?;
    let mut made = made.into_iter();
    let mut next = |is_there: bool| if is_there { made.next() } else { None };
    let output = next(true).ok_or_else(nothing)?;
    let hidden = next(hidden.is_some());
    let statistics = next(statistics.is_some());
    let [_moments, mean, var] = [(); 3].map(|()| next(batch.is_some()));
    Ok(Forwarded { output, hidden, statistics, batch: mean.zip(var).map(|(mean, var)| [mean, var]) })
}

/// The gradients, given that of the output.
pub(crate) fn backward<B: Lend>(
    call: &Call,
    grad_output: &FloatTensor<B>,
    input: &FloatTensor<B>,
    bound: &Bound<FloatTensor<B>>,
    statistics: Option<&FloatTensor<B>>,
    needs: Needs,
) -> Result<Found<FloatTensor<B>>> {
    let mut reads = Reads { all: vec![input, grad_output] };
    let statistics = reads.add(statistics);
    let numbers = reads.bound(bound);
    let mut makes = Makes::default();
    let targets = [
        makes.like(Some(input).filter(|_| needs.input))?,
        makes.like(bound.weight.as_ref().filter(|_| needs.weight))?,
        makes.like(bound.bias.as_ref().filter(|_| needs.bias))?,
        makes.like(bound.alpha.as_ref().filter(|_| needs.alpha))?,
        makes.like(bound.residual.as_ref().filter(|_| needs.residual))?,
    ];
    let (_, made) = B::lend(&reads.all, &makes.all, |views, fresh, stream| {
        let method = call.bind(seen(&numbers, views), stream)?;
        let mut rest = fresh.iter_mut();
        let mut next = |target: Option<usize>| target.and_then(|_| rest.next()).map(ViewMut::reborrow);
        let [input, weight, bias, alpha, before] = targets.map(&mut next);
        let grads = Gradients { input, weight, bias, alpha, before, ..Gradients::default() };
        let statistics = statistics.map(|number| &views[number]);
        with_workspace(stream, |workspace| {
            method.backward_into(&views[1], &views[0], statistics, grads, workspace, stream)
        })
    })?;
    let mut made = made.into_iter();
    let [input, weight, bias, alpha, residual] = targets.map(|target| target.and_then(|_| made.next()));
    Ok(Found { input, weight, bias, alpha, residual })
}

/// Scratch memory of earlier backward passes on the CPU, for later ones.
static SCRATCH: Mutex<Vec<Workspace>> = Mutex::new(Vec::new());

/// Runs `body` with scratch memory that nobody else uses meanwhile.
fn with_workspace<R>(stream: &Stream<'_>, body: impl FnOnce(&mut Workspace) -> R) -> R {
    if !matches!(stream, Stream::Cpu(_)) {
        return body(&mut Workspace::new());
    }
    let lock = || SCRATCH.lock().unwrap_or_else(PoisonError::into_inner);
    let mut workspace = lock().pop().unwrap_or_default();
    let result = body(&mut workspace);
    lock().push(workspace);
    result
}

/// Backends give back as many tensors as were asked for.
fn nothing() -> Error {
    let (expected, found) = ("a tensor for each result".to_owned(), "none".to_owned());
    Error::Argument { name: "backend", expected, found }
}
