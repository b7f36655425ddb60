//! nGPT's step of the normalized stream towards a sublayer's normalized output, in one pass over memory.

use crate::arguments as arg;
use crate::array::{Array, Autograd};
use crate::call::{Gradient, Needs};
use crate::errors::{exception, renamed};
use crate::fresh::Fresh;
use crate::functions::Any;
use crate::place::{Place, Target};
use normkit::norm::{HypersphereGradients, HypersphereStatistics, HypersphereStep};
use normkit::spec::STATISTICS;
use normkit::tensor::{Layout, View};
use normkit::{Error, Workspace};
use pyo3::prelude::*;
use std::sync::{Mutex, PoisonError};

/// Scratch of earlier backward passes on the CPU, for later ones.
static SCRATCH: Mutex<Vec<Workspace>> = Mutex::new(Vec::new());

/// What normkit calls the arguments, and what they are called here.
const NAMES: &[(&str, &str)] = &[
    ("input.statistics", "statistics"),
    ("branch.statistics", "statistics"),
    ("output.statistics", "statistics"),
];

/// The arrays of a call.
struct Arrays<'py> {
    input: Array<'py>,
    branch: Array<'py>,
    alpha: Array<'py>,
}

impl<'py> Arrays<'py> {
    fn new(autograd: Autograd, [input, branch, alpha]: [&Any<'py>; 3]) -> PyResult<Self> {
        Ok(Arrays {
            input: Array::new("input", input, autograd)?,
            branch: Array::new("branch", branch, autograd)?,
            alpha: Array::new("alpha", alpha, autograd)?,
        })
    }

    fn all(&self) -> [Option<&Array<'py>>; 3] {
        [Some(&self.input), Some(&self.alpha), Some(&self.branch)]
    }
}

/// The rows of one of the three statistics, which lie in one array, one after the other.
fn third(rows: usize, which: usize) -> normkit::Result<Layout> {
    Layout::strided(&[rows, STATISTICS], &[STATISTICS as isize, 1], which * rows * STATISTICS)
}

/// A step over the last axis, for `normkit.torch`: as `Norm`.
#[pyclass(frozen, module = "normkit._normkit", name = "HypersphereStep")]
pub(crate) struct Step {
    eps: f64,
    alpha_scale: f64,
}

impl Step {
    fn with<'v>(&self, alpha: View<'v>) -> HypersphereStep<'v> {
        HypersphereStep::of_view(alpha).eps(self.eps).alpha_scale(self.alpha_scale)
    }

    /// Rows of each of the statistics.
    fn rows(&self, shape: &[usize]) -> usize {
        shape.split_last().map_or(0, |(_, kept)| kept.iter().product())
    }

    fn run<'py>(
        &self,
        py: Python<'py>,
        arrays: &Arrays<'py>,
        backend: Option<&str>,
        wants_statistics: bool,
    ) -> PyResult<(Any<'py>, Gradient<'py>)> {
        let input = &arrays.input;
        let place = Place::of(input, backend)?;
        let output = Fresh::new(py, input, input.shape(), None)?;
        let (mut statistics, mut thirds) = (None, [const { None }; 3]);
        if wants_statistics {
            let rows = self.rows(input.shape());
            let fresh = Fresh::new(py, input, &[3 * rows, STATISTICS], Some(input.dtype().compute()))?;
            for (which, part) in thirds.iter_mut().enumerate() {
                let mut memory = fresh.memory.clone();
                memory.layout = third(rows, which).map_err(exception)?;
                *part = Some(memory);
            }
            statistics = Some(fresh);
        }
        let [of_input, of_branch, of_output] = thirds.each_ref().map(|part| part.as_ref().map(Target::New));
        let outputs = [Some(Target::New(&output.memory)), of_input, of_branch, of_output];
        let result = place.run(py, arrays.all(), outputs, move |inputs, outputs, stream| {
            let [Some(input), Some(alpha), Some(branch)] = inputs else { return Ok(()) };
            let [Some(mut output), of_input, of_branch, of_output] = outputs else { return Ok(()) };
            let statistics = HypersphereStatistics { input: of_input, branch: of_branch, output: of_output };
            self.with(alpha).forward_into(&input, &branch, &mut output, statistics, stream)
        })?;
        result.map_err(|error| renamed(error, NAMES))?;
        Ok((output.finish()?, statistics.map(Fresh::finish).transpose()?))
    }
}

