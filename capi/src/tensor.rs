//! Tensors as C describes them.

use crate::context::{Context, Place};
use crate::pointers::{numbers, optional, required};
use crate::status::{Fault, Result};
use normkit::tensor::{DType as CoreDType, Dims, Layout, View, ViewMut};
use std::ffi::c_void;

/// The most axes that a tensor can have.
pub const NORMKIT_MAX_NDIM: i32 = 64;

/// Element types.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DType {
    /// IEEE 754 binary16. Arithmetic is in float32.
    F16 = 1,
    /// bfloat16, the upper half of a float. Arithmetic is in float32.
    Bf16 = 2,
    /// float.
    F32 = 3,
    /// double.
    F64 = 4,
}

/// A tensor: memory that the caller owns, and how it is laid out. Element (i, j, ...) lies at
/// data + i * strides[0] + j * strides[1] + ..., counted in elements.
///
/// Calls read the struct and its arrays and keep nothing of them. A tensor in memory of the host is used by a context of the CPU,
/// one in memory of a GPU by a context of that GPU.
#[repr(C)]
pub struct Tensor {
    /// The element with index zero, at a multiple of the element's size. NULL only where there is no element.
    pub data: *mut c_void,
    /// One of normkit_dtype.
    pub dtype: i32,
    /// How many axes: 0 to NORMKIT_MAX_NDIM.
    pub ndim: i32,
    /// ndim sizes, none negative. May be NULL where ndim is 0.
    pub shape: *const i64,
    /// ndim strides, in elements; they may be zero (of a tensor that is read) or negative. NULL: row-major without gaps.
    pub strides: *const i64,
}

/// A tensor whose description makes sense.
pub(crate) struct Described {
    name: &'static str,
    pub(crate) dtype: CoreDType,
    pub(crate) layout: Layout,
    /// The address of the lowest element; the layout's offset counts from it.
    first: *mut u8,
    /// From the lowest element to the end of the highest.
    bytes: usize,
}

pub(crate) fn dtype(name: &str, value: i32) -> Result<CoreDType> {
    const F16: i32 = DType::F16 as i32;
    const BF16: i32 = DType::Bf16 as i32;
    const F32: i32 = DType::F32 as i32;
    const F64: i32 = DType::F64 as i32;
    match value {
        F16 => Ok(CoreDType::F16),
        BF16 => Ok(CoreDType::BF16),
        F32 => Ok(CoreDType::F32),
        F64 => Ok(CoreDType::F64),
        _ => Err(Fault::argument(format_args!("{name}.dtype"), "one of normkit_dtype", value)),
    }
}

/// The number of a dtype that norms compute on.
pub(crate) fn dtype_number(dtype: CoreDType) -> i32 {
    match dtype {
        CoreDType::F16 => DType::F16 as i32,
        CoreDType::BF16 => DType::Bf16 as i32,
        CoreDType::F64 => DType::F64 as i32,
        _ => DType::F32 as i32,
    }
}

/// Sizes, none of which is negative. `ndim` says how many there are.
///
/// # Safety
/// `first` is NULL or points to `ndim` numbers.
pub(crate) unsafe fn sizes(
    (name, ndim_name): (impl std::fmt::Display, impl std::fmt::Display),
    first: *const i64,
    ndim: i32,
) -> Result<Dims> {
    let rank = (usize::try_from(ndim).ok().filter(|_| ndim <= NORMKIT_MAX_NDIM))
        .ok_or_else(|| Fault::argument(ndim_name, format!("0 to {NORMKIT_MAX_NDIM}"), ndim))?;
    // SAFETY: the caller's promise is the same.
    let all = unsafe { numbers(&name, first, rank) }?;
    let negative = |_| Fault::argument(&name, "sizes from 0 up", format!("{all:?}"));
    all.iter().map(|&size| usize::try_from(size).map_err(negative)).collect()
}

impl Described {
    /// What `tensor` describes; `None` where it is NULL.
    ///
    /// # Safety
    /// `tensor` is NULL or points to a tensor whose arrays are as long as it says.
    pub(crate) unsafe fn of(name: &'static str, tensor: *const Tensor) -> Result<Option<Self>> {
        // SAFETY: the caller's promise is the same.
        let Some(tensor) = (unsafe { optional(name, tensor) })? else { return Ok(None) };
        let dtype = dtype(name, tensor.dtype)?;
        let (shape_name, ndim_name) = (format_args!("{name}.shape"), format_args!("{name}.ndim"));
        // SAFETY: as above.
        let shape = unsafe { sizes((shape_name, ndim_name), tensor.shape, tensor.ndim) }?;
        let usual = Layout::contiguous(&shape);
        if tensor.strides.is_null() {
            return Described::at(name, tensor.data, dtype, &shape, usual.strides()).map(Some);
        }
        // SAFETY: as above; the sizes' check has limited their number.
        let strides = unsafe { numbers(format_args!("{name}.strides"), tensor.strides, shape.len()) }?;
        // Strides of axes with one element mean nothing, nor any where there is no element.
        let empty = shape.contains(&0);
        let strides: Dims<isize> = (shape.iter().zip(strides).zip(usual.strides()))
            .map(|((&size, &stride), &usual)| if empty || size == 1 { usual } else { stride as isize })
            .collect();
        Described::at(name, tensor.data, dtype, &shape, &strides).map(Some)
    }

