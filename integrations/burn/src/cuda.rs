//! burn's CUDA devices: normkit's kernels run on their memory, in their primary context.
//!
//! burn gives out the address of a tensor, but not the stream in which its operations are. So a call waits for what burn has enqueued for
//! its tensors, launches on a stream of normkit's own, and waits for that: nothing is copied, but the GPU idles between.

use crate::cube::{bytes, contents};
use burn::backend::Cube;
use burn::backend::tensor::FloatTensor;
use burn::cubecl::cuda::CudaRuntime;
use cubecl_runtime::runtime::Runtime;
use normkit::backend::cuda::{CudaDevice, CudaOptions};
use normkit::tensor::{DType, Layout, View, ViewMut};
use normkit::{Error, Result, Stream};
use std::sync::{Mutex, PoisonError};

/// The GPUs that have been used, by burn's numbers of them.
static KNOWN: Mutex<Vec<(usize, CudaDevice)>> = Mutex::new(Vec::new());

/// normkit's device for burn's of this number.
pub(crate) fn known(index: usize) -> Result<CudaDevice> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, device)) = known.iter().find(|(other, _)| *other == index) {
        return Ok(device.clone());
    }
    // By its primary context, as burn's runtime has it.
    let device = CudaDevice::with_options(&CudaOptions { ordinal: index, ..CudaOptions::default() })?;
    known.push((index, device.clone()));
    Ok(device)
}

fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    Error::Backend { backend: "cuda", what: what.into(), reason: error.to_string() }
}

/// A tensor's memory on a GPU.
struct Place {
    address: u64,
    bytes: u64,
    dtype: DType,
    layout: Layout,
    /// While it is there, the memory is nobody else's.
    _held: Box<dyn std::any::Any>,
}

impl Place {
    fn of(tensor: &FloatTensor<Cube>) -> Result<Self> {
        let (dtype, layout) = contents(tensor)?;
        let held = tensor.client.get_resource::<<CudaRuntime as Runtime>::Server>(tensor.handle.clone());
        let held = held.map_err(|error| failed("burn's memory of a tensor", error))?;
        let resource = held.resource();
        let (address, bytes) = (resource.ptr, bytes(tensor, dtype).min(resource.size));
        Ok(Place { address, bytes, dtype, layout, _held: Box::new(held) })
    }
}

/// Runs `run` on tensors to read and on new ones to write, after all that burn has enqueued for them.
pub(crate) fn on<R>(
    device: &CudaDevice,
    read: &[&FloatTensor<Cube>],
    made: &[FloatTensor<Cube>],
    run: impl FnOnce(&[View<'_>], &mut [ViewMut<'_>], &Stream<'_>) -> Result<R>,
) -> Result<R> {
    let inputs = read.iter().map(|tensor| Place::of(tensor)).collect::<Result<Vec<_>>>()?;
    let outputs = made.iter().map(Place::of).collect::<Result<Vec<_>>>()?;
    if let Some(tensor) = read.first() {
        // This thread's stream, which waits for those that the tensors come from.
        let done = burn::cubecl::future::block_on(tensor.client.sync());
        done.map_err(|error| failed("what burn has enqueued", error))?;
    }
    let view = |place: &Place| {
        let (dtype, layout) = (place.dtype, place.layout.clone());
        // SAFETY: burn keeps the memory while the place holds it, nobody writes it meanwhile, and all launches have ended below.
        unsafe { View::from_cuda(device, place.address, place.bytes, dtype, layout) }
    };
    let view_mut = |place: &Place| {
        let (dtype, layout) = (place.dtype, place.layout.clone());
        // SAFETY: the same; the tensor is new, and nobody else has it.
        unsafe { ViewMut::from_cuda(device, place.address, place.bytes, dtype, layout) }
    };
    let views = inputs.iter().map(view).collect::<Result<Vec<_>>>()?;
    let mut targets = outputs.iter().map(view_mut).collect::<Result<Vec<_>>>()?;
    let result = run(&views, &mut targets, &Stream::Cuda(device.stream()));
    // Also where it failed: some of it may have been launched.
    let ended = device.wait();
    let result = result?;
    ended.map(|()| result)
}
