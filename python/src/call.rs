//! Forward and backward passes of any method on arrays of any kind.

use crate::array::Array;
use crate::config::{Bound as Parameters, Config};
use crate::errors::{exception, renamed};
use crate::fresh::Fresh;
use crate::place::{Place, Target};
use normkit::Workspace;
use normkit::norm::Gradients;
use normkit::spec::STATISTICS;
use pyo3::prelude::*;
use std::sync::{Mutex, PoisonError};

/// A pass over `input`: the method, and the arrays of its parameters.
pub(crate) struct Call<'c, 'py> {
    pub(crate) config: &'c Config,
    pub(crate) input: &'c Array<'py>,
    pub(crate) weight: Option<&'c Array<'py>>,
    pub(crate) bias: Option<&'c Array<'py>>,
    pub(crate) alpha: Option<&'c Array<'py>>,
    /// What the function at hand calls arguments that the method calls otherwise.
    pub(crate) names: &'c [(&'c str, &'c str)],
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

/// The gradients of input, weight, bias and alpha; None for those that were not wanted.
pub(crate) type Gradient<'py> = Option<Bound<'py, PyAny>>;

impl<'py> Call<'_, 'py> {
    /// The normalized input.
    pub(crate) fn forward(&self, py: Python<'py>, backend: Option<&str>) -> PyResult<Bound<'py, PyAny>> {
        let place = Place::of(self.input, backend)?;
        let output = Fresh::new(py, self.input, self.input.shape(), None)?;
        let config = self.config;
        let inputs = [Some(self.input), self.weight, self.bias, self.alpha];
        let result =
            place.run(py, inputs, [Some(Target::New(&output.memory))], move |inputs, outputs, stream| {
                let [Some(input), weight, bias, alpha] = inputs else { return Ok(()) };
                let [Some(mut output)] = outputs else { return Ok(()) };
                let norm = config.bind(Parameters { weight, bias, alpha });
                norm.forward_into(&input, &mut output, None, stream)
            })?;
        self.named(result)?;
        output.finish()
    }

    /// The normalized input and what backward needs: the statistics, if the method has any.
    pub(crate) fn train(
        &self,
        py: Python<'py>,
        backend: Option<&str>,
    ) -> PyResult<(Bound<'py, PyAny>, Gradient<'py>)> {
        let place = Place::of(self.input, backend)?;
        let output = Fresh::new(py, self.input, self.input.shape(), None)?;
        let statistics = self.statistics(py)?;
        let config = self.config;
        let inputs = [Some(self.input), self.weight, self.bias, self.alpha];
        let outputs =
            [Some(Target::New(&output.memory)), statistics.as_ref().map(|s| Target::New(&s.memory))];
        let result = place.run(py, inputs, outputs, move |inputs, outputs, stream| {
            let [Some(input), weight, bias, alpha] = inputs else { return Ok(()) };
            let [Some(mut output), mut statistics] = outputs else { return Ok(()) };
            let norm = config.bind(Parameters { weight, bias, alpha });
            norm.forward_into(&input, &mut output, statistics.as_mut(), stream)
        })?;
        self.named(result)?;
        Ok((output.finish()?, statistics.map(Fresh::finish).transpose()?))
    }

    /// The gradients that are wanted, given that of the output and the statistics of the forward pass.
    pub(crate) fn backward(
        &self,
        py: Python<'py>,
        grad_output: &Array<'py>,
        statistics: Option<&Array<'py>>,
        needs: Needs,
    ) -> PyResult<[Gradient<'py>; 4]> {
        let place = Place::of(self.input, None)?;
        let fresh = |like, bit| needs.gradient(py, like, bit);
        let fresh = [
            fresh(Some(self.input), Needs::INPUT)?,
            fresh(self.weight, Needs::WEIGHT)?,
            fresh(self.bias, Needs::BIAS)?,
            fresh(self.alpha, Needs::ALPHA)?,
        ];
        let config = self.config;
        let inputs = [Some(grad_output), Some(self.input), statistics, self.weight, self.bias, self.alpha];
        let outputs = fresh.each_ref().map(|fresh| fresh.as_ref().map(|fresh| Target::New(&fresh.memory)));
        let mut scratch = SCRATCH.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let workspace = &mut scratch;
        let result = place.run(py, inputs, outputs, move |inputs, outputs, stream| {
            let [Some(grad_output), Some(input), statistics, weight, bias, alpha] = inputs else {
                return Ok(());
            };
            let [grad_input, grad_weight, grad_bias, grad_alpha] = outputs;
            let norm = config.bind(Parameters { weight, bias, alpha });
            let grads =
                Gradients { input: grad_input, weight: grad_weight, bias: grad_bias, alpha: grad_alpha };
            norm.backward_into(&grad_output, &input, statistics.as_ref(), grads, workspace, stream)
        })?;
        if place.is_cpu() {
            SCRATCH.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        }
        self.named(result)?;
        let [input, weight, bias, alpha] = fresh;
        let finish = |fresh: Option<Fresh<'py>>| fresh.map(Fresh::finish).transpose();
        Ok([finish(input)?, finish(weight)?, finish(bias)?, finish(alpha)?])
    }

    /// An array for the statistics, if the method has any.
    fn statistics(&self, py: Python<'py>) -> PyResult<Option<Fresh<'py>>> {
        let Some(rows) = rows(self.config, self.input.shape(), self.input.dtype(), self.names)? else {
            return Ok(None);
        };
        let compute = self.input.dtype().compute();
        Fresh::new(py, self.input, &[rows, STATISTICS], Some(compute)).map(Some)
    }

    fn named(&self, result: normkit::Result<()>) -> PyResult<()> {
        result.map_err(|error| renamed(error, self.names))
    }
}

/// The rows that share statistics in an input of `shape`, if the method has statistics.
pub(crate) fn rows(
    config: &Config,
    shape: &[usize],
    dtype: normkit::tensor::DType,
    names: &[(&str, &str)],
) -> PyResult<Option<usize>> {
    if let Config::DyT { .. } = config {
        return Ok(None);
    }
    let norm = config.bind(Parameters::default());
    let shape = norm.statistics_shape(shape, dtype).map_err(|error| renamed(error, names))?;
    Ok(shape.map(|[rows, _]| rows))
}

/// The error of a call whose arguments have the names that normkit knows.
pub(crate) fn checked(result: normkit::Result<()>) -> PyResult<()> {
    result.map_err(exception)
}