    /// Shape and dtype alone, whatever else the tensor says.
    ///
    /// # Safety
    /// As [`Described::of`].
    pub(crate) unsafe fn description(name: &str, tensor: *const Tensor) -> Result<(Dims, CoreDType)> {
        // SAFETY: the caller's promise is the same.
        let tensor = unsafe { required(name, tensor) }?;
        let dtype = dtype(name, tensor.dtype)?;
        let (shape_name, ndim_name) = (format_args!("{name}.shape"), format_args!("{name}.ndim"));
        // SAFETY: as above.
        Ok((unsafe { sizes((shape_name, ndim_name), tensor.shape, tensor.ndim) }?, dtype))
    }

    fn at(
        name: &'static str,
        data: *mut c_void,
        dtype: CoreDType,
        shape: &[usize],
        strides: &[isize],
    ) -> Result<Self> {
        let too_large = || {
            let found = format!("shape {shape:?}, strides {strides:?}");
            Fault::argument(name, "a tensor that fits in memory", found)
        };
        let empty = shape.contains(&0);
        let (mut low, mut high) = (0isize, 0isize);
        for (&size, &stride) in shape.iter().zip(strides).filter(|_| !empty) {
            let reach = isize::try_from(size - 1).ok().and_then(|last| last.checked_mul(stride));
            let end = if stride < 0 { &mut low } else { &mut high };
            *end = reach.and_then(|reach| end.checked_add(reach)).ok_or_else(too_large)?;
        }
        let below = low.unsigned_abs();
        let layout = Layout::strided(shape, strides, below).map_err(|_| too_large())?;
        let elements = if empty { Some(0) } else { high.checked_sub(low).and_then(|n| n.checked_add(1)) };
        let size = dtype.size();
        let bytes = elements.and_then(|n| n.unsigned_abs().checked_mul(size)).ok_or_else(too_large)?;
        // Where there is no element the address is nobody's.
        let data = if empty { std::ptr::null_mut() } else { data.cast::<u8>() };
        if !empty && data.is_null() {
            return Err(Fault::argument(format_args!("{name}.data"), "an address", "NULL"));
        }
        if !data.addr().is_multiple_of(size) {
            let expected = format!("an address that is a multiple of {size}, the size of {dtype}");
            return Err(Fault::argument(format_args!("{name}.data"), expected, format!("{data:p}")));
        }
        let first = data.wrapping_sub(below.wrapping_mul(size));
        Ok(Described { name, dtype, layout, first, bytes })
    }

    /// The memory, to read.
    ///
    /// # Safety
    /// The tensor's memory is the context's device's, and stays so until the call's work is done; nobody else writes it
    /// meanwhile.
    pub(crate) unsafe fn view<'a>(&self, context: &Context) -> Result<View<'a>> {
        let (dtype, layout) = (self.dtype, self.layout.clone());
        let view = match context.place() {
            // SAFETY: the caller's promise is the same.
            Place::Cpu(_) => unsafe { View::from_host(self.first, self.bytes, dtype, layout) },
            #[cfg(feature = "cuda")]
            Place::Cuda(stream) => {
                let (address, bytes) = (self.first.expose_provenance() as u64, self.bytes as u64);
                // SAFETY: the caller's promise is the same.
                unsafe { View::from_cuda(stream.device(), address, bytes, dtype, layout) }
            }
        };
        view.map_err(|error| self.fault(error))
    }

    /// The memory, to write.
    ///
    /// # Safety
    /// As [`view`](Described::view), and nobody else reads it either.
    pub(crate) unsafe fn view_mut<'a>(&self, context: &Context) -> Result<ViewMut<'a>> {
        let (dtype, layout) = (self.dtype, self.layout.clone());
        let view = match context.place() {
            // SAFETY: the caller's promise is the same.
            Place::Cpu(_) => unsafe { ViewMut::from_host(self.first, self.bytes, dtype, layout) },
            #[cfg(feature = "cuda")]
            Place::Cuda(stream) => {
                let (address, bytes) = (self.first.expose_provenance() as u64, self.bytes as u64);
                // SAFETY: the caller's promise is the same.
                unsafe { ViewMut::from_cuda(stream.device(), address, bytes, dtype, layout) }
            }
        };
        view.map_err(|error| self.fault(error))
    }

    /// What is wrong with the memory.
    fn fault(&self, error: normkit::Error) -> Fault {
        let data = format!("{}.data", self.name);
        Fault::renamed(
            error,
            &[("memory", &data), ("address", &data), ("bytes", &data), ("layout", self.name)],
        )
    }
}
