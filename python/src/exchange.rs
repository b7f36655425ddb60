//! DLPack's C functions of a library's own tensor type, for calls that cost next to nothing.

use crate::array::Array;
use crate::dlpack::{self, ExchangeApi, Versioned};
use crate::errors::{runtime_error, type_error};
use crate::memory::{Memory, Residence};
use normkit::tensor::DType;
use pyo3::exceptions::PyMemoryError;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::{CStr, c_char, c_void};
use std::ptr::{NonNull, null_mut};

/// The functions. They live as long as the process.
#[derive(Clone, Copy)]
pub(crate) struct Exchange(&'static ExchangeApi);

const CAPSULE: &CStr = c"dlpack_exchange_api";

impl Exchange {
    /// The functions that the type of `object` offers, if it does.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let py = object.py();
        let name = pyo3::intern!(py, "__dlpack_c_exchange_api__");
        let Some(capsule) = object.get_type().getattr_opt(name)? else { return Ok(None) };
        // SAFETY: both calls take any object; the second is made for a capsule of this name only.
        let pointer = unsafe {
            if ffi::PyCapsule_IsValid(capsule.as_ptr(), CAPSULE.as_ptr()) == 0 {
                return Ok(None);
            }
            ffi::PyCapsule_GetPointer(capsule.as_ptr(), CAPSULE.as_ptr())
        };
        // SAFETY: DLPack says what a capsule of this name points to, and that it is never freed.
        let api: Option<&'static ExchangeApi> = unsafe { pointer.cast::<ExchangeApi>().as_ref() };
        let complete = |api: &ExchangeApi| {
            api.version.major == dlpack::MAJOR
                && api.allocate.is_some()
                && api.import.is_some()
                && api.describe.is_some()
                && api.current_stream.is_some()
        };
        Ok(api.filter(|api| complete(api)).map(Exchange))
    }

    /// What `object`, whose type offered the functions, says of its memory.
    pub(crate) fn describe(self, name: &str, object: &Bound<'_, PyAny>) -> PyResult<Memory> {
        let mut tensor = unfilled();
        let describe = self.0.describe.ok_or_else(incomplete)?;
        // SAFETY: the object has the type that the function is for, and Python is attached.
        if unsafe { describe(object.as_ptr().cast(), &mut tensor) } != 0 {
            let error = PyErr::take(object.py());
            let reason = error.map_or_else(|| "no reason given".to_owned(), |error| error.to_string());
            // Further lines are a trace of calls.
            let reason = reason.lines().next().unwrap_or_default();
            return Err(type_error(format!(
                "{name}: expected a tensor with plain memory, found one without: {reason}"
            )));
        }
        // SAFETY: the library has filled it, and it is read before anything else happens.
        unsafe { Memory::of_dlpack(name, &tensor, None) }
    }

    /// A new tensor of the library, and its memory: row-major, or `channels_last`.
    pub(crate) fn allocate<'py>(
        self,
        py: Python<'py>,
        residence: Residence,
        (shape, dtype): (&[usize], DType),
        channels_last: bool,
    ) -> PyResult<(Bound<'py, PyAny>, Memory)> {
        let mut sizes: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        if channels_last {
            sizes[1..].rotate_left(1);
        }
        let mut prototype = dlpack::Tensor {
            device: device_of(residence),
            ndim: sizes.len() as i32,
            dtype: type_of(dtype),
            shape: sizes.as_mut_ptr(),
            ..unfilled()
        };
        let (allocate, import) =
            (self.0.allocate.ok_or_else(incomplete)?, self.0.import.ok_or_else(incomplete)?);
        let mut failure: Option<String> = None;
        let mut made: *mut Versioned = null_mut();
        // SAFETY: the prototype has what DLPack asks for, and `note` is called with the context given here.
        let code = unsafe { allocate(&mut prototype, &mut made, (&raw mut failure).cast(), note) };
        let Some(made) = NonNull::new(made).filter(|_| code == 0) else {
            return Err(PyMemoryError::new_err(
                failure.unwrap_or_else(|| "the library has no memory".to_owned()),
            ));
        };
        if channels_last {
            // SAFETY: the library made it a moment ago with as many sizes and strides, and nobody else has it yet.
            unsafe {
                let tensor = &made.as_ref().tensor;
                for numbers in [tensor.shape, tensor.strides] {
                    if !numbers.is_null() {
                        std::slice::from_raw_parts_mut(numbers, shape.len())[1..].rotate_right(1);
                    }
                }
            }
        }
        // SAFETY: the library made it a moment ago.
        let memory =
            unsafe { Memory::of_dlpack("output", &made.as_ref().tensor, Array::frozen(made.as_ref().flags)) };
        if let Ok(memory) = &memory {
            memory.prefer_large_pages();
        }
        let mut object: *mut c_void = null_mut();
        // SAFETY: it is handed over, and used no more.
        if unsafe { import(made.as_ptr(), &mut object) } != 0 {
            return Err(PyErr::fetch(py));
        }
        // SAFETY: the function returns a new reference.
        let object = unsafe { Bound::from_owned_ptr_or_err(py, object.cast()) }?;
        Ok((object, memory?))
    }

    /// The stream on which the library enqueues its work now.
    pub(crate) fn current_stream(self, py: Python<'_>, ordinal: usize) -> PyResult<*mut c_void> {
        let current = self.0.current_stream.ok_or_else(incomplete)?;
        let mut stream = null_mut();
        // SAFETY: it writes one pointer.
        if unsafe { current(dlpack::CUDA, ordinal as i32, &mut stream) } != 0 {
            return Err(PyErr::fetch(py));
        }
        Ok(stream)
    }
}

/// Whether the table has a function is seen before anything is made of it.
fn incomplete() -> PyErr {
    runtime_error("the library's DLPack functions are incomplete")
}

/// Takes the message of an allocation that failed.
unsafe extern "C" fn note(context: *mut c_void, _kind: *const c_char, message: *const c_char) {
    // SAFETY: the context is the one that `allocate` was given, and the message a string, while it runs.
    unsafe {
        let text =
            if message.is_null() { String::new() } else { CStr::from_ptr(message).to_string_lossy().into() };
        *context.cast::<Option<String>>() = Some(text);
    }
}

/// A tensor of nothing.
pub(crate) fn unfilled() -> dlpack::Tensor {
    dlpack::Tensor {
        data: null_mut(),
        device: device_of(Residence::Host),
        ndim: 0,
        dtype: type_of(DType::F32),
        shape: null_mut(),
        strides: null_mut(),
        byte_offset: 0,
    }
}

/// DLPack's words for a place.
pub(crate) fn device_of(residence: Residence) -> dlpack::Device {
    match residence {
        Residence::Host => dlpack::Device { device_type: dlpack::CPU, device_id: 0 },
        Residence::Cuda(ordinal) => dlpack::Device { device_type: dlpack::CUDA, device_id: ordinal as i32 },
    }
}

/// DLPack's words for a dtype.
pub(crate) fn type_of(dtype: DType) -> dlpack::DataType {
    let code = match dtype {
        DType::BF16 => dlpack::BFLOAT,
        DType::I8 | DType::I32 | DType::I64 => dlpack::INT,
        DType::F8E4M3 => dlpack::FLOAT8_E4M3FN,
        DType::F8E5M2 => dlpack::FLOAT8_E5M2,
        DType::F16 | DType::F32 | DType::F64 => dlpack::FLOAT,
    };
    dlpack::DataType { code, bits: 8 * dtype.size() as u8, lanes: 1 }
}
