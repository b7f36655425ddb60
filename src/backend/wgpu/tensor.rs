//! GPU memory: ranges of buffers, and tensors that own one.

use super::WgpuDevice;
use super::fault::{limit, lost, refused, scoped};
use crate::tensor::{DType, HostTensor, Layout, Tensor, View, ViewMut};
use crate::{Device, Error, Result};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

/// A range of a GPU buffer.
#[derive(Debug, Clone)]
pub struct BufferRange {
    device: WgpuDevice,
    buffer: wgpu::Buffer,
    start: u64,
    size: u64,
}

impl BufferRange {
    /// `range` is in bytes and starts at a multiple of the dtype's size; the buffer must allow storage bindings.
    pub fn new(device: &WgpuDevice, buffer: &wgpu::Buffer, range: Range<u64>, dtype: DType) -> Result<Self> {
        if range.start > range.end || range.end > buffer.size() {
            let expected = format!("a range within the buffer's {} bytes", buffer.size());
            return Err(Error::argument("range", expected, format!("{range:?}")));
        }
        if !range.start.is_multiple_of(dtype.size() as u64) {
            let expected = format!("a start at a multiple of {} bytes", dtype.size());
            return Err(Error::argument("range", expected, format!("{range:?}")));
        }
        if !buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
            return Err(Error::argument(
                "buffer",
                "a buffer with the usage STORAGE",
                format!("{:?}", buffer.usage()),
            ));
        }
        let size = range.end - range.start;
        Ok(BufferRange { device: device.clone(), buffer: buffer.clone(), start: range.start, size })
    }

    /// Bytes of the range.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The device that owns the buffer.
    pub fn device(&self) -> &WgpuDevice {
        &self.device
    }

    /// The buffer's identity, not zero, and the range's first byte in it.
    pub(crate) fn place(&self) -> (usize, i128) {
        let mut hasher = DefaultHasher::new();
        self.buffer.hash(&mut hasher);
        (hasher.finish() as usize | 1, i128::from(self.start))
    }

    pub(super) fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }
}

/// A row-major tensor in a GPU buffer of its own. A clone is another handle to the same memory.
#[derive(Debug, Clone)]
pub struct WgpuTensor {
    device: WgpuDevice,
    buffer: wgpu::Buffer,
    shape: Vec<usize>,
    dtype: DType,
}

