//! Forward and backward passes of any method on arrays of any kind.

use crate::array::Array;
use crate::config::{Bound as Parameters, Config};
use crate::errors::{exception, renamed, value_error};
use crate::fresh::Fresh;
use crate::place::{Place, Target};
use normkit::Workspace;
use normkit::norm::Gradients;
use normkit::spec::{Epilogue, Prologue, STATISTICS};
use normkit::tensor::{View, ViewMut};
use pyo3::prelude::*;
use std::sync::{Mutex, PoisonError};

/// A pass over `input`: the method, and the arrays of its parameters.
#[derive(Clone, Copy)]
pub(crate) struct Call<'c, 'py> {
    pub(crate) config: &'c Config,
    pub(crate) input: &'c Array<'py>,
    pub(crate) weight: Option<&'c Array<'py>>,
    pub(crate) bias: Option<&'c Array<'py>>,
    pub(crate) alpha: Option<&'c Array<'py>>,
    /// The other operand of what comes before the norm.
    pub(crate) before: Option<&'c Array<'py>>,
    /// The other operand of what comes after it.
    pub(crate) after: Option<&'c Array<'py>>,
    /// Cosines, sines and positions of a rotary embedding.
    pub(crate) angles: [Option<&'c Array<'py>>; 3],
    /// Bias and scale of a residual's branch.
    pub(crate) branch: [Option<&'c Array<'py>>; 2],
}

/// Scratch of earlier calls on the CPU, for later ones.
static SCRATCH: Mutex<Vec<Workspace>> = Mutex::new(Vec::new());

/// Which gradients are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs(pub(crate) u8);

impl Needs {
    pub(crate) const INPUT: u8 = 1;
    pub(crate) const WEIGHT: u8 = 2;
    pub(crate) const BIAS: u8 = 4;
    pub(crate) const ALPHA: u8 = 8;
    pub(crate) const BEFORE: u8 = 16;
    pub(crate) const AFTER: u8 = 32;
    pub(crate) const BRANCH_BIAS: u8 = 64;
    pub(crate) const BRANCH_SCALE: u8 = 128;

    /// An array for the gradient of `like`, if there is one and its gradient is wanted.
    pub(crate) fn gradient<'py>(
        self,
        py: Python<'py>,
        like: Option<&Array<'py>>,
        bit: u8,
    ) -> PyResult<Option<Fresh<'py>>> {
        let like = like.filter(|_| self.0 & bit != 0);
        like.map(|like| Fresh::new(py, like, like.shape(), None)).transpose()
    }
}

/// What a forward pass is to give beside the output.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted {
    /// What was normalized.
    pub(crate) hidden: bool,
    /// What backward needs, if the method has any.
    pub(crate) statistics: bool,
}

/// What a forward pass gives.
pub(crate) struct Results<'py> {
    pub(crate) output: Bound<'py, PyAny>,
    pub(crate) hidden: Gradient<'py>,
    pub(crate) statistics: Gradient<'py>,
}

/// A gradient, or None where it was not wanted.
pub(crate) type Gradient<'py> = Option<Bound<'py, PyAny>>;

impl<'c, 'py> Call<'c, 'py> {
    /// Of a method without parameters.
    pub(crate) fn new(config: &'c Config, input: &'c Array<'py>) -> Self {
        let (weight, bias, alpha, before, after) = (None, None, None, None, None);
        Call { config, input, weight, bias, alpha, before, after, angles: [None; 3], branch: [None; 2] }
    }

