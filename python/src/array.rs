//! Arrays of any library, borrowed for a call: what they say of their memory, and who keeps it.

use crate::capsule::Managed;
use crate::dlpack;
use crate::errors::{runtime_error, type_error, value_error};
use crate::exchange::{Exchange, is_negated};
use crate::memory::{Kind, Memory, wrong_dtype};
use normkit::tensor::{DType, Dims};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods, npyffi};
use pyo3::prelude::*;

/// An argument that is an array. Its memory stays where it is while this lives.
pub(crate) struct Array<'py> {
    pub(crate) name: &'static str,
    pub(crate) memory: Memory,
    pub(crate) source: Source<'py>,
}

/// Who describes the memory, and what keeps it.
pub(crate) enum Source<'py> {
    NumPy(Bound<'py, PyUntypedArray>),
    /// A library with DLPack's C functions: PyTorch.
    Exchange(Bound<'py, PyAny>, Exchange),
    /// Any other, by a capsule.
    Capsule(Bound<'py, PyAny>, #[expect(dead_code, reason = "it is kept, and freed when dropped")] Managed),
    /// A number that was given in place of an array.
    Number(#[expect(dead_code, reason = "it is kept")] Box<f64>),
}

/// Whether arrays that an autograd engine follows are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Autograd {
    /// They are not: the result would have lost its history.
    Refused,
    /// They are: the caller keeps the history.
    Ignored,
}

impl<'py> Array<'py> {
    /// The array behind `object`.
    pub(crate) fn new(name: &'static str, object: &Bound<'py, PyAny>, autograd: Autograd) -> PyResult<Self> {
        Array::of_kind(name, object, autograd, Kind::Floats)
    }

    /// That of indices, which may be None.
    pub(crate) fn indices(name: &'static str, object: Option<&Bound<'py, PyAny>>) -> PyResult<Option<Self>> {
        object.map(|object| Array::of_kind(name, object, Autograd::Ignored, Kind::Integers)).transpose()
    }

    fn of_kind(
        name: &'static str,
        object: &Bound<'py, PyAny>,
        autograd: Autograd,
        kind: Kind,
    ) -> PyResult<Self> {
        if let Ok(array) = object.cast::<PyUntypedArray>() {
            return Array::of_numpy(name, array, kind);
        }
        if autograd == Autograd::Refused {
            check_no_grad(name, object)?;
        }
        check_plain(name, object)?;
        if let Some(exchange) = Exchange::of(object)? {
            let memory = exchange.describe(name, object)?.of_kind(name, kind)?;
            return Ok(Array { name, memory, source: Source::Exchange(object.clone(), exchange) });
        }
        if object.hasattr(pyo3::intern!(object.py(), "__dlpack__"))? {
            // PyTorch before 2.10, which has no functions, exports no tensor with a history.
            let alone = if requires_grad(object)? { &object.call_method0("detach")? } else { object };
            let managed = Managed::export(name, alone)?;
            let memory = managed.memory(name)?.of_kind(name, kind)?;
            return Ok(Array { name, memory, source: Source::Capsule(object.clone(), managed) });
        }
        let found = object.get_type().name()?;
        let expected = "an array of NumPy, PyTorch, JAX, CuPy or another library with __dlpack__";
        Err(type_error(format!("{name}: expected {expected}, found {found}")))
    }

    /// The same for an argument that may be None.
    pub(crate) fn optional(
        name: &'static str,
        object: Option<&Bound<'py, PyAny>>,
        autograd: Autograd,
    ) -> PyResult<Option<Self>> {
        object.map(|object| Array::new(name, object, autograd)).transpose()
    }

    /// A number as an array of one element, in the dtype that an input of `dtype` computes in.
    pub(crate) fn number(name: &'static str, value: f64, dtype: DType) -> PyResult<Self> {
        let mut kept = Box::new(value);
        let compute = dtype.compute();
        let at = std::ptr::from_mut::<f64>(&mut kept).cast::<u8>();
        if compute == DType::F32 {
            // SAFETY: the box has eight bytes of its own, aligned for either.
            unsafe { at.cast::<f32>().write(value as f32) };
        }
        let place = (crate::memory::Residence::Host, at);
        let memory = Memory::new(name, place, compute, (&[], &[]), None)?;
        Ok(Array { name, memory, source: Source::Number(kept) })
    }

    fn of_numpy(name: &'static str, array: &Bound<'py, PyUntypedArray>, kind: Kind) -> PyResult<Self> {
        if !array.is_exact_instance_of::<PyUntypedArray>() && array.hasattr("mask")? {
            return Err(type_error(format!("{name}: expected an array without a mask, found a masked one")));
        }
        let dtype = numpy_dtype(name, &array.dtype(), kind)?;
        let size = dtype.size() as isize;
        let mut strides = Dims::new();
        for (&stride, &length) in array.strides().iter().zip(array.shape()) {
            if stride % size != 0 && length > 1 {
                let expected = format!("strides that are multiples of {size} bytes (a copy has them)");
                return Err(value_error(format!("{name}: expected {expected}, found {stride} bytes")));
            }
            strides.push(stride / size);
        }
        // SAFETY: the array is alive, and its fields are read while Python is attached.
        let (data, flags) = unsafe {
            let raw = array.as_array_ptr();
            ((*raw).fields.data.cast::<u8>(), (*raw).fields.flags)
        };
        let frozen = (flags & npyffi::NPY_ARRAY_WRITEABLE == 0).then_some("a read-only array");
        let place = (crate::memory::Residence::Host, data);
        let memory = Memory::new(name, place, dtype, (array.shape(), &strides), frozen)?;
        Ok(Array { name, memory, source: Source::NumPy(array.clone()) })
    }

    pub(crate) fn shape(&self) -> &[usize] {
        self.memory.shape()
    }

    pub(crate) fn dtype(&self) -> DType {
        self.memory.dtype
    }

    /// Why the memory of a DLPack tensor with these flags may not be written.
    pub(crate) fn frozen(flags: u64) -> Option<&'static str> {
        (flags & dlpack::READ_ONLY != 0).then_some("a read-only array")
    }
}

/// Whether somebody wants a gradient of a tensor.
fn requires_grad(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let flag = object.getattr_opt(pyo3::intern!(object.py(), "requires_grad"))?;
    Ok(flag.is_some_and(|flag| flag.is_truthy().unwrap_or(false)))
}

/// Refuses a tensor whose gradient somebody wants.
fn check_no_grad(name: &str, object: &Bound<'_, PyAny>) -> PyResult<()> {
    if requires_grad(object)? {
        let message = "expected a tensor without gradient, found one that requires grad; \
            use normkit.torch, or tensor.detach()";
        return Err(runtime_error(format!("{name}: {message}")));
    }
    Ok(())
}

/// Refuses a tensor of PyTorch whose elements are the negatives of what lies in memory, which DLPack cannot say.
fn check_plain(name: &str, object: &Bound<'_, PyAny>) -> PyResult<()> {
    if is_negated(object)? {
        let found = "one that is negated when it is read; use tensor.resolve_neg()";
        return Err(value_error(format!("{name}: expected a tensor with plain memory, found {found}")));
    }
    Ok(())
}

fn numpy_dtype(name: &str, descr: &Bound<'_, PyArrayDescr>, kind: Kind) -> PyResult<DType> {
    let native = descr.is_native_byteorder().unwrap_or(false);
    let found = || -> PyErr {
        let text = descr.str().map_or_else(|_| "unknown".to_owned(), |text| text.to_string());
        wrong_dtype(name, &text, kind)
    };
    match npyffi::NPY_TYPES::NPY_USERDEF as i32 {
        _ if !native => Err(found()),
        // Which of C's types they are depends on the platform.
        _ if kind == Kind::Integers => match (descr.kind(), descr.itemsize()) {
            (b'i', 4) => Ok(DType::I32),
            (b'i', 8) => Ok(DType::I64),
            _ => Err(found()),
        },
        user if descr.num() >= user => {
            let is_bfloat16 = descr.typeobj().name()?.to_str()? == "bfloat16" && descr.itemsize() == 2;
            if is_bfloat16 { Ok(DType::BF16) } else { Err(found()) }
        }
        _ => match descr.num() {
            n if n == npyffi::NPY_TYPES::NPY_HALF as i32 => Ok(DType::F16),
            n if n == npyffi::NPY_TYPES::NPY_FLOAT as i32 => Ok(DType::F32),
            n if n == npyffi::NPY_TYPES::NPY_DOUBLE as i32 => Ok(DType::F64),
            _ => Err(found()),
        },
    }
}
