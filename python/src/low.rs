//! What `normkit.torch` is made of: forward passes that save statistics, and backward passes.

use crate::arguments as arg;
use crate::array::{Array, Autograd};
use crate::call::{Call, Gradient, Needs, rows};
use crate::config::{Config, cast, head_kind};
use crate::running::{Running, RunningArrays};
use normkit::tensor::DType;
use pyo3::prelude::*;

type Any<'py> = Bound<'py, PyAny>;
type Optional<'a, 'py> = Option<&'a Bound<'py, PyAny>>;
type Pair<'py> = (Any<'py>, Any<'py>);
type Gradients<'py> = (Gradient<'py>, Gradient<'py>, Gradient<'py>);

fn array<'py>(name: &'static str, object: &Any<'py>) -> PyResult<Array<'py>> {
    Array::new(name, object, Autograd::Ignored)
}

fn optional<'py>(name: &'static str, object: Optional<'_, 'py>) -> PyResult<Option<Array<'py>>> {
    Array::optional(name, object, Autograd::Ignored)
}

/// A method with its options. Tensors that an autograd engine follows are taken for their memory alone: who calls keeps
/// the history.
#[pyclass(frozen, module = "normkit._normkit")]
pub(crate) struct Norm {
    config: Config,
}

#[pymethods]
impl Norm {
    /// Layer normalization over the last axes.
    #[staticmethod]
    #[pyo3(signature = (normalized_shape, eps=1e-5))]
    fn layer_norm(
        #[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>,
        #[pyo3(from_py_with = arg::eps)] eps: f64,
    ) -> Self {
        Norm { config: Config::LayerNorm { normalized_shape, eps } }
    }

    /// Root-mean-square normalization over the last axes.
    #[staticmethod]
    #[pyo3(signature = (normalized_shape, eps=None, offset=0.0, cast="fp32", partial=1.0))]
    fn rms_norm(
        #[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>,
        #[pyo3(from_py_with = arg::optional_eps)] eps: Option<f64>,
        #[pyo3(from_py_with = arg::offset)] offset: f64,
        #[pyo3(from_py_with = arg::cast)] cast: &'static str,
        #[pyo3(from_py_with = arg::partial)] partial: f64,
    ) -> Self {
        let cast = self::cast(cast);
        Norm { config: Config::RmsNorm { normalized_shape, eps, offset, cast, partial } }
    }

    /// Batch normalization by the batch's own statistics.
    #[staticmethod]
    #[pyo3(signature = (num_features, eps=1e-5))]
    fn batch_norm(
        #[pyo3(from_py_with = arg::num_features)] num_features: usize,
        #[pyo3(from_py_with = arg::eps)] eps: f64,
    ) -> Self {
        Norm { config: Config::BatchNorm { num_features, eps } }
    }

    /// Group normalization.
    #[staticmethod]
    #[pyo3(signature = (num_groups, num_channels, eps=1e-5))]
    fn group_norm(
        #[pyo3(from_py_with = arg::num_groups)] num_groups: usize,
        #[pyo3(from_py_with = arg::num_channels)] num_channels: usize,
        #[pyo3(from_py_with = arg::eps)] eps: f64,
    ) -> Self {
        Norm { config: Config::GroupNorm { num_groups, num_channels, eps } }
    }

    /// Instance normalization by each instance's own statistics.
    #[staticmethod]
    #[pyo3(signature = (num_features, eps=1e-5))]
    fn instance_norm(
        #[pyo3(from_py_with = arg::num_features)] num_features: usize,
        #[pyo3(from_py_with = arg::eps)] eps: f64,
    ) -> Self {
        Norm { config: Config::InstanceNorm { num_features, eps } }
    }

    /// Division of vectors by their p-norm.
    #[staticmethod]
    #[pyo3(signature = (p=2.0, dim=1, eps=1e-12))]
    fn normalize(
        #[pyo3(from_py_with = arg::p)] p: f64,
        #[pyo3(from_py_with = arg::dim)] dim: isize,
        #[pyo3(from_py_with = arg::eps)] eps: f64,
    ) -> Self {
        Norm { config: Config::Normalize { p, dim, eps } }
    }

    /// Dynamic tanh, whose weight and bias vary along the last axes.
    #[staticmethod]
    fn dyt(#[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>) -> Self {
        Norm { config: Config::DyT { normalized_shape } }
    }

