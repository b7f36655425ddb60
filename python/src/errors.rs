//! normkit's errors as Python's.

use normkit::Error;
use pyo3::exceptions::{PyMemoryError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;

/// The exception for `error`: TypeError where a dtype is wrong, ValueError for other arguments, MemoryError, and
/// RuntimeError for what a device did.
pub(crate) fn exception(error: Error) -> PyErr {
    renamed(error, &[])
}

/// The same with arguments called what the function at hand calls them: pairs of the method's name and its own.
pub(crate) fn renamed(error: Error, names: &[(&str, &str)]) -> PyErr {
    match error {
        Error::Argument { name, expected, found } => {
            let name = names.iter().find_map(|(from, to)| (*from == name).then_some(*to)).unwrap_or(name);
            let message = format!("{name}: expected {expected}, found {found}");
            if found.starts_with("dtype ") { type_error(message) } else { value_error(message) }
        }
        Error::UnsupportedDType { .. } => type_error(error.to_string()),
        Error::OutOfMemory { .. } => PyMemoryError::new_err(error.to_string()),
        _ => PyRuntimeError::new_err(error.to_string()),
    }
}

pub(crate) fn type_error(message: impl Into<String>) -> PyErr {
    PyTypeError::new_err(message.into())
}

pub(crate) fn value_error(message: impl Into<String>) -> PyErr {
    PyValueError::new_err(message.into())
}

pub(crate) fn runtime_error(message: impl Into<String>) -> PyErr {
    PyRuntimeError::new_err(message.into())
}
