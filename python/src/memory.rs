//! Memory that an array lends for the length of a call.

use crate::dlpack;
use crate::errors::{exception, type_error, value_error};
use normkit::tensor::{DType, Dims, Layout, View, ViewMut};
use pyo3::prelude::*;

/// Where memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Residence {
    Host,
    Cuda(usize),
}

impl std::fmt::Display for Residence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Residence::Host => f.write_str("cpu"),
            Residence::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// What elements may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Those that norms compute on.
    Floats,
    /// Indices.
    Integers,
}

/// Elements in memory: where, of what dtype, and how they lie.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    pub(crate) residence: Residence,
    pub(crate) dtype: DType,
    pub(crate) layout: Layout,
    /// The address of the lowest element; the layout's offset counts from it.
    first: *mut u8,
    /// From the lowest element to the end of the highest.
    bytes: usize,
    /// Why it may not be written, if it may not.
    frozen: Option<&'static str>,
    /// Whether it is an image or a volume whose channels are innermost.
    pub(crate) channels_last: bool,
}

// SAFETY: an address and numbers. Whoever makes views of it answers for the memory.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Elements of which the one with index zero is at `data`; strides count elements. `frozen` says why they may not be
    /// written, if they may not.
    pub(crate) fn new(
        name: &str,
        (residence, data): (Residence, *mut u8),
        dtype: DType,
        (shape, strides): (&[usize], &[isize]),
        frozen: Option<&'static str>,
    ) -> PyResult<Self> {
        let too_large =
            || value_error(format!("{name}: expected a tensor that fits in memory, found {shape:?}"));
        let empty = shape.contains(&0);
        // Strides of empty tensors and of axes with one element mean nothing, and some libraries write odd ones: they
        // become those of a row-major tensor.
        let own: Dims<isize> = (shape.iter().zip(strides).zip(row_major(shape)))
            .map(|((&size, &stride), usual)| if empty || size == 1 { usual } else { stride })
            .collect();
        let (mut low, mut high) = (0isize, 0isize);
        for (&size, &stride) in shape.iter().zip(&own).filter(|_| !empty) {
            let reach = isize::try_from(size - 1).ok().and_then(|last| last.checked_mul(stride));
            let end = if stride < 0 { &mut low } else { &mut high };
            *end = reach.and_then(|reach| end.checked_add(reach)).ok_or_else(too_large)?;
        }
        let layout = Layout::strided(shape, &own, low.unsigned_abs()).map_err(exception)?;
        let elements = high.checked_sub(low).and_then(|n| n.checked_add(1)).filter(|_| !empty);
        let bytes =
            elements.map_or(Some(0), |n| n.unsigned_abs().checked_mul(dtype.size())).ok_or_else(too_large)?;
        let first = data.wrapping_sub(low.unsigned_abs() * dtype.size());
        if bytes > 0 && !first.addr().is_multiple_of(dtype.size()) {
            let message = "elements that are aligned to their size (a copy is)";
            return Err(value_error(format!("{name}: expected {message}, found address {first:p}")));
        }
        if bytes > 0 && first.is_null() {
            return Err(type_error(format!("{name}: expected a tensor with memory, found one without")));
        }
        let channels_last = !empty && is_channels_last(shape, strides);
        Ok(Memory { residence, dtype, layout, first, bytes, frozen, channels_last })
    }

    /// Says that these are a result's elements, which nobody has written yet.
    pub(crate) fn prefer_large_pages(&self) {
        if self.residence == Residence::Host {
            normkit::tensor::prefer_large_pages(self.first, self.bytes);
        }
    }

    /// What a DLPack tensor describes.
    ///
    /// # Safety
    /// `tensor` is as its library filled it.
    pub(crate) unsafe fn of_dlpack(
        name: &str,
        tensor: &dlpack::Tensor,
        frozen: Option<&'static str>,
    ) -> PyResult<Self> {
        let residence = match tensor.device {
            dlpack::Device { device_type: dlpack::CPU | dlpack::CUDA_HOST, .. } => Residence::Host,
            dlpack::Device { device_type: dlpack::CUDA, device_id } => {
                Residence::Cuda(usize::try_from(device_id).unwrap_or_default())
            }
            dlpack::Device { device_type, device_id } => {
                let found = format!("DLPack device ({device_type}, {device_id})");
                return Err(value_error(format!("{name}: expected a device cpu or cuda, found {found}")));
            }
        };
        let dtype = match tensor.dtype {
            dlpack::DataType { code: dlpack::FLOAT, bits: 16, lanes: 1 } => DType::F16,
            dlpack::DataType { code: dlpack::FLOAT, bits: 32, lanes: 1 } => DType::F32,
            dlpack::DataType { code: dlpack::FLOAT, bits: 64, lanes: 1 } => DType::F64,
            dlpack::DataType { code: dlpack::BFLOAT, bits: 16, lanes: 1 } => DType::BF16,
            dlpack::DataType { code: dlpack::INT, bits: 8, lanes: 1 } => DType::I8,
            dlpack::DataType { code: dlpack::INT, bits: 32, lanes: 1 } => DType::I32,
            dlpack::DataType { code: dlpack::INT, bits: 64, lanes: 1 } => DType::I64,
            dlpack::DataType { code: dlpack::FLOAT8_E4M3FN, bits: 8, lanes: 1 } => DType::F8E4M3,
            dlpack::DataType { code: dlpack::FLOAT8_E5M2, bits: 8, lanes: 1 } => DType::F8E5M2,
            other => return Err(wrong_dtype(name, &dlpack_name(other), Kind::Floats)),
        };
        let rank = usize::try_from(tensor.ndim).unwrap_or_default();
        let numbers = |at: *const i64| -> &[i64] {
            // SAFETY: the library wrote `ndim` numbers there; without axes it may have left null.
            if rank == 0 || at.is_null() { &[] } else { unsafe { std::slice::from_raw_parts(at, rank) } }
        };
        let negative = |_| value_error(format!("{name}: expected sizes from 0 up, found a negative one"));
        let sizes = numbers(tensor.shape).iter().map(|&size| usize::try_from(size).map_err(negative));
        let shape = sizes.collect::<PyResult<Dims>>()?;
        if shape.len() != rank {
            return Err(value_error(format!("{name}: expected a shape of {rank} sizes, found none")));
        }
        let strides: Dims<isize> = if tensor.strides.is_null() {
            row_major(&shape)
        } else {
            numbers(tensor.strides).iter().map(|&stride| stride as isize).collect()
        };
        let data = tensor.data.cast::<u8>().wrapping_add(tensor.byte_offset as usize);
        Memory::new(name, (residence, data), dtype, (&shape, &strides), frozen)
    }

    /// The same, if its elements are of this kind.
    pub(crate) fn of_kind(self, name: &str, kind: Kind) -> PyResult<Self> {
        let fits = match kind {
            Kind::Floats => self.dtype.is_float(),
            Kind::Integers => matches!(self.dtype, DType::I32 | DType::I64),
        };
        if fits { Ok(self) } else { Err(wrong_dtype(name, numpy_name(self.dtype), kind)) }
    }

    pub(crate) fn shape(&self) -> &[usize] {
        self.layout.shape()
    }

    /// The address of the lowest element, and how many bytes there are from it on.
    pub(crate) fn range(&self) -> (*mut u8, usize) {
        (self.first, self.bytes)
    }

    /// The memory of the host, to read.
    ///
    /// # Safety
    /// The array that lends it lives longer than the view, and nobody writes it meanwhile.
    pub(crate) unsafe fn view<'a>(&self) -> normkit::Result<View<'a>> {
        // SAFETY: the array describes its own memory; the caller keeps it.
        unsafe { View::from_host(self.first, self.bytes, self.dtype, self.layout.clone()) }
    }

    /// The memory of the host, to write.
    ///
    /// # Safety
    /// As [`view`](Memory::view), and nobody reads it either.
    pub(crate) unsafe fn view_mut<'a>(&self) -> normkit::Result<ViewMut<'a>> {
        // SAFETY: as above.
        unsafe { ViewMut::from_host(self.first, self.bytes, self.dtype, self.layout.clone()) }
    }

    /// Refuses memory that may not be written.
    pub(crate) fn check_writable(&self, name: &str) -> PyResult<()> {
        match self.frozen {
            Some(why) => {
                Err(value_error(format!("{name}: expected memory that can be written, found {why}")))
            }
            None => Ok(()),
        }
    }
}

