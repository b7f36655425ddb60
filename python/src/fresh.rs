//! New arrays for results: of the same library as the input, where the input is.

use crate::arguments::type_name;
use crate::array::{Array, Source};
use crate::errors::type_error;
use crate::export::Exporter;
use crate::memory::{Memory, Residence, numpy_name, row_major};
use crate::place;
use normkit::tensor::DType;
use numpy::npyffi::{self, PY_ARRAY_API, npy_intp};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyType;

/// An array that a call will have written when it ends.
pub(crate) struct Fresh<'py> {
    pub(crate) memory: Memory,
    object: Object<'py>,
}

enum Object<'py> {
    Ready(Bound<'py, PyAny>),
    /// To be taken over by the library of this type.
    Exported(Bound<'py, Exporter>, Bound<'py, PyAny>),
}

impl<'py> Fresh<'py> {
    /// An array like `like`, of its dtype, or of `dtype` where another is given. It is row-major, but for images and volumes
    /// whose channels are innermost, of a library with DLPack's functions: they stay so, as PyTorch has it.
    pub(crate) fn new(
        py: Python<'py>,
        like: &Array<'py>,
        shape: &[usize],
        dtype: Option<DType>,
    ) -> PyResult<Self> {
        let residence = like.memory.residence;
        let own = dtype.unwrap_or(like.dtype());
        match &like.source {
            Source::NumPy(array) => {
                let descr = if own == like.dtype() { array.dtype() } else { descr_of(py, own)? };
                Fresh::numpy(py, shape, (own, descr))
            }
            Source::Exchange(_, exchange) => {
                let channels_last = shape == like.shape() && like.memory.channels_last;
                let (object, memory) = exchange.allocate(py, residence, (shape, own), channels_last)?;
                Ok(Fresh { memory, object: Object::Ready(object) })
            }
            Source::Capsule(object, _) => {
                let exporter = match residence {
                    Residence::Host => Exporter::host(shape, own)?,
                    Residence::Cuda(ordinal) => place::new_on_cuda(ordinal, shape, own)?,
                };
                let memory = exporter.memory().clone();
                Ok(Fresh { memory, object: Object::Exported(Bound::new(py, exporter)?, object.clone()) })
            }
            Source::Number(_) => Fresh::numpy(py, shape, (own, descr_of(py, own)?)),
        }
    }

    fn numpy(
        py: Python<'py>,
        shape: &[usize],
        (dtype, descr): (DType, Bound<'py, PyArrayDescr>),
    ) -> PyResult<Self> {
        let mut sizes: Vec<npy_intp> = shape.iter().map(|&size| size as npy_intp).collect();
        let rank = sizes.len() as i32;
        // SAFETY: the shape has `rank` sizes, and the function takes over the reference to the dtype.
        let array = unsafe {
            let made = PY_ARRAY_API.PyArray_Empty(py, rank, sizes.as_mut_ptr(), descr.into_dtype_ptr(), 0);
            Bound::from_owned_ptr_or_err(py, made)
        }?;
        let array = array.cast_into::<PyUntypedArray>()?;
        // SAFETY: the array was made a moment ago.
        let data = unsafe { (*array.as_array_ptr()).fields.data.cast::<u8>() };
        let memory = Memory::new("output", (Residence::Host, data), dtype, (shape, &row_major(shape)), None)?;
        Ok(Fresh { memory, object: Object::Ready(array.into_any()) })
    }

    /// Fills it with zeros.
    pub(crate) fn zero(&self) -> PyResult<()> {
        match (self.memory.residence, &self.object) {
            (Residence::Host, _) => {
                let (first, bytes) = self.memory.range();
                // SAFETY: these are the bytes of an array that was made a moment ago, which nobody else has.
                unsafe { std::ptr::write_bytes(first, 0, bytes) };
            }
            (Residence::Cuda(_), Object::Ready(object)) => {
                object.call_method0(pyo3::intern!(object.py(), "zero_"))?;
            }
            // Such an array is made of zeros.
            (Residence::Cuda(_), Object::Exported(..)) => {}
        }
        Ok(())
    }

    /// The array, once it has been written.
    pub(crate) fn finish(self) -> PyResult<Bound<'py, PyAny>> {
        match self.object {
            Object::Ready(object) => Ok(object),
            Object::Exported(exporter, like) => library_of(&like)?.call1((exporter,)),
        }
    }
}

/// NumPy's dtype; bfloat16 and floats of 8 bits are those of ml_dtypes.
fn descr_of(py: Python<'_>, dtype: DType) -> PyResult<Bound<'_, PyArrayDescr>> {
    let number = match dtype {
        DType::F16 => npyffi::NPY_TYPES::NPY_HALF,
        DType::F32 => npyffi::NPY_TYPES::NPY_FLOAT,
        DType::F64 => npyffi::NPY_TYPES::NPY_DOUBLE,
        DType::I8 => npyffi::NPY_TYPES::NPY_BYTE,
        DType::I32 => npyffi::NPY_TYPES::NPY_INT,
        DType::I64 => npyffi::NPY_TYPES::NPY_LONGLONG,
        DType::BF16 | DType::F8E4M3 | DType::F8E5M2 => {
            return PyArrayDescr::new(py, py.import("ml_dtypes")?.getattr(numpy_name(dtype))?);
        }
    };
    // SAFETY: the number is one of NumPy's own, and the function returns a new reference.
    unsafe {
        let descr = PY_ARRAY_API.PyArray_DescrFromType(py, number as i32);
        Bound::from_owned_ptr_or_err(py, descr.cast())
            .and_then(|descr| Ok(descr.cast_into::<PyArrayDescr>()?))
    }
}

/// The function that makes an array of the library of `like` from one that offers DLPack: that of its array namespace, else
/// of the package that its type is from.
fn library_of<'py>(like: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = like.py();
    let from_dlpack = pyo3::intern!(py, "from_dlpack");
    if let Some(namespace) = like.getattr_opt(pyo3::intern!(py, "__array_namespace__"))? {
        return namespace.call0()?.getattr(from_dlpack);
    }
    let kind: Bound<'py, PyType> = like.get_type();
    let module = kind.module()?;
    let package = module.to_str()?.split('.').next().unwrap_or_default().to_owned();
    let found = py.import(package.as_str()).ok().and_then(|package| package.getattr(from_dlpack).ok());
    found.ok_or_else(|| {
        let name = type_name(like);
        let expected = "an array whose library makes arrays from DLPack (__array_namespace__, or its package's from_dlpack)";
        type_error(format!("input: expected {expected}, found {name}"))
    })
}
