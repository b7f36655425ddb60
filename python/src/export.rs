//! Results for libraries that offer no way to allocate: memory of normkit's own, which they take over by DLPack.

use crate::capsule::{LEGACY, VERSIONED};
use crate::dlpack::{self, Managed, Version, Versioned};
use crate::errors::exception;
use crate::exchange::{device_of, type_of, unfilled};
use crate::memory::{Memory, Residence, row_major};
use normkit::tensor::{DType, HostTensor};
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::c_void;
use std::sync::Arc;

/// An array of normkit's own, for as long as it takes another library to take it over.
#[pyclass(frozen, name = "_Result", module = "normkit._normkit")]
pub(crate) struct Exporter {
    memory: Memory,
    kept: Arc<Kept>,
}

/// The elements.
enum Kept {
    Host(#[expect(dead_code, reason = "it is kept")] HostTensor),
    Cuda(
        normkit::backend::cuda::CudaDevice,
        #[expect(dead_code, reason = "it is kept")] normkit::backend::cuda::CudaTensor,
    ),
}

/// An exported tensor, the numbers it points to, and what owns the elements: no object of Python's, since libraries free
/// tensors where Python's lock is not held, and do not say so.
struct Exported {
    versioned: Versioned,
    legacy: Managed,
    #[expect(dead_code, reason = "the tensors point into it")]
    shape: Vec<i64>,
    #[expect(dead_code, reason = "the tensors point into it")]
    strides: Vec<i64>,
    #[expect(dead_code, reason = "it owns the elements")]
    owner: Arc<Kept>,
}

impl Exporter {
    /// Zeros on the host.
    pub(crate) fn host(shape: &[usize], dtype: DType) -> PyResult<Self> {
        let mut tensor = HostTensor::zeros(shape, dtype).map_err(exception)?;
        let place = (Residence::Host, tensor.bytes_mut().as_mut_ptr());
        let memory = Memory::new("output", place, dtype, (shape, &row_major(shape)), None)?;
        Ok(Exporter { memory, kept: Arc::new(Kept::Host(tensor)) })
    }

    /// Elements on a GPU.
    pub(crate) fn cuda(
        device: &normkit::backend::cuda::CudaDevice,
        shape: &[usize],
        dtype: DType,
    ) -> PyResult<Self> {
        let tensor = device.zeros(shape, dtype).map_err(exception)?;
        let at = std::ptr::with_exposed_provenance_mut(tensor.address() as usize);
        let place = (Residence::Cuda(device.info().ordinal), at);
        let memory = Memory::new("output", place, dtype, (shape, &row_major(shape)), None)?;
        Ok(Exporter { memory, kept: Arc::new(Kept::Cuda(device.clone(), tensor)) })
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Waits until whoever consumes on `stream` finds the elements written. Launches were in order with the legacy
    /// default stream, 1; -1 asks for no order.
    fn settle(&self, py: Python<'_>, stream: Option<i64>) -> PyResult<()> {
        match &*self.kept {
            Kept::Cuda(device, _) if !matches!(stream, Some(-1 | 1)) => {
                py.detach(|| device.wait()).map_err(exception)
            }
            _ => Ok(()),
        }
    }
}

#[pymethods]
impl Exporter {
    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__<'py>(
        this: &Bound<'py, Self>,
        stream: Option<i64>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, own) = (this.py(), this.get());
        if copy == Some(true) || dl_device.is_some_and(|wanted| wanted != own.__dlpack_device__()) {
            return Err(PyBufferError::new_err(
                "normkit's results are exported where they are, without a copy",
            ));
        }
        own.settle(py, stream)?;
        let versioned = max_version.is_some_and(|(major, _)| major >= dlpack::MAJOR);
        let exported = Exported::new(own);
        // SAFETY: the pointers are those of a box that the capsule's consumer, or its destructor, frees.
        unsafe {
            let (at, name) = if versioned {
                ((&raw mut (*exported).versioned).cast::<c_void>(), VERSIONED)
            } else {
                ((&raw mut (*exported).legacy).cast::<c_void>(), LEGACY)
            };
            let capsule = ffi::PyCapsule_New(at, name.as_ptr(), Some(destroy));
            Bound::from_owned_ptr_or_err(py, capsule).inspect_err(|_| drop(Box::from_raw(exported)))
        }
    }

    fn __dlpack_device__(&self) -> (i32, i32) {
        let device = device_of(self.memory.residence);
        (device.device_type, device.device_id)
    }
}

impl Exported {
    /// A box that its deleters free.
    fn new(exporter: &Exporter) -> *mut Exported {
        let memory = &exporter.memory;
        let shape: Vec<i64> = memory.shape().iter().map(|&size| size as i64).collect();
        let strides: Vec<i64> = row_major(memory.shape()).iter().map(|&stride| stride as i64).collect();
        let tensor = || dlpack::Tensor {
            data: memory.range().0.cast(),
            device: device_of(memory.residence),
            ndim: shape.len() as i32,
            dtype: type_of(memory.dtype),
            shape: shape.as_ptr().cast_mut(),
            strides: strides.as_ptr().cast_mut(),
            ..unfilled()
        };
        let (first, second) = (tensor(), tensor());
        let exported = Box::into_raw(Box::new(Exported {
            versioned: Versioned {
                version: Version { major: dlpack::MAJOR, minor: 0 },
                manager: std::ptr::null_mut(),
                deleter: Some(delete_versioned),
                flags: 0,
                tensor: first,
            },
            legacy: Managed { tensor: second, manager: std::ptr::null_mut(), deleter: Some(delete_legacy) },
            shape,
            strides,
            owner: exporter.kept.clone(),
        }));
        // SAFETY: the box was made a moment ago, and nobody else has it.
        unsafe {
            (*exported).versioned.manager = exported.cast();
            (*exported).legacy.manager = exported.cast();
        }
        exported
    }
}

/// Frees what a deleter's manager points to; on any thread, whether it holds Python's lock or not.
fn free(manager: *mut c_void) {
    // SAFETY: the manager is the box that `Exported::new` made, and a deleter is called once.
    drop(unsafe { Box::from_raw(manager.cast::<Exported>()) });
}

unsafe extern "C" fn delete_versioned(tensor: *mut Versioned) {
    // SAFETY: the consumer gives back what it was given.
    free(unsafe { (*tensor).manager });
}

unsafe extern "C" fn delete_legacy(tensor: *mut Managed) {
    // SAFETY: as above.
    free(unsafe { (*tensor).manager });
}

/// Frees what nobody has taken out of the capsule.
unsafe extern "C" fn destroy(capsule: *mut ffi::PyObject) {
    // SAFETY: Python calls it with the capsule, whose name says whether it was taken, and what it holds.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, VERSIONED.as_ptr()) == 1 {
            delete_versioned(ffi::PyCapsule_GetPointer(capsule, VERSIONED.as_ptr()).cast());
        } else if ffi::PyCapsule_IsValid(capsule, LEGACY.as_ptr()) == 1 {
            delete_legacy(ffi::PyCapsule_GetPointer(capsule, LEGACY.as_ptr()).cast());
        }
    }
}
