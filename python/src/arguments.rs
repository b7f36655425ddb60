//! Arguments that are not arrays. Python's own conversions do not name the argument and have errors of their own kinds;
//! these give TypeError for what is no number, and ValueError, with the argument's name, for a number that cannot be.

use crate::errors::{type_error, value_error};
use crate::memory::numpy_name;
use crate::place::BACKENDS;
use normkit::tensor::DType;
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyString, PyTuple};

/// A conversion for each argument, since PyO3 does not tell one which argument it converts.
macro_rules! named {
    ($($name:ident: $conversion:ident -> $type:ty),* $(,)?) => {
        $(pub(crate) fn $name(object: &Bound<'_, PyAny>) -> PyResult<$type> {
            $conversion(stringify!($name), object)
        })*
    };
}

named! {
    eps: real -> f64,
    momentum: real -> f64,
    p: real -> f64,
    offset: real -> f64,
    partial: real -> f64,
    input_scale: real -> f64,
    residual_scale: real -> f64,
    alpha_scale: real -> f64,
    dropout_p: real -> f64,
    dropout_seed: word -> u64,
    dropout_offset: word -> u64,
    num_groups: count -> usize,
    num_features: count -> usize,
    num_channels: count -> usize,
    cols: count -> usize,
    group_size: count -> usize,
    dim: integer -> isize,
    normalized_shape: sizes -> Vec<usize>,
    shape: sizes -> Vec<usize>,
    training: flag -> bool,
    use_input_stats: flag -> bool,
    norm_before_gate: flag -> bool,
    centred: flag -> bool,
    interleaved: flag -> bool,
    statistics: flag -> bool,
}

