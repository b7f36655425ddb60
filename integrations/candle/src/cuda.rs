//! candle's memory on a GPU: read and written where it lies, in the order of the stream of candle's device.

use crate::memory::{Memory, Order, dtype, fault, layout, refused, with_workspace};
use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DevicePtrMut};
use candle_core::cuda_backend::{CudaDevice, CudaStorage, CudaStorageSlice};
use candle_core::{DType, Layout, Result, Shape, Storage};
use normkit::backend::cuda::{CudaDevice as Gpu, CudaOptions};
use normkit::tensor::{self, View, ViewMut};
use normkit::{Stream, Workspace};
use std::sync::{Mutex, PoisonError};

/// The GPUs that have been used, by their contexts. All devices of candle's on one GPU have its primary context.
static GPUS: Mutex<Vec<(usize, Gpu)>> = Mutex::new(Vec::new());

/// The GPU of a device of candle's.
fn gpu(op: &str, device: &CudaDevice) -> Result<Gpu> {
    let stream = device.cuda_stream();
    let context = stream.context().cu_ctx();
    let mut known = GPUS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, gpu)) = known.iter().find(|(of, _)| *of == context.addr()) {
        return Ok(gpu.clone());
    }
    // SAFETY: candle's device keeps its context alive, and normkit retains it.
    let gpu = unsafe { Gpu::from_context(context.cast(), &CudaOptions::default()) };
    let gpu = gpu.map_err(|error| fault(op, error))?;
    known.push((context.addr(), gpu.clone()));
    Ok(gpu)
}

/// Runs code on the memory of a storage of floats; an error for other dtypes.
macro_rules! of_floats {
    ($op:expr, $dtype:expr, $slices:expr, $slice:ident => $body:expr) => {
        match $slices {
            CudaStorageSlice::F16($slice) => $body,
            CudaStorageSlice::BF16($slice) => $body,
            CudaStorageSlice::F32($slice) => $body,
            CudaStorageSlice::F64($slice) => $body,
            _ => Err(candle_core::Error::UnsupportedDTypeForOp($dtype, $op).bt()),
        }
    };
}

/// Where a storage begins, and how many elements it has. What waits for other streams' uses of it is enqueued on the device's
/// own, which is the only one that candle uses it on.
fn place(op: &'static str, storage: &CudaStorage) -> Result<(u64, u64)> {
    let stream = storage.device.cuda_stream();
    of_floats!(op, storage.dtype(), &storage.slice, slice => {
        let (address, _read) = slice.device_ptr(&stream);
        Ok((address, slice.len() as u64))
    })
}

/// The same, to write.
fn place_mut(op: &'static str, storage: &mut CudaStorage) -> Result<(u64, u64)> {
    let (stream, dtype) = (storage.device.cuda_stream(), storage.dtype());
    of_floats!(op, dtype, &mut storage.slice, slice => {
        let len = slice.len() as u64;
        let (address, _written) = slice.device_ptr_mut(&stream);
        Ok((address, len))
    })
}

/// Elements from `start` on of a storage, row-major, to write.
///
/// # Safety
/// Nobody else uses these elements while the view is there.
unsafe fn part<'s>(
    op: &'static str,
    storage: &'s CudaStorage,
    (address, room): (u64, u64),
    start: usize,
    shape: &[usize],
) -> Result<ViewMut<'s>> {
    let (dtype, layout) = (dtype(op, storage.dtype())?, tensor::Layout::contiguous(shape));
    let size = dtype.size() as u64;
    if (start + layout.len()) as u64 > room {
        let expected = format!("memory of {} elements", start + layout.len());
        return Err(refused(op, "output", expected, format!("memory of {room} elements")));
    }
    let (gpu, bytes) = (gpu(op, &storage.device)?, layout.len() as u64 * size);
    // SAFETY: the storage has these elements, which are nobody else's by the caller's promise; candle frees them in the order of
    // its stream, on which they are written.
    unsafe { ViewMut::from_cuda(&gpu, address + start as u64 * size, bytes, dtype, layout) }
        .map_err(|error| fault(op, error))
}

impl Memory for CudaStorage {
    fn of<'s>(op: &'static str, storage: &'s Storage) -> Result<&'s Self> {
        match storage {
            Storage::Cuda(storage) => Ok(storage),
            other => Err(candle_core::Error::DeviceMismatchBinaryOp {
                lhs: candle_core::DeviceLocation::Cuda { gpu_id: 0 },
                rhs: other.device().location(),
                op,
            }
            .bt()),
        }
    }

    fn into_storage(self) -> Storage {
        Storage::Cuda(self)
    }

    fn from_storage(storage: Storage) -> Option<Self> {
        match storage {
            Storage::Cuda(storage) => Some(storage),
            _ => None,
        }
    }

    fn fresh(op: &'static str, device: &CudaDevice, of: DType, count: usize) -> Result<Self> {
        dtype(op, of)?;
        // SAFETY: norms write all of their results before anything reads them.
        unsafe { device.alloc_uninit(&Shape::from(count), of) }
    }

    fn view<'s>(&'s self, op: &'static str, of: &Layout) -> Result<View<'s>> {
        let (layout, dtype) = (layout(op, of)?, dtype(op, self.dtype())?);
        let (address, len) = place(op, self)?;
        let (bytes, gpu) = (len * dtype.size() as u64, gpu(op, &self.device)?);
        // SAFETY: the storage has so many elements; candle frees them in the order of its stream, on which they are read.
        unsafe { View::from_cuda(&gpu, address, bytes, dtype, layout) }.map_err(|error| fault(op, error))
    }

    fn view_mut<'s>(&'s mut self, op: &'static str, shape: &[usize]) -> Result<ViewMut<'s>> {
        let place = place_mut(op, self)?;
        // SAFETY: the storage is borrowed to write for as long.
        unsafe { part(op, self, place, 0, shape) }
    }

    fn halves_mut<'s>(&'s mut self, op: &'static str, shape: &[usize]) -> Result<(ViewMut<'s>, ViewMut<'s>)> {
        let (place, count) = (place_mut(op, self)?, shape.iter().product());
        // SAFETY: the storage is borrowed to write for as long, and the halves are apart.
        unsafe { Ok((part(op, self, place, 0, shape)?, part(op, self, place, count, shape)?)) }
    }

    fn run<R>(
        op: &'static str,
        device: &CudaDevice,
        body: impl FnOnce(&mut Workspace, &Stream<'_>) -> Result<R>,
    ) -> Result<R> {
        let (gpu, queue) = (gpu(op, device)?, device.cuda_stream());
        let order: Order = (queue.context().cu_ctx().addr(), queue.cu_stream().addr());
        // SAFETY: `queue` keeps candle's stream alive until the launches are enqueued.
        let stream = unsafe { gpu.on_stream(queue.cu_stream().cast()) };
        let stream = stream.map(Stream::Cuda).map_err(|error| fault(op, error))?;
        with_workspace(order, |workspace| body(workspace, &stream))
    }
}