    /// The normalized input.
    pub(crate) fn forward(&self, py: Python<'py>, backend: Option<&str>) -> PyResult<Bound<'py, PyAny>> {
        self.run(py, backend, Wanted::default()).map(|results| results.output)
    }

    /// A forward pass.
    pub(crate) fn run(
        &self,
        py: Python<'py>,
        backend: Option<&str>,
        wanted: Wanted,
    ) -> PyResult<Results<'py>> {
        self.check()?;
        let place = Place::of(self.input, backend)?;
        let output = Fresh::new(py, self.input, self.input.shape(), None)?;
        let hidden = if wanted.hidden { Some(self.hidden(py)?) } else { None };
        let statistics = if wanted.statistics { self.statistics(py)? } else { None };
        let config = self.config;
        let ([cos, sin, positions], [branch_bias, branch_scale]) = (self.angles, self.branch);
        let inputs = [
            Some(self.input),
            self.weight,
            self.bias,
            self.alpha,
            self.before,
            self.after,
            cos,
            sin,
            positions,
            branch_bias,
            branch_scale,
        ];
        let outputs = [Some(&output), hidden.as_ref(), statistics.as_ref()]
            .map(|fresh| fresh.map(|fresh| Target::New(&fresh.memory)));
        let result = place.run(py, inputs, outputs, move |inputs, outputs, stream| {
            let [Some(input), parameters @ ..] = inputs else { return Ok(()) };
            let [Some(mut output), mut hidden, mut statistics] = outputs else { return Ok(()) };
            let norm = bound(config, input.shape(), parameters)?;
            let statistics = statistics.as_mut();
            if !config.sees_otherwise() {
                return norm.forward_hidden_into(&input, &mut output, hidden.as_mut(), statistics, stream);
            }
            let (input, mut output) = (config.seen(input)?, config.seen_mut(output)?);
            let mut hidden = hidden.map(|view| config.seen_mut(view)).transpose()?;
            norm.forward_hidden_into(&input, &mut output, hidden.as_mut(), statistics, stream)
        })?;
        self.named(result)?;
        Ok(Results {
            output: output.finish()?,
            hidden: hidden.map(Fresh::finish).transpose()?,
            statistics: statistics.map(Fresh::finish).transpose()?,
        })
    }

    /// The gradients of input, weight, bias, alpha, both operands of what surrounds the norm and a branch's bias and scale, where
    /// they are wanted, given those of the output and of the hidden value and the statistics of the forward pass.
    pub(crate) fn backward(
        &self,
        py: Python<'py>,
        (grad_output, grad_hidden): (&Array<'py>, Option<&Array<'py>>),
        statistics: Option<&Array<'py>>,
        needs: Needs,
    ) -> PyResult<[Gradient<'py>; 8]> {
        self.check()?;
        let place = Place::of(self.input, None)?;
        let fresh = |like, bit| needs.gradient(py, like, bit);
        let ([cos, sin, positions], [branch_bias, branch_scale]) = (self.angles, self.branch);
        // The hidden value stands for the residual, too.
        let is_hidden = matches!(self.config.fusion().prologue, Prologue::Residual { .. });
        let fresh = [
            fresh(Some(self.input), Needs::INPUT)?,
            fresh(self.weight, Needs::WEIGHT)?,
            fresh(self.bias, Needs::BIAS)?,
            fresh(self.alpha, Needs::ALPHA)?,
            fresh(self.before.or(is_hidden.then_some(self.input)), Needs::BEFORE)?,
            fresh(self.after, Needs::AFTER)?,
            fresh(branch_bias, Needs::BRANCH_BIAS)?,
            fresh(branch_scale, Needs::BRANCH_SCALE)?,
        ];
        let config = self.config;
        let inputs = [
            Some(grad_output),
            Some(self.input),
            grad_hidden,
            statistics,
            self.weight,
            self.bias,
            self.alpha,
            self.before,
            self.after,
            cos,
            sin,
            positions,
            branch_bias,
            branch_scale,
        ];
        let outputs = fresh.each_ref().map(|fresh| fresh.as_ref().map(|fresh| Target::New(&fresh.memory)));
        let mut scratch = SCRATCH.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let workspace = &mut scratch;
        let result = place.run(py, inputs, outputs, move |inputs, outputs, stream| {
            let [Some(grad_output), Some(input), grad_hidden, statistics, parameters @ ..] = inputs else {
                return Ok(());
            };
            let shape = input.layout().shape().to_vec();
            let norm = bound(config, &shape, parameters)?;
            let (grad_output, input) = (config.seen(grad_output)?, config.seen(input)?);
            let grad_hidden = grad_hidden.map(|view| config.seen(view)).transpose()?;
            let grads = gradients(config, &shape, outputs)?;
            let statistics = statistics.as_ref();
            norm.backward_hidden_into(
                &grad_output,
                grad_hidden.as_ref(),
                &input,
                statistics,
                grads,
                workspace,
                stream,
            )
        })?;
        if place.is_cpu() {
            SCRATCH.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        }
        self.named(result)?;
        let mut finished = [const { None }; 8];
        for (finished, fresh) in finished.iter_mut().zip(fresh) {
            *finished = fresh.map(Fresh::finish).transpose()?;
        }
        Ok(finished)
    }