/// nGPT's step of the residual stream on the hypersphere (Loshchilov et al. 2024, arXiv 2410.01131), in one pass::
///
///     unit(v) = v / max(|v|, eps)              over the last axis
///     a, b = unit(input), unit(branch)
///     output = unit(a + m * (b - a))           m = abs(alpha_scale * alpha)
///
/// `input` is the stream, `branch` the output of a sublayer: of the shape of `input`, and of any dtype that its arithmetic holds.
/// `alpha` has the shape of the last axis. Nothing is rounded to 16 bits on the way.
///
/// Returns the stream that goes on, of the dtype of `input`. `backend` and the errors are as in :func:`normalize`.
///
/// >>> import numpy, normkit
/// >>> r, x = numpy.float32([[2, 0]]), numpy.float32([[0, 5]])
/// >>> normkit.hypersphere_step(r, x, numpy.float32([0.5, 0.5]))
/// array([[0.70710677, 0.70710677]], dtype=float32)
#[pyfunction]
#[pyo3(signature = (input, branch, alpha, eps=1e-12, *, alpha_scale=1.0, backend=None))]
pub(crate) fn hypersphere_step<'py>(
    input: &Any<'py>,
    branch: &Any<'py>,
    alpha: &Any<'py>,
    #[pyo3(from_py_with = arg::eps)] eps: f64,
    #[pyo3(from_py_with = arg::alpha_scale)] alpha_scale: f64,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<Any<'py>> {
    let arrays = Arrays::new(Autograd::Refused, [input, branch, alpha])?;
    Ok(Step { eps, alpha_scale }.run(input.py(), &arrays, backend, false)?.0)
}

#[pymethods]
impl Step {
    /// With these options.
    #[staticmethod]
    #[pyo3(signature = (eps=1e-12, alpha_scale=1.0))]
    fn of(
        #[pyo3(from_py_with = arg::eps)] eps: f64,
        #[pyo3(from_py_with = arg::alpha_scale)] alpha_scale: f64,
    ) -> Self {
        Step { eps, alpha_scale }
    }

    /// The stream that goes on.
    fn forward<'py>(&self, input: &Any<'py>, alpha: &Any<'py>, branch: &Any<'py>) -> PyResult<Any<'py>> {
        let arrays = Arrays::new(Autograd::Ignored, [input, branch, alpha])?;
        Ok(self.run(input.py(), &arrays, None, false)?.0)
    }

    /// The stream that goes on, and what backward needs, `[3 * rows, 4]`.
    fn train<'py>(
        &self,
        input: &Any<'py>,
        alpha: &Any<'py>,
        branch: &Any<'py>,
    ) -> PyResult<(Any<'py>, Gradient<'py>)> {
        let arrays = Arrays::new(Autograd::Ignored, [input, branch, alpha])?;
        self.run(input.py(), &arrays, None, true)
    }

    /// The gradients of input, alpha and branch: those whose bits, 1, 2 and 4, are in `needs`.
    #[pyo3(signature = (grad_output, input, statistics, alpha, branch, needs=7))]
    fn backward<'py>(
        &self,
        grad_output: &Any<'py>,
        input: &Any<'py>,
        statistics: &Any<'py>,
        alpha: &Any<'py>,
        branch: &Any<'py>,
        needs: u8,
    ) -> PyResult<(Gradient<'py>, Gradient<'py>, Gradient<'py>)> {
        let py = input.py();
        let arrays = Arrays::new(Autograd::Ignored, [input, branch, alpha])?;
        let grad_output = Array::new("grad_output", grad_output, Autograd::Ignored)?;
        let statistics = Array::new("statistics", statistics, Autograd::Ignored)?;
        let place = Place::of(&arrays.input, None)?;
        let rows = self.rows(arrays.input.shape());
        let mut fresh = [const { None }; 3];
        for (bit, (fresh, like)) in fresh.iter_mut().zip(arrays.all()).enumerate() {
            *fresh = Needs(needs).gradient(py, like, 1 << bit)?;
        }
        let [input, alpha, branch] = arrays.all();
        let inputs = [input, alpha, branch, Some(&grad_output), Some(&statistics)];
        let outputs = fresh.each_ref().map(|fresh| fresh.as_ref().map(|fresh| Target::New(&fresh.memory)));
        let mut scratch = SCRATCH.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let workspace = &mut scratch;
        let result = place.run(py, inputs, outputs, move |inputs, outputs, stream| {
            let [Some(input), Some(alpha), Some(branch), Some(grad_output), Some(statistics)] = inputs else {
                return Ok(());
            };
            if statistics.shape() != [3 * rows, STATISTICS] {
                return Err(Error::Argument {
                    name: "statistics",
                    expected: format!("shape {:?}", [3 * rows, STATISTICS]),
                    found: format!("shape {:?}", statistics.shape()),
                });
            }
            let part = |which| statistics.clone().with_layout(third(rows, which)?);
            let (of_input, of_branch, of_output) = (part(0)?, part(1)?, part(2)?);
            let [of_stream, of_alpha, of_sublayer] = outputs;
            let grads = HypersphereGradients { input: of_stream, branch: of_sublayer, alpha: of_alpha };
            let saved = [&of_input, &of_branch, &of_output];
            self.with(alpha).backward_into(&grad_output, &input, &branch, saved, grads, workspace, stream)
        })?;
        if place.is_cpu() {
            SCRATCH.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        }
        result.map_err(|error| renamed(error, NAMES))?;
        let [input, alpha, branch] = fresh.map(|fresh| fresh.map(Fresh::finish).transpose());
        Ok((input?, alpha?, branch?))
    }
}
