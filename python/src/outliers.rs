//! What codes of int8 with outliers set apart are made of: `normkit.outliers` and `normkit.torch` put it together.

use crate::arguments as arg;
use crate::call::{Call, bound};
use crate::config::{Config, cast};
use crate::errors::exception;
use crate::fresh::Fresh;
use crate::functions::{Any, Optional, array, optional};
use crate::fused::residual_before;
use crate::place::{Place, Target};
use normkit::norm::{Method, OutlierOutputs, Outliers, Quantized, zero_columns};
use normkit::spec::{Fusion, STATISTICS, Scaling};
use normkit::tensor::{DType, Layout};
use pyo3::prelude::*;

/// Codes, scales, flags of columns, statistics of rows, and the sum where there is a residual.
type Codes<'py> = (Any<'py>, Any<'py>, Any<'py>, Any<'py>, Option<Any<'py>>);

fn outliers<M: Method>(norm: M, threshold: f64) -> Outliers<M> {
    Quantized::new(norm, DType::I8, Scaling::Row).outliers(threshold)
}

/// A norm from the arguments that both functions have.
fn config(
    normalized_shape: Vec<usize>,
    (centred, has_residual): (bool, bool),
    (eps, offset): (Option<f64>, f64),
    cast_name: &'static str,
    [input_scale, residual_scale]: [f64; 2],
) -> Config {
    let fusion = if has_residual { residual_before(input_scale, residual_scale) } else { Fusion::default() };
    if centred {
        return Config::LayerNorm { normalized_shape, eps: eps.unwrap_or(1e-5), fusion };
    }
    Config::RmsNorm { normalized_shape, eps, offset, cast: cast(cast_name), partial: 1.0, fusion }
}

/// The axes of `shape` that are not normalized, and one more.
fn per_row(shape: &[usize], config: &Config, last: usize) -> Vec<usize> {
    shape[..shape.len() - config.axes()].iter().copied().chain([last]).collect()
}

/// Codes of int8 under a scale of each row, where columns that have outliers are 0; the scales; int32 flags of those columns, 1 or 0;
/// the statistics that `outlier_values` wants; and the sum where there is a residual.
#[pyfunction]
pub(crate) fn outlier_codes<'py>(
    input: &Any<'py>,
    residual: Optional<'_, 'py>,
    weight: Optional<'_, 'py>,
    bias: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>,
    centred: bool,
    #[pyo3(from_py_with = arg::optional_eps)] eps: Option<f64>,
    #[pyo3(from_py_with = arg::offset)] offset: f64,
    #[pyo3(from_py_with = arg::cast)] cast: &'static str,
    #[pyo3(from_py_with = arg::input_scale)] input_scale: f64,
    #[pyo3(from_py_with = arg::residual_scale)] residual_scale: f64,
    #[pyo3(from_py_with = arg::threshold)] threshold: f64,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<Codes<'py>> {
    let (py, input, residual) = (input.py(), array("input", input)?, optional("residual", residual)?);
    let (weight, bias) = (optional("weight", weight)?, optional("bias", bias)?);
    let (weight, bias, before) = (weight.as_ref(), bias.as_ref(), residual.as_ref());
    let scales = [input_scale, residual_scale];
    let config = &config(normalized_shape, (centred, before.is_some()), (eps, offset), cast, scales);
    Call { weight, bias, before, ..Call::new(config, &input) }.check()?;
    let place = Place::of(&input, backend)?;
    let [rows, cols] = {
        let norm = bound(config, input.shape(), [const { None }; 10]).map_err(exception)?;
        outliers(&*norm, threshold).rows_and_cols(input.shape(), input.dtype()).map_err(exception)?
    };
    let fresh = |shape: &[usize], dtype| Fresh::new(py, &input, shape, Some(dtype));
    let codes = fresh(input.shape(), DType::I8)?;
    let scales = fresh(&per_row(input.shape(), config, 1), DType::F32)?;
    let flags = fresh(&[cols], DType::I32)?;
    flags.zero()?;
    let statistics = fresh(&[rows, STATISTICS], input.dtype().compute())?;
    let hidden = before.map(|residual| fresh(input.shape(), residual.dtype())).transpose()?;
    let outputs = [Some(&codes), Some(&scales), Some(&flags), Some(&statistics), hidden.as_ref()]
        .map(|fresh| fresh.map(|fresh| Target::New(&fresh.memory)));
    let result =
        place.run(py, [Some(&input), weight, bias, before], outputs, move |inputs, outputs, stream| {
            let [Some(input), weight, bias, residual] = inputs else { return Ok(()) };
            let [Some(mut codes), Some(scales), Some(mut flags), statistics, hidden] = outputs else {
                return Ok(());
            };
            let operands = [weight, bias, None, residual, None, None, None, None, None, None];
            let norm = bound(config, input.shape(), operands)?;
            let scales = scales.with_layout(Layout::contiguous(&[rows, 1]))?;
            let (codes_now, flags_now) = (codes.reborrow(), flags.reborrow());
            let outputs = OutlierOutputs { codes: codes_now, scales, flags: flags_now, statistics, hidden };
            outliers(&*norm, threshold).forward_into(&input, outputs, stream)?;
            zero_columns(&mut codes, &flags.in_place().0, stream)
        })?;
    result.map_err(exception)?;
    let hidden = hidden.map(Fresh::finish).transpose()?;
    Ok((codes.finish()?, scales.finish()?, flags.finish()?, statistics.finish()?, hidden))
}