impl WgpuTensor {
    pub(super) fn zeros(device: &WgpuDevice, shape: &[usize], dtype: DType) -> Result<Self> {
        let layout = Layout::contiguous(shape);
        layout.checked_span()?;
        if dtype == DType::F64 {
            return Err(Error::UnsupportedDType { name: "tensor", dtype, backend: super::fault::BACKEND });
        }
        // Whole vectors, so that shaders may read four numbers at a time; a buffer of no bytes cannot be bound.
        let bytes = (layout.len() * dtype.size()).next_multiple_of(16).max(16) as u64;
        let most = device.limits().max_buffer_size;
        if bytes > most {
            return Err(limit("tensor", format!("{most} bytes a buffer"), format!("{bytes} bytes")));
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let descriptor = wgpu::BufferDescriptor {
            label: Some("normkit tensor"),
            size: bytes,
            usage,
            mapped_at_creation: false,
        };
        let what = format!("a tensor of {bytes} bytes");
        let buffer = scoped(device, &what, || device.raw().create_buffer(&descriptor))?;
        Ok(WgpuTensor { device: device.clone(), buffer, shape: shape.to_vec(), dtype })
    }

    pub(super) fn upload(device: &WgpuDevice, tensor: &HostTensor) -> Result<Self> {
        let result = WgpuTensor::zeros(device, tensor.shape(), tensor.dtype())?;
        let bytes = tensor.bytes();
        let whole = bytes.len() / 4 * 4;
        scoped(device, "an upload", || {
            device.queue().write_buffer(&result.buffer, 0, &bytes[..whole]);
            if whole < bytes.len() {
                // Copies go by words; the last one is filled up with zeros.
                let mut word = [0u8; 4];
                word[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
                device.queue().write_buffer(&result.buffer, whole as u64, &word);
            }
        })?;
        Ok(result)
    }

    /// Sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The buffer that holds the elements, from its first byte on.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    pub(super) fn owner(&self) -> &WgpuDevice {
        &self.device
    }

    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    fn range(&self) -> Range<u64> {
        0..(self.len() * self.dtype.size()) as u64
    }

    /// The elements, once everything submitted before has run. Waits for it.
    pub fn read(&self) -> Result<HostTensor> {
        let pending = self.begin_read()?;
        self.device.wait()?;
        pending.arrival.wait();
        pending.finish()
    }

    /// As [`read`](WgpuTensor::read), without blocking: the future is ready once the copy has arrived. Outside
    /// browsers somebody must poll the device meanwhile, for example with [`WgpuDevice::wait`] on another thread.
    pub async fn read_async(&self) -> Result<HostTensor> {
        let pending = self.begin_read()?;
        std::future::poll_fn(|context| pending.arrival.poll(context.waker())).await;
        pending.finish()
    }

    fn begin_read(&self) -> Result<PendingRead> {
        let size = (self.range().end).next_multiple_of(4).max(4);
        let device = &self.device;
        let descriptor = wgpu::BufferDescriptor {
            label: Some("normkit readback"),
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        let what = format!("a readback of {size} bytes");
        let arrival = Arc::new(Arrival::default());
        let note = arrival.clone();
        let staging = scoped(device, &what, || {
            let staging = device.raw().create_buffer(&descriptor);
            let mut encoder = device.raw().create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(&self.buffer, 0, &staging, 0, size);
            device.queue().submit([encoder.finish()]);
            staging.map_async(wgpu::MapMode::Read, .., move |result| note.set(result));
            staging
        })?;
        Ok(PendingRead { staging, arrival, shape: self.shape.clone(), dtype: self.dtype })
    }
}

/// A copy on its way to the host.
struct PendingRead {
    staging: wgpu::Buffer,
    arrival: Arc<Arrival>,
    shape: Vec<usize>,
    dtype: DType,
}

impl PendingRead {
    fn finish(self) -> Result<HostTensor> {
        match self.arrival.take() {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(lost(error)),
            None => return Err(refused("a readback", "the copy did not arrive")),
        }
        let mut tensor = HostTensor::zeros(&self.shape, self.dtype)?;
        let bytes = tensor.bytes_mut();
        let mapped = self.staging.get_mapped_range(..).map_err(|e| refused("a readback", e))?;
        bytes.copy_from_slice(&mapped[..bytes.len()]);
        Ok(tensor)
    }
}

/// How late a callback can be before it counts as one that never comes.
const OVERDUE: Duration = Duration::from_secs(60);

/// What the driver says of a mapping.
type Mapped = std::result::Result<(), wgpu::BufferAsyncError>;

/// Where the driver's callback leaves the result of a mapping.
#[derive(Default)]
struct Arrival {
    state: Mutex<(Option<Mapped>, Option<Waker>)>,
    arrived: Condvar,
}

impl Arrival {
    fn set(&self, result: Mapped) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = Some(result);
        self.arrived.notify_all();
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }

    /// Waits for a callback that is due. A device that has come to rest has called back, or another thread that waited for
    /// it, too, is about to.
    fn wait(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.arrived.wait_timeout_while(state, OVERDUE, |state| state.0.is_none());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn take(&self) -> Option<Mapped> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.take()
    }

    fn poll(&self, waker: &Waker) -> Poll<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.is_some() {
            return Poll::Ready(());
        }
        state.1 = Some(waker.clone());
        Poll::Pending
    }
}

impl Tensor for WgpuTensor {
    fn device(&self) -> Device {
        Device::Wgpu(self.device.clone())
    }
    fn view(&self) -> Result<View<'_>> {
        View::from_buffer(
            &self.device,
            &self.buffer,
            self.range(),
            self.dtype,
            Layout::contiguous(&self.shape),
        )
    }
    fn view_mut(&mut self) -> Result<ViewMut<'_>> {
        ViewMut::from_buffer(
            &self.device,
            &self.buffer,
            self.range(),
            self.dtype,
            Layout::contiguous(&self.shape),
        )
    }
    fn empty(&self, shape: &[usize], dtype: DType) -> Result<Self> {
        WgpuTensor::zeros(&self.device, shape, dtype)
    }
}
