//! candle's memory as normkit's views, and normkit's errors as candle's.

use candle_core::{CpuStorage, DType, Layout, Result, Shape, Storage, Tensor};
use normkit::tensor::{self, Dims, Element, View, ViewMut};

/// normkit's error, as candle's, with the operator that it is about.
pub(crate) fn fault(op: &str, error: normkit::Error) -> candle_core::Error {
    candle_core::Error::Msg(format!("{op}: {error}")).bt()
}

/// An error about an argument, in normkit's form.
pub(crate) fn refused(
    op: &str,
    name: &str,
    expected: impl std::fmt::Display,
    found: impl std::fmt::Display,
) -> candle_core::Error {
    candle_core::Error::Msg(format!("{op}: {name}: expected {expected}, found {found}")).bt()
}

fn unsupported(op: &'static str, storage: &CpuStorage) -> candle_core::Error {
    candle_core::Error::UnsupportedDTypeForOp(candle_core::backend::BackendStorage::dtype(storage), op).bt()
}

/// Runs code on the vector of a storage of floats; an error for other dtypes.
macro_rules! of_floats {
    ($op:expr, $storage:expr, $values:ident => $body:expr) => {
        match $storage {
            CpuStorage::F16($values) => $body,
            CpuStorage::BF16($values) => $body,
            CpuStorage::F32($values) => $body,
            CpuStorage::F64($values) => $body,
            #[allow(clippy::needless_borrow, reason = "some are owned")]
            other => Err(unsupported($op, &other)),
        }
    };
}

/// The memory of a tensor, to read, as it lies.
pub(crate) fn view<'a>(op: &'static str, storage: &'a CpuStorage, layout: &Layout) -> Result<View<'a>> {
    let strides: Dims<isize> = layout.stride().iter().map(|&stride| stride as isize).collect();
    let layout = tensor::Layout::strided(layout.dims(), &strides, layout.start_offset());
    let layout = layout.map_err(|error| fault(op, error))?;
    of_floats!(op, storage, values => View::strided(values, layout).map_err(|error| fault(op, error)))
}

/// The memory of a new tensor, row-major, to write.
pub(crate) fn view_mut<'a>(
    op: &'static str,
    storage: &'a mut CpuStorage,
    shape: &[usize],
) -> Result<ViewMut<'a>> {
    of_floats!(op, storage, values => ViewMut::from_slice(values, shape).map_err(|error| fault(op, error)))
}

/// The memory of a new tensor `[2, ...]`, as its two halves of this shape.
pub(crate) fn halves_mut<'a>(
    op: &'static str,
    storage: &'a mut CpuStorage,
    shape: &[usize],
) -> Result<(ViewMut<'a>, ViewMut<'a>)> {
    fn split<'a, T: Element>(
        op: &str,
        values: &'a mut [T],
        shape: &[usize],
    ) -> Result<(ViewMut<'a>, ViewMut<'a>)> {
        let (first, second) = values.split_at_mut(values.len() / 2);
        let halves = ViewMut::from_slice(first, shape)
            .and_then(|first| ViewMut::from_slice(second, shape).map(|second| (first, second)));
        halves.map_err(|error| fault(op, error))
    }
    of_floats!(op, storage, values => split(op, values, shape))
}

/// Zeros in new memory.
pub(crate) fn zeros(op: &'static str, dtype: DType, count: usize) -> Result<CpuStorage> {
    fn new<T: tensor::Element>(op: &'static str, count: usize) -> Result<Vec<T>> {
        tensor::zeros(count).map_err(|error| fault(op, error))
    }
    Ok(match dtype {
        DType::F16 => CpuStorage::F16(new(op, count)?),
        DType::BF16 => CpuStorage::BF16(new(op, count)?),
        DType::F32 => CpuStorage::F32(new(op, count)?),
        DType::F64 => CpuStorage::F64(new(op, count)?),
        other => return Err(candle_core::Error::UnsupportedDTypeForOp(other, op).bt()),
    })
}

/// A tensor that owns this memory, without a copy.
pub(crate) fn tensor(op: &'static str, storage: CpuStorage, shape: &Shape) -> Result<Tensor> {
    let (shape, cpu) = (shape.clone(), candle_core::Device::Cpu);
    of_floats!(op, storage, values => Tensor::from_vec(values, shape, &cpu))
}

/// A float tensor's storage on the CPU.
pub(crate) fn on_cpu<'a>(op: &'static str, storage: &'a Storage) -> Result<&'a CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        Storage::Cuda(_) => {
            Err(candle_core::Error::Cuda(format!("no cuda implementation for {op}").into()).bt())
        }
        Storage::Metal(_) => {
            Err(candle_core::Error::Metal(format!("no metal implementation for {op}").into()).bt())
        }
    }
}

/// normkit's name of a dtype that norms compute on.
pub(crate) fn dtype(op: &'static str, dtype: DType) -> Result<tensor::DType> {
    match dtype {
        DType::F16 => Ok(tensor::DType::F16),
        DType::BF16 => Ok(tensor::DType::BF16),
        DType::F32 => Ok(tensor::DType::F32),
        DType::F64 => Ok(tensor::DType::F64),
        other => Err(candle_core::Error::UnsupportedDTypeForOp(other, op).bt()),
    }
}