    /// The norm of queries or of keys.
    #[staticmethod]
    #[pyo3(signature = (kind, eps=1e-6))]
    fn head_norm(
        #[pyo3(from_py_with = arg::kind)] kind: &'static str,
        #[pyo3(from_py_with = arg::eps)] eps: f64,
    ) -> Self {
        Norm { config: Config::HeadNorm { kind: head_kind(kind), eps } }
    }

    /// Weight normalization, whose weight is g; a dim of None or -1 is the whole tensor.
    #[staticmethod]
    fn weight_norm(#[pyo3(from_py_with = arg::kept_dim)] dim: Option<usize>) -> Self {
        Norm { config: Config::WeightNorm { dim } }
    }

    /// How many rows of statistics an input of `shape` has; 0 where the method has none.
    fn rows(&self, #[pyo3(from_py_with = arg::shape)] shape: Vec<usize>) -> PyResult<usize> {
        Ok(rows(&self.config, &shape, DType::F32, self.names())?.unwrap_or(0))
    }

    /// The normalized input.
    #[pyo3(signature = (input, weight=None, bias=None, alpha=None))]
    fn forward<'py>(
        &self,
        input: &Any<'py>,
        weight: Optional<'_, 'py>,
        bias: Optional<'_, 'py>,
        alpha: Optional<'_, 'py>,
    ) -> PyResult<Any<'py>> {
        self.call(input, weight, bias, alpha, |call| call.forward(input.py(), None))
    }

    /// The normalized input, and the statistics `[rows, 4]` that backward needs, if the method has any.
    #[pyo3(signature = (input, weight=None, bias=None, alpha=None))]
    fn train<'py>(
        &self,
        input: &Any<'py>,
        weight: Optional<'_, 'py>,
        bias: Optional<'_, 'py>,
        alpha: Optional<'_, 'py>,
    ) -> PyResult<(Any<'py>, Gradient<'py>)> {
        self.call(input, weight, bias, alpha, |call| call.train(input.py(), None))
    }

    /// The gradients of input, weight, bias and alpha: those whose bits, 1, 2, 4 and 8, are in `needs`.
    #[pyo3(signature = (grad_output, input, statistics, weight=None, bias=None, alpha=None, needs=15))]
    #[allow(clippy::type_complexity, reason = "it is what Python is told")]
    fn backward<'py>(
        &self,
        grad_output: &Any<'py>,
        input: &Any<'py>,
        statistics: Optional<'_, 'py>,
        weight: Optional<'_, 'py>,
        bias: Optional<'_, 'py>,
        alpha: Optional<'_, 'py>,
        needs: u8,
    ) -> PyResult<(Gradient<'py>, Gradient<'py>, Gradient<'py>, Gradient<'py>)> {
        let grad_output = array("grad_output", grad_output)?;
        let statistics = optional("statistics", statistics)?;
        self.call(input, weight, bias, alpha, |call| {
            let grads = call.backward(input.py(), &grad_output, statistics.as_ref(), Needs(needs))?;
            let [grad_input, grad_weight, grad_bias, grad_alpha] = grads;
            Ok((grad_input, grad_weight, grad_bias, grad_alpha))
        })
    }
}

impl Norm {
    /// What the method's users call its arguments.
    fn names(&self) -> &'static [(&'static str, &'static str)] {
        match self.config {
            Config::WeightNorm { .. } => &[("input", "v"), ("weight", "g")],
            _ => &[],
        }
    }

    fn call<'py, R>(
        &self,
        input: &Any<'py>,
        weight: Optional<'_, 'py>,
        bias: Optional<'_, 'py>,
        alpha: Optional<'_, 'py>,
        run: impl FnOnce(Call<'_, 'py>) -> PyResult<R>,
    ) -> PyResult<R> {
        self.config.check(weight.is_some(), bias.is_some(), alpha.is_some())?;
        let (input, alpha) = (array("input", input)?, optional("alpha", alpha)?);
        let (weight, bias) = (optional("weight", weight)?, optional("bias", bias)?);
        let (weight, bias, alpha) = (weight.as_ref(), bias.as_ref(), alpha.as_ref());
        run(Call { config: &self.config, input: &input, weight, bias, alpha, names: self.names() })
    }
}

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
