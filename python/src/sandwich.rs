//! The norm after a sublayer and the norm before the next one, with the residual between them, in one pass over memory.

use crate::arguments as arg;
use crate::array::{Array, Autograd};
use crate::call::{Gradient, Needs, rows};
use crate::config::{Bound, Config, cast};
use crate::errors::{exception, renamed, value_error};
use crate::fresh::Fresh;
use crate::functions::{Any, Optional};
use crate::place::{Place, Target};
use normkit::norm::{HiddenFrom, Sandwich, SandwichGradients, SandwichStatistics};
use normkit::spec::{Fusion, STATISTICS};
use normkit::tensor::{Layout, View};
use normkit::{Error, Workspace};
use pyo3::prelude::*;
use std::sync::{Mutex, PoisonError};

/// Scratch of earlier backward passes on the CPU, for later ones.
static SCRATCH: Mutex<Vec<Workspace>> = Mutex::new(Vec::new());

/// What normkit calls the arguments, and what they are called here.
const NAMES: &[(&str, &str)] = &[
    ("after.weight", "weight"),
    ("after.bias", "bias"),
    ("before.weight", "next_weight"),
    ("before.bias", "next_bias"),
    ("after.statistics", "statistics"),
    ("before.statistics", "statistics"),
];

/// The arrays of a call: both inputs, and weight and bias of either norm.
struct Arrays<'py> {
    input: Array<'py>,
    residual: Array<'py>,
    parameters: [Option<Array<'py>>; 4],
}