    /// Refuses operands of what surrounds the norm that are not of the input's shape, or that are missing or too many.
    pub(crate) fn check(&self) -> PyResult<()> {
        let fusion = self.config.fusion();
        for (operand, name) in
            [(self.before, fusion.prologue.operand()), (self.after, fusion.epilogue.operand())]
        {
            let expected = self.input.shape();
            let message = match (name, operand) {
                (None, None) => continue,
                // What a norm is of may be the sum already.
                (Some("residual"), None) if fusion.epilogue != Epilogue::Residual => continue,
                (Some(_), Some(operand)) if operand.shape() == expected => continue,
                (Some(name), None) => format!("{name}: expected shape {expected:?}, found None"),
                (Some(name), Some(operand)) => {
                    format!("{name}: expected shape {expected:?}, found shape {:?}", operand.shape())
                }
                (None, Some(operand)) => {
                    let expected = "None, since the method has no use for it";
                    format!("{}: expected {expected}, found an array", operand.name)
                }
            };
            return Err(value_error(message));
        }
        Ok(())
    }

    /// An array for what is normalized, of the residual's dtype where there is one.
    fn hidden(&self, py: Python<'py>) -> PyResult<Fresh<'py>> {
        let dtype = self.before.unwrap_or(self.input).dtype();
        Fresh::new(py, self.input, self.input.shape(), Some(dtype))
    }

    /// An array for the statistics, if the method has any.
    fn statistics(&self, py: Python<'py>) -> PyResult<Option<Fresh<'py>>> {
        let Some(rows) = rows(self.config, self.input.shape(), self.input.dtype())? else {
            return Ok(None);
        };
        let compute = self.input.dtype().compute();
        Fresh::new(py, self.input, &[rows, STATISTICS], Some(compute)).map(Some)
    }

    fn named(&self, result: normkit::Result<()>) -> PyResult<()> {
        result.map_err(|error| renamed(error, self.config.names()))
    }
}

/// The method with its parameters and operands beside an input of `shape`.
pub(crate) fn bound<'v>(
    config: &Config,
    shape: &[usize],
    [weight, bias, alpha, before, after, cos, sin, positions, branch_bias, branch_scale]: [Option<View<'v>>;
        10],
) -> normkit::Result<crate::config::Runnable<'v>> {
    if !config.sees_otherwise() {
        let (angles, branch) = ([cos, sin, positions], [branch_bias, branch_scale]);
        return Ok(config.bind(Parameters { weight, bias, alpha, before, after, angles, branch }));
    }
    let learned =
        |name, view: Option<View<'v>>| view.map(|view| config.seen_parameter(name, view, shape)).transpose();
    let operand = |view: Option<View<'v>>| view.map(|view| config.seen(view)).transpose();
    Ok(config.bind(Parameters {
        weight: learned("weight", weight)?,
        bias: learned("bias", bias)?,
        alpha,
        before: operand(before)?,
        after: operand(after)?,
        ..Parameters::default()
    }))
}

/// Where the gradients go, in the order of [`Call::backward`].
fn gradients<'v>(
    config: &Config,
    shape: &[usize],
    [input, weight, bias, alpha, before, after, branch_bias, branch_scale]: [Option<ViewMut<'v>>; 8],
) -> normkit::Result<Gradients<'v>> {
    if !config.sees_otherwise() {
        return Ok(Gradients { input, weight, bias, alpha, before, after, branch_bias, branch_scale });
    }
    let learned = |name, view: Option<ViewMut<'v>>| {
        view.map(|view| config.seen_parameter_mut(name, view, shape)).transpose()
    };
    let operand = |view: Option<ViewMut<'v>>| view.map(|view| config.seen_mut(view)).transpose();
    Ok(Gradients {
        input: operand(input)?,
        weight: learned("weight", weight)?,
        bias: learned("bias", bias)?,
        alpha,
        before: operand(before)?,
        after: operand(after)?,
        ..Gradients::default()
    })
}

/// The rows that share statistics in an input of `shape`, if the method has statistics.
pub(crate) fn rows(
    config: &Config,
    shape: &[usize],
    dtype: normkit::tensor::DType,
) -> PyResult<Option<usize>> {
    if let Config::DyT { .. } = config {
        return Ok(None);
    }
    let norm = config.bind(Parameters::default());
    let shape = config.seen_shape(shape).and_then(|shape| norm.statistics_shape(&shape, dtype));
    let shape = shape.map_err(|error| renamed(error, config.names()))?;
    Ok(shape.map(|[rows, _]| rows))
}

/// The error of a call whose arguments have the names that normkit knows.
pub(crate) fn checked(result: normkit::Result<()>) -> PyResult<()> {
    result.map_err(exception)
}
