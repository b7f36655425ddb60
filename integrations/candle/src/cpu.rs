//! candle's memory on the host.

use crate::memory::{Memory, fault, layout, with_workspace};
use candle_core::backend::BackendStorage;
use candle_core::cpu_backend::CpuDevice;
use candle_core::{CpuStorage, DType, Layout, Result, Storage};
use normkit::tensor::{self, Element, View, ViewMut};
use normkit::{Device, Stream, Workspace};

fn unsupported(op: &'static str, storage: &CpuStorage) -> candle_core::Error {
    candle_core::Error::UnsupportedDTypeForOp(storage.dtype(), op).bt()
}

/// Runs code on the vector of a storage of floats; an error for other dtypes.
macro_rules! of_floats {
    ($op:expr, $storage:expr, $values:ident => $body:expr) => {
        match $storage {
            CpuStorage::F16($values) => $body.map_err(|error| fault($op, error)),
            CpuStorage::BF16($values) => $body.map_err(|error| fault($op, error)),
            CpuStorage::F32($values) => $body.map_err(|error| fault($op, error)),
            CpuStorage::F64($values) => $body.map_err(|error| fault($op, error)),
            other => Err(unsupported($op, other)),
        }
    };
}

impl Memory for CpuStorage {
    fn of<'s>(op: &'static str, storage: &'s Storage) -> Result<&'s Self> {
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

    fn into_storage(self) -> Storage {
        Storage::Cpu(self)
    }

    fn from_storage(storage: Storage) -> Option<Self> {
        match storage {
            Storage::Cpu(storage) => Some(storage),
            _ => None,
        }
    }

    fn fresh(op: &'static str, _: &CpuDevice, dtype: DType, count: usize) -> Result<Self> {
        fn new<T: Element>(op: &'static str, count: usize) -> Result<Vec<T>> {
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

    fn view<'s>(&'s self, op: &'static str, of: &Layout) -> Result<View<'s>> {
        let layout = layout(op, of)?;
        of_floats!(op, self, values => View::strided(values, layout))
    }

    fn view_mut<'s>(&'s mut self, op: &'static str, shape: &[usize]) -> Result<ViewMut<'s>> {
        of_floats!(op, self, values => ViewMut::from_slice(values, shape))
    }

    fn halves_mut<'s>(&'s mut self, op: &'static str, shape: &[usize]) -> Result<(ViewMut<'s>, ViewMut<'s>)> {
        fn split<'s, T: Element>(
            values: &'s mut [T],
            shape: &[usize],
        ) -> normkit::Result<(ViewMut<'s>, ViewMut<'s>)> {
            let (first, second) = values.split_at_mut(values.len() / 2);
            Ok((ViewMut::from_slice(first, shape)?, ViewMut::from_slice(second, shape)?))
        }
        of_floats!(op, self, values => split(values, shape))
    }

    fn run<R>(
        _: &'static str,
        _: &CpuDevice,
        body: impl FnOnce(&mut Workspace, &Stream<'_>) -> Result<R>,
    ) -> Result<R> {
        let stream = Device::Cpu.stream();
        with_workspace((0, 0), |workspace| body(workspace, &stream))
    }
}