impl<'py> Arrays<'py> {
    fn new(
        autograd: Autograd,
        [input, residual]: [&Any<'py>; 2],
        parameters: [Optional<'_, 'py>; 4],
    ) -> PyResult<Self> {
        let names = ["weight", "bias", "next_weight", "next_bias"];
        let mut found = [const { None }; 4];
        for ((found, name), parameter) in found.iter_mut().zip(names).zip(parameters) {
            *found = Array::optional(name, parameter, autograd)?;
        }
        let (input, residual) =
            (Array::new("input", input, autograd)?, Array::new("residual", residual, autograd)?);
        if residual.shape() != input.shape() {
            let (expected, found) = (input.shape(), residual.shape());
            return Err(value_error(format!("residual: expected shape {expected:?}, found shape {found:?}")));
        }
        Ok(Arrays { input, residual, parameters: found })
    }

    /// The gradient of each, in the order of input, residual and parameters, as far as they are wanted.
    fn fresh(&self, py: Python<'py>, needs: Needs) -> PyResult<[Option<Fresh<'py>>; 6]> {
        let [weight, bias, next_weight, next_bias] = self.parameters.each_ref().map(Option::as_ref);
        let all = [Some(&self.input), Some(&self.residual), weight, bias, next_weight, next_bias];
        let mut fresh = [const { None }; 6];
        for (place, (fresh, like)) in fresh.iter_mut().zip(all).enumerate() {
            *fresh = needs.gradient(py, like, 1 << place)?;
        }
        Ok(fresh)
    }
}

/// Both norms: of one kind, with one configuration, each with its own parameters.
fn with_norms<R>(
    config: &Config,
    parameters: [Option<View<'_>>; 4],
    body: impl FnOnce(Sandwich<&dyn normkit::Method, &dyn normkit::Method>) -> R,
) -> R {
    let [weight, bias, next_weight, next_bias] = parameters;
    let after = config.bind(Bound { weight, bias, ..Bound::default() });
    let before = config.bind(Bound { weight: next_weight, bias: next_bias, ..Bound::default() });
    body(Sandwich::new(&*after, &*before))
}

/// The rows of the statistics of both norms, those of the first before those of the second, which lie in one array.
fn halves(rows: usize) -> normkit::Result<[Layout; 2]> {
    let half = |first: usize| {
        let strides = [STATISTICS as isize, 1];
        Layout::strided(&[rows, STATISTICS], &strides, first * STATISTICS)
    };
    Ok([half(0)?, half(rows)?])
}

fn forward<'py>(
    py: Python<'py>,
    config: &Config,
    arrays: &Arrays<'py>,
    backend: Option<&str>,
    wants_statistics: bool,
) -> PyResult<(Any<'py>, Any<'py>, Gradient<'py>)> {
    let Arrays { input, residual, parameters } = arrays;
    let place = Place::of(input, backend)?;
    let output = Fresh::new(py, input, input.shape(), None)?;
    let hidden = Fresh::new(py, input, input.shape(), Some(residual.dtype()))?;
    let mut statistics = None;
    let mut both = [const { None }; 2];
    if wants_statistics {
        let rows = rows(config, input.shape(), input.dtype())?.unwrap_or(0);
        let compute = input.dtype().compute();
        let fresh = Fresh::new(py, input, &[2 * rows, STATISTICS], Some(compute))?;
        for (half, layout) in both.iter_mut().zip(halves(rows).map_err(exception)?) {
            let mut memory = fresh.memory.clone();
            memory.layout = layout;
            *half = Some(memory);
        }
        statistics = Some(fresh);
    }
    let [weight, bias, next_weight, next_bias] = parameters.each_ref().map(Option::as_ref);
    let inputs = [Some(input), Some(residual), weight, bias, next_weight, next_bias];
    let [after, before] = both.each_ref().map(|half| half.as_ref().map(Target::New));
    let outputs = [Some(Target::New(&output.memory)), Some(Target::New(&hidden.memory)), after, before];
    let result = place.run(py, inputs, outputs, move |inputs, outputs, stream| {
        let [Some(input), Some(residual), parameters @ ..] = inputs else { return Ok(()) };
        let [Some(mut output), Some(mut hidden), after, before] = outputs else { return Ok(()) };
        let statistics = SandwichStatistics { after, before };
        with_norms(config, parameters, |norms| {
            norms.forward_into(&input, &residual, &mut output, Some(&mut hidden), statistics, stream)
        })
    })?;
    result.map_err(|error| renamed(error, NAMES))?;
    Ok((output.finish()?, hidden.finish()?, statistics.map(Fresh::finish).transpose()?))
}

/// The gradients of input, residual and parameters, where they are wanted.
fn backward<'py>(
    py: Python<'py>,
    config: &Config,
    arrays: &Arrays<'py>,
    [grad_output, grad_hidden, statistics]: [Option<&Array<'py>>; 3],
    needs: Needs,
) -> PyResult<[Gradient<'py>; 6]> {
    let Arrays { input, residual, parameters } = arrays;
    let place = Place::of(input, None)?;
    let fresh = arrays.fresh(py, needs)?;
    let rows = rows(config, input.shape(), input.dtype())?.unwrap_or(0);
    let [weight, bias, next_weight, next_bias] = parameters.each_ref().map(Option::as_ref);
    let inputs = [
        Some(input),
        Some(residual),
        grad_output,
        grad_hidden,
        statistics,
        weight,
        bias,
        next_weight,
        next_bias,
    ];
    let outputs = fresh.each_ref().map(|fresh| fresh.as_ref().map(|fresh| Target::New(&fresh.memory)));
    let mut scratch = SCRATCH.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
    let workspace = &mut scratch;
    let result = place.run(py, inputs, outputs, move |inputs, outputs, stream| {
        let [Some(input), Some(residual), grad_output, grad_hidden, statistics, parameters @ ..] = inputs
        else {
            return Ok(());
        };
        let missing = |name| Error::Argument { name, expected: "an array".into(), found: "None".into() };
        let grad_output = grad_output.ok_or_else(|| missing("grad_output"))?;
        let statistics = statistics.ok_or_else(|| missing("statistics"))?;
        if statistics.shape() != [2 * rows, STATISTICS] {
            return Err(Error::Argument {
                name: "statistics",
                expected: format!("shape {:?}", [2 * rows, STATISTICS]),
                found: format!("shape {:?}", statistics.shape()),
            });
        }
        let [after, before] = halves(rows)?;
        let [after, before] = [statistics.clone().with_layout(after)?, statistics.with_layout(before)?];
        let [input_gradient, residual_gradient, after_weight, after_bias, before_weight, before_bias] =
            outputs;
        let grads = SandwichGradients {
            input: input_gradient,
            residual: residual_gradient,
            after_weight,
            after_bias,
            before_weight,
            before_bias,
        };
        with_norms(config, parameters, |norms| {
            norms.backward_into(
                &grad_output,
                grad_hidden.as_ref(),
                &input,
                HiddenFrom::Residual(&residual),
                [&after, &before],
                grads,
                workspace,
                stream,
            )
        })
    })?;
    if place.is_cpu() {
        SCRATCH.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
    }
    result.map_err(|error| renamed(error, NAMES))?;
    let mut finished = [const { None }; 6];
    for (finished, fresh) in finished.iter_mut().zip(fresh) {
        *finished = fresh.map(Fresh::finish).transpose()?;
    }
    Ok(finished)
}

/// Both root-mean-square normalizations around the residual between two sublayers, in one pass, as in Gemma 2 and 3::
///
///     h = residual + input / sqrt(mean(input²) + eps) * (weight + offset)
///     y = h / sqrt(mean(h²) + eps) * (next_weight + offset)
///
/// `input` is the output of a sublayer, `weight` that of the norm after it and `next_weight` that of the norm before the next one.
/// The second norm sees `h` as it is computed; the `h` that is returned is rounded to the dtype of `residual`, which has the shape
/// of `input` and may have another dtype.
///
/// Returns ``(y, h)``. `normalized_shape`, the weights, `eps`, `offset`, `cast`, `backend` and the errors are as in :func:`rms_norm`;
/// `eps`, `offset` and `cast` are those of both norms.
///
/// >>> import numpy, normkit
/// >>> x, r = numpy.float32([[3, 4, 0, 0]]), numpy.float32([[1.8, 2.4, 0, 0]])
/// >>> normkit.rms_norm_add_rms_norm(x, r, 4, eps=0.0)
/// (array([[1.2, 1.6, 0. , 0. ]], dtype=float32), array([[3., 4., 0., 0.]], dtype=float32))
#[pyfunction]
#[pyo3(signature = (input, residual, normalized_shape, weight=None, next_weight=None, eps=None, *, offset=0.0, cast="fp32", backend=None))]
pub(crate) fn rms_norm_add_rms_norm<'py>(
    input: &Any<'py>,
    residual: &Any<'py>,
    #[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>,
    weight: Optional<'_, 'py>,
    next_weight: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::optional_eps)] eps: Option<f64>,
    #[pyo3(from_py_with = arg::offset)] offset: f64,
    #[pyo3(from_py_with = arg::cast)] cast: &'static str,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<(Any<'py>, Any<'py>)> {
    let both = Both::rms_norm(normalized_shape, eps, offset, cast);
    let arrays = Arrays::new(Autograd::Refused, [input, residual], [weight, None, next_weight, None])?;
    let (output, hidden, _) = forward(input.py(), &both.config, &arrays, backend, false)?;
    Ok((output, hidden))
}

