//! What `normkit.torch` is made of, for norms with running statistics.

use crate::arguments as arg;
use crate::array::Autograd;
use crate::call::{Gradient, Needs};
use crate::low::{Any, Optional, array};
use crate::running::{Running, RunningArrays};
use pyo3::prelude::*;

type Pair<'py> = (Any<'py>, Any<'py>);
type Gradients<'py> = (Gradient<'py>, Gradient<'py>, Gradient<'py>);

/// Calls `run` with the arrays of a norm with running statistics.
fn with_running<'py, R>(
    input: &Any<'py>,
    running: (Optional<'_, 'py>, Optional<'_, 'py>),
    parameters: (Optional<'_, 'py>, Optional<'_, 'py>),
    eps: f64,
    run: impl FnOnce(Running<'_, 'py>) -> PyResult<R>,
) -> PyResult<R> {
    run(RunningArrays::new(Autograd::Ignored, input, running, parameters)?.running(eps))
}

/// Batch normalization by the batch's statistics, which it returns, too, `[C, 4]`; the running ones are moved in place.
#[pyfunction]
#[pyo3(signature = (input, running_mean, running_var, momentum, weight=None, bias=None, eps=1e-5))]
pub(crate) fn batch_norm_train<'py>(
    input: &Any<'py>,
    running_mean: Optional<'_, 'py>,
    running_var: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::momentum)] momentum: f64,
    weight: Optional<'_, 'py>,
    bias: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::eps)] eps: f64,
) -> PyResult<Pair<'py>> {
    let train = |running: Running<'_, 'py>| running.train(input.py(), momentum, None);
    with_running(input, (running_mean, running_var), (weight, bias), eps, train)
}

/// Instance normalization by each instance's statistics, which it returns, too, `[N * C, 4]`; the running ones are moved in
/// place.
#[pyfunction]
#[pyo3(signature = (input, running_mean, running_var, momentum, weight=None, bias=None, eps=1e-5))]
pub(crate) fn instance_norm_train<'py>(
    input: &Any<'py>,
    running_mean: Optional<'_, 'py>,
    running_var: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::momentum)] momentum: f64,
    weight: Optional<'_, 'py>,
    bias: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::eps)] eps: f64,
) -> PyResult<Pair<'py>> {
    let train = |running: Running<'_, 'py>| running.train_instances(input.py(), momentum, None);
    with_running(input, (running_mean, running_var), (weight, bias), eps, train)
}

/// Batch or instance normalization by running statistics.
#[pyfunction]
#[pyo3(signature = (input, running_mean, running_var, weight=None, bias=None, eps=1e-5))]
pub(crate) fn batch_norm_frozen<'py>(
    input: &Any<'py>,
    running_mean: Optional<'_, 'py>,
    running_var: Optional<'_, 'py>,
    weight: Optional<'_, 'py>,
    bias: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::eps)] eps: f64,
) -> PyResult<Any<'py>> {
    let run = |running: Running<'_, 'py>| running.frozen(input.py(), None);
    with_running(input, (running_mean, running_var), (weight, bias), eps, run)
}

/// The gradients of input, weight and bias of `batch_norm_frozen`: those whose bits, 1, 2 and 4, are in `needs`.
#[pyfunction]
#[pyo3(signature = (grad_output, input, running_mean, running_var, weight=None, bias=None, eps=1e-5, needs=7))]
pub(crate) fn batch_norm_frozen_backward<'py>(
    grad_output: &Any<'py>,
    input: &Any<'py>,
    running_mean: Optional<'_, 'py>,
    running_var: Optional<'_, 'py>,
    weight: Optional<'_, 'py>,
    bias: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::eps)] eps: f64,
    needs: u8,
) -> PyResult<Gradients<'py>> {
    let grad_output = array("grad_output", grad_output)?;
    let run = |running: Running<'_, 'py>| {
        let [input, weight, bias] = running.frozen_backward(input.py(), &grad_output, Needs(needs))?;
        Ok((input, weight, bias))
    };
    with_running(input, (running_mean, running_var), (weight, bias), eps, run)
}