/// The norm's result in `columns`, ascending numbers, in the input's dtype, from the statistics that `outlier_codes` has given.
#[pyfunction]
pub(crate) fn outlier_values<'py>(
    input: &Any<'py>,
    residual: Optional<'_, 'py>,
    weight: Optional<'_, 'py>,
    bias: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>,
    centred: bool,
    #[pyo3(from_py_with = arg::optional_eps)] eps: Option<f64>,
    #[pyo3(from_py_with = arg::offset)] offset: f64,
    #[pyo3(from_py_with = arg::cast)] cast: &'static str,
    #[pyo3(from_py_with = arg::input_scale)] input_scale: f64,
    #[pyo3(from_py_with = arg::residual_scale)] residual_scale: f64,
    #[pyo3(from_py_with = arg::threshold)] threshold: f64,
    statistics: &Any<'py>,
    columns: Vec<usize>,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<Any<'py>> {
    let (py, input, residual) = (input.py(), array("input", input)?, optional("residual", residual)?);
    let (weight, bias) = (optional("weight", weight)?, optional("bias", bias)?);
    let (weight, bias, before) = (weight.as_ref(), bias.as_ref(), residual.as_ref());
    let statistics = array("statistics", statistics)?;
    let scales = [input_scale, residual_scale];
    let config = &config(normalized_shape, (centred, before.is_some()), (eps, offset), cast, scales);
    Call { weight, bias, before, ..Call::new(config, &input) }.check()?;
    let place = Place::of(&input, backend)?;
    let values = Fresh::new(py, &input, &per_row(input.shape(), config, columns.len()), Some(input.dtype()))?;
    let inputs = [Some(&input), weight, bias, before, Some(&statistics)];
    let outputs = [Some(Target::New(&values.memory))];
    let result = place.run(py, inputs, outputs, move |inputs, outputs, stream| {
        let ([Some(input), weight, bias, residual, Some(statistics)], [Some(values)]) = (inputs, outputs)
        else {
            return Ok(());
        };
        let operands = [weight, bias, None, residual, None, None, None, None, None, None];
        let norm = bound(config, input.shape(), operands)?;
        let norm = outliers(&*norm, threshold);
        let [rows, _] = norm.rows_and_cols(input.shape(), input.dtype())?;
        let mut values = values.with_layout(Layout::contiguous(&[rows, columns.len()]))?;
        norm.values_into(&input, &statistics, &columns, &mut values, stream)
    })?;
    result.map_err(exception)?;
    values.finish()
}
