//! DLPack's capsules of other libraries' arrays.

use crate::array::Array;
use crate::dlpack::{self, Versioned};
use crate::errors::{runtime_error, type_error, value_error};
use crate::memory::Memory;
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};
use std::ffi::CStr;

pub(crate) const LEGACY: &CStr = c"dltensor";
const LEGACY_USED: &CStr = c"used_dltensor";
pub(crate) const VERSIONED: &CStr = c"dltensor_versioned";
const VERSIONED_USED: &CStr = c"used_dltensor_versioned";

/// What an array exported. Its deleter is called once, when this is dropped; Python is attached then.
pub(crate) enum Managed {
    Legacy(*mut dlpack::Managed),
    Versioned(*mut Versioned),
}

impl Drop for Managed {
    fn drop(&mut self) {
        // SAFETY: the capsule that pointed here has been marked as used, so the deleter is called by nobody else.
        unsafe {
            match *self {
                Managed::Legacy(at) => (*at).deleter.into_iter().for_each(|delete| delete(at)),
                Managed::Versioned(at) => (*at).deleter.into_iter().for_each(|delete| delete(at)),
            }
        }
    }
}

impl Managed {
    /// Asks `object` for a capsule and takes what is in it.
    pub(crate) fn export(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = object.py();
        let wanted = PyDict::new(py);
        wanted.set_item("max_version", (dlpack::MAJOR, 0))?;
        if on_cuda(object)? {
            // The legacy default stream, with which the launches are in order.
            wanted.set_item("stream", 1)?;
        }
        let export = object.getattr(pyo3::intern!(py, "__dlpack__"))?;
        let exported = match export.call((), Some(&wanted)) {
            // From before there were versions.
            Err(error) if error.is_instance_of::<PyTypeError>(py) => {
                wanted.del_item("max_version")?;
                export.call((), Some(&wanted))
            }
            other => other,
        };
        let exported = exported.map_err(|error| {
            let kind = if error.is_instance_of::<PyBufferError>(py) { type_error } else { runtime_error };
            let message =
                format!("{name}: expected an array that exports its memory by __dlpack__, found {error}");
            let wrapped = kind(message);
            wrapped.set_cause(py, Some(error));
            wrapped
        })?;
        Managed::take(name, &exported)
    }

    /// Takes what is in a capsule, and marks it as used.
    fn take(name: &str, capsule: &Bound<'_, PyAny>) -> PyResult<Self> {
        let at = capsule.as_ptr();
        // SAFETY: each call takes any object. What a capsule of these names holds is DLPack's.
        unsafe {
            if ffi::PyCapsule_IsValid(at, VERSIONED.as_ptr()) == 1 {
                let tensor = ffi::PyCapsule_GetPointer(at, VERSIONED.as_ptr()).cast::<Versioned>();
                if (*tensor).version.major != dlpack::MAJOR {
                    let found = (*tensor).version.major;
                    return Err(type_error(format!(
                        "{name}: expected DLPack {}, found {found}",
                        dlpack::MAJOR
                    )));
                }
                ffi::PyCapsule_SetName(at, VERSIONED_USED.as_ptr());
                return Ok(Managed::Versioned(tensor));
            }
            if ffi::PyCapsule_IsValid(at, LEGACY.as_ptr()) == 1 {
                let tensor = ffi::PyCapsule_GetPointer(at, LEGACY.as_ptr()).cast::<dlpack::Managed>();
                ffi::PyCapsule_SetName(at, LEGACY_USED.as_ptr());
                return Ok(Managed::Legacy(tensor));
            }
        }
        let found =
            if capsule.is_instance_of::<PyCapsule>() { "a capsule that was used already" } else { "none" };
        Err(value_error(format!("{name}: expected a DLPack capsule from __dlpack__, found {found}")))
    }

    /// What it says of the memory.
    pub(crate) fn memory(&self, name: &str) -> PyResult<Memory> {
        // SAFETY: the exporter keeps both until the deleter is called.
        unsafe {
            match *self {
                Managed::Legacy(at) => {
                    // Legacy capsules cannot say whether it may be written, and some libraries' may not.
                    let frozen = Some("an array that does not say that it can be");
                    Memory::of_dlpack(name, &(*at).tensor, frozen)
                }
                Managed::Versioned(at) => Memory::of_dlpack(name, &(*at).tensor, Array::frozen((*at).flags)),
            }
        }
    }
}

fn on_cuda(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let Some(device) = object.getattr_opt(pyo3::intern!(object.py(), "__dlpack_device__"))? else {
        return Ok(false);
    };
    Ok(device.call0()?.extract::<(i32, i64)>().is_ok_and(|(kind, _)| kind == dlpack::CUDA))
}