/// Both layer normalizations around the residual between two sublayers, in one pass, as in CogView's Sandwich-LN and in Peri-LN
/// (Ding et al. 2021, arXiv 2105.13290; Kim et al. 2025, arXiv 2502.02732)::
///
///     h = residual + (input - mean(input)) / sqrt(var(input) + eps) * weight + bias
///     y = (h - mean(h)) / sqrt(var(h) + eps) * next_weight + next_bias
///
/// `input`, `residual`, `h` and ``(y, h)``, which is returned, are as in :func:`rms_norm_add_rms_norm`; `normalized_shape`, weights,
/// biases, `eps`, which is that of both norms, `backend` and the errors as in :func:`layer_norm`.
///
/// >>> import numpy, normkit
/// >>> x, r = numpy.float32([[1, 3]]), numpy.float32([[3, 5]])
/// >>> normkit.layer_norm_add_layer_norm(x, r, 2, eps=0.0)
/// (array([[-1.,  1.]], dtype=float32), array([[2., 6.]], dtype=float32))
#[pyfunction]
#[pyo3(signature = (input, residual, normalized_shape, weight=None, bias=None, next_weight=None, next_bias=None, eps=1e-5, *, backend=None))]
pub(crate) fn layer_norm_add_layer_norm<'py>(
    input: &Any<'py>,
    residual: &Any<'py>,
    #[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>,
    weight: Optional<'_, 'py>,
    bias: Optional<'_, 'py>,
    next_weight: Optional<'_, 'py>,
    next_bias: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::eps)] eps: f64,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<(Any<'py>, Any<'py>)> {
    let both = Both::layer_norm(normalized_shape, eps);
    let parameters = [weight, bias, next_weight, next_bias];
    let arrays = Arrays::new(Autograd::Refused, [input, residual], parameters)?;
    let (output, hidden, _) = forward(input.py(), &both.config, &arrays, backend, false)?;
    Ok((output, hidden))
}