/// Whether an image `[N, C, H, W]`, or a volume, has its channels innermost, by PyTorch's rule for those that can be read
/// both ways.
fn is_channels_last(shape: &[usize], strides: &[isize]) -> bool {
    if !matches!(shape.len(), 4 | 5) || strides[1] == 0 {
        return false;
    }
    let mut least = 0;
    for axis in std::iter::once(1).chain((2..shape.len()).rev()).chain([0]) {
        if strides[axis] < least || (axis == 0 && least == strides[1]) {
            return false;
        }
        least = strides[axis].saturating_mul(shape[axis] as isize);
    }
    true
}

/// The strides of a row-major tensor.
pub(crate) fn row_major(shape: &[usize]) -> Dims<isize> {
    let mut strides: Dims<isize> = shape.iter().map(|_| 1).collect();
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(isize::try_from(shape[axis]).unwrap_or(isize::MAX));
    }
    strides
}

/// What NumPy, ml_dtypes and PyTorch call it.
pub(crate) fn numpy_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        DType::F32 => "float32",
        DType::F64 => "float64",
        DType::I8 => "int8",
        DType::F8E4M3 => "float8_e4m3fn",
        DType::F8E5M2 => "float8_e5m2",
        DType::I32 => "int32",
        DType::I64 => "int64",
    }
}

/// The error for a dtype that is none of the kind.
pub(crate) fn wrong_dtype(name: &str, found: &str, kind: Kind) -> PyErr {
    let expected = match kind {
        Kind::Floats => "float16, bfloat16, float32 or float64",
        Kind::Integers => "int32 or int64",
    };
    type_error(format!("{name}: expected dtype {expected}, found dtype {found}"))
}

fn dlpack_name(dtype: dlpack::DataType) -> String {
    let dlpack::DataType { code, bits, lanes } = dtype;
    let kind = match code {
        0 => "int",
        1 => "uint",
        2 => "float",
        3 => "opaque",
        4 => "bfloat",
        5 => "complex",
        6 => return "bool".to_owned(),
        7..=17 => "float of",
        _ => "opaque of",
    };
    let lanes = if lanes == 1 { String::new() } else { format!(" x {lanes}") };
    if code >= 7 { format!("{kind} {bits} bits{lanes}") } else { format!("{kind}{bits}{lanes}") }
}