/// The name of a cast mode.
pub(crate) fn cast(object: &Bound<'_, PyAny>) -> PyResult<&'static str> {
    one_of("cast", &["fp32", "llama", "gemma"], object)
}

/// The name of a kind of QK norm.
pub(crate) fn kind(object: &Bound<'_, PyAny>) -> PyResult<&'static str> {
    one_of("kind", &["rms", "l2", "layer"], object)
}

/// The name of a function after a norm, or None.
pub(crate) fn activation(object: &Bound<'_, PyAny>) -> PyResult<Option<&'static str>> {
    if object.is_none() {
        return Ok(None);
    }
    one_of("activation", &["relu", "silu", "gelu", "gelu_tanh"], object).map(Some)
}

/// The name of what comes before a norm, or None.
pub(crate) fn before(object: &Bound<'_, PyAny>) -> PyResult<Option<&'static str>> {
    if object.is_none() { Ok(None) } else { one_of("before", &["residual"], object).map(Some) }
}

/// The name of what comes after a norm, or None.
pub(crate) fn after(object: &Bound<'_, PyAny>) -> PyResult<Option<&'static str>> {
    if object.is_none() { Ok(None) } else { one_of("after", &["residual"], object).map(Some) }
}

/// The name of a backend, or None.
pub(crate) fn backend(object: &Bound<'_, PyAny>) -> PyResult<Option<&'static str>> {
    if object.is_none() { Ok(None) } else { one_of("backend", &BACKENDS, object).map(Some) }
}

/// eps where None has a meaning of its own.
pub(crate) fn optional_eps(object: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    if object.is_none() { Ok(None) } else { eps(object).map(Some) }
}

/// The dtype of codes: by its name, or a dtype of NumPy, ml_dtypes or PyTorch that has it.
pub(crate) fn code_dtype(object: &Bound<'_, PyAny>) -> PyResult<DType> {
    let named = |attribute: &str| {
        object.getattr_opt(attribute).ok().flatten().filter(|name| name.is_instance_of::<PyString>())
    };
    // A string; a dtype of NumPy; a type of ml_dtypes; PyTorch's, whose text is torch.int8.
    let text = match named("name").or_else(|| named("__name__")) {
        Some(name) => name.to_string(),
        None => object.str()?.to_string(),
    };
    let found = text.strip_prefix("torch.").unwrap_or(&text);
    let wanted = DType::CODES.into_iter().find(|&dtype| numpy_name(dtype) == found);
    wanted.ok_or_else(|| {
        let names = DType::CODES.map(|dtype| format!("'{}'", numpy_name(dtype))).join(", ");
        value_error(format!("dtype: expected one of {names}, found '{found}'"))
    })
}

/// The scale of all codes where None is one of each row.
pub(crate) fn optional_scale(object: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    if object.is_none() { Ok(None) } else { real("scale", object).map(Some) }
}

/// What bounds a scale, or None.
pub(crate) fn optional_upper_bound(object: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    if object.is_none() { Ok(None) } else { real("upper_bound", object).map(Some) }
}

/// The least magnitude of an outlier.
pub(crate) fn threshold(object: &Bound<'_, PyAny>) -> PyResult<f64> {
    real("threshold", object)
}

/// The columns that share a scale where None is all of a row.
pub(crate) fn optional_block_size(object: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    if object.is_none() { Ok(None) } else { count("block_size", object).map(Some) }
}

/// The size of a group where None is all.
pub(crate) fn optional_group_size(object: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    if object.is_none() { Ok(None) } else { group_size(object).map(Some) }
}

/// The axis of a weight norm; None and -1 are the whole tensor.
pub(crate) fn kept_dim(object: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    if object.is_none() {
        return Ok(None);
    }
    match dim(object)? {
        -1 => Ok(None),
        other => usize::try_from(other).map(Some).map_err(|_| {
            value_error(format!("dim: expected an axis, or -1 or None for the whole tensor, found {other}"))
        }),
    }
}

pub(crate) fn type_name(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "an object".to_owned(), |name| name.to_string())
}

fn one_of(name: &str, names: &[&'static str], object: &Bound<'_, PyAny>) -> PyResult<&'static str> {
    let quoted = || names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let Ok(found) = object.cast::<PyString>() else {
        return Err(type_error(format!("{name}: expected one of {}, found {}", quoted(), type_name(object))));
    };
    let found = found.to_string_lossy();
    (names.iter().copied().find(|name| *name == found))
        .ok_or_else(|| value_error(format!("{name}: expected one of {}, found '{found}'", quoted())))
}

/// True or False, and NumPy's.
fn flag(name: &str, object: &Bound<'_, PyAny>) -> PyResult<bool> {
    object
        .extract::<bool>()
        .map_err(|_| type_error(format!("{name}: expected True or False, found {}", type_name(object))))
}

fn real(name: &str, object: &Bound<'_, PyAny>) -> PyResult<f64> {
    object.extract::<f64>().map_err(|error| {
        if error.is_instance_of::<PyOverflowError>(object.py()) {
            return value_error(format!(
                "{name}: expected a number that a float can hold, found a larger one"
            ));
        }
        type_error(format!("{name}: expected a number, found {}", type_name(object)))
    })
}

fn integer(name: &str, object: &Bound<'_, PyAny>) -> PyResult<isize> {
    object.extract::<isize>().map_err(|error| {
        if error.is_instance_of::<PyOverflowError>(object.py()) {
            return value_error(format!("{name}: expected a whole number of 64 bits, found a larger one"));
        }
        type_error(format!("{name}: expected an int, found {}", type_name(object)))
    })
}

fn count(name: &str, object: &Bound<'_, PyAny>) -> PyResult<usize> {
    let found = integer(name, object)?;
    usize::try_from(found)
        .map_err(|_| value_error(format!("{name}: expected a size from 0 up, found {found}")))
}

/// A number of 64 bits; negative ones as their bits.
fn word(name: &str, object: &Bound<'_, PyAny>) -> PyResult<u64> {
    if let Ok(found) = object.extract::<u64>() {
        return Ok(found);
    }
    integer(name, object).map(|found| found as u64)
}

/// One size, or a sequence of them.
fn sizes(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    // First, since an int that is asked for its items makes an exception.
    if object.is_instance_of::<PyInt>() {
        return Ok(vec![count(name, object)?]);
    }
    // What most callers give; iterators cost more.
    if let Ok(items) = object.cast::<PyTuple>() {
        return items.iter_borrowed().map(|item| count(name, &item)).collect();
    }
    let is_text = object.is_instance_of::<PyString>() || object.is_instance_of::<PyBytes>();
    if !is_text && let Ok(items) = object.try_iter() {
        return items.map(|item| count(name, &item?)).collect();
    }
    if object.hasattr("__index__")? {
        return Ok(vec![count(name, object)?]);
    }
    Err(type_error(format!("{name}: expected an int or a sequence of ints, found {}", type_name(object))))
}