type Every<'py> = (Gradient<'py>, Gradient<'py>, Gradient<'py>, Gradient<'py>, Gradient<'py>, Gradient<'py>);

/// Two norms of one kind around a residual, for `normkit.torch`: as `Norm`.
#[pyclass(frozen, module = "normkit._normkit", name = "Sandwich")]
pub(crate) struct Both {
    config: Config,
}

#[pymethods]
impl Both {
    /// Root-mean-square normalizations over the last axes.
    #[staticmethod]
    #[pyo3(signature = (normalized_shape, eps=None, offset=0.0, cast="fp32"))]
    fn rms_norm(
        #[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>,
        #[pyo3(from_py_with = arg::optional_eps)] eps: Option<f64>,
        #[pyo3(from_py_with = arg::offset)] offset: f64,
        #[pyo3(from_py_with = arg::cast)] cast: &'static str,
    ) -> Self {
        let (cast, partial, fusion) = (self::cast(cast), 1.0, Fusion::default());
        Both { config: Config::RmsNorm { normalized_shape, eps, offset, cast, partial, fusion } }
    }

    /// Layer normalizations over the last axes.
    #[staticmethod]
    #[pyo3(signature = (normalized_shape, eps=1e-5))]
    fn layer_norm(
        #[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>,
        #[pyo3(from_py_with = arg::eps)] eps: f64,
    ) -> Self {
        Both { config: Config::LayerNorm { normalized_shape, eps, fusion: Fusion::default() } }
    }

    /// The input of the next sublayer, the sum, and with `statistics` what backward needs, `[2 * rows, 4]`.
    #[pyo3(signature = (input, residual, weight=None, bias=None, next_weight=None, next_bias=None, statistics=true))]
    fn forward<'py>(
        &self,
        input: &Any<'py>,
        residual: &Any<'py>,
        weight: Optional<'_, 'py>,
        bias: Optional<'_, 'py>,
        next_weight: Optional<'_, 'py>,
        next_bias: Optional<'_, 'py>,
        #[pyo3(from_py_with = arg::statistics)] statistics: bool,
    ) -> PyResult<(Any<'py>, Any<'py>, Gradient<'py>)> {
        let parameters = [weight, bias, next_weight, next_bias];
        let arrays = Arrays::new(Autograd::Ignored, [input, residual], parameters)?;
        forward(input.py(), &self.config, &arrays, None, statistics)
    }

    /// The gradients of input, residual, weight, bias, next_weight and next_bias: those whose bits, 1, 2, 4, 8, 16 and 32, are in
    /// `needs`.
    #[pyo3(signature = (grad_output, input, residual, statistics, weight=None, bias=None, next_weight=None, next_bias=None, grad_hidden=None, needs=63))]
    fn backward<'py>(
        &self,
        grad_output: &Any<'py>,
        input: &Any<'py>,
        residual: &Any<'py>,
        statistics: &Any<'py>,
        weight: Optional<'_, 'py>,
        bias: Optional<'_, 'py>,
        next_weight: Optional<'_, 'py>,
        next_bias: Optional<'_, 'py>,
        grad_hidden: Optional<'_, 'py>,
        needs: u8,
    ) -> PyResult<Every<'py>> {
        let py = input.py();
        let parameters = [weight, bias, next_weight, next_bias];
        let arrays = Arrays::new(Autograd::Ignored, [input, residual], parameters)?;
        let array = |name, object| Array::new(name, object, Autograd::Ignored);
        let (grad_output, statistics) =
            (array("grad_output", grad_output)?, array("statistics", statistics)?);
        let grad_hidden = Array::optional("grad_hidden", grad_hidden, Autograd::Ignored)?;
        let given = [Some(&grad_output), grad_hidden.as_ref(), Some(&statistics)];
        backward(py, &self.config, &arrays, given, Needs(needs)).map(Into::into)
    }
}
