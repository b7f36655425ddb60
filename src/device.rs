//! Where tensors live, in what order launches run, and the scratch memory they need.

use crate::aligned::Aligned;
use crate::tensor::{DType, HostTensor, Tensor, View, ViewMut};
use crate::{Error, Result};

/// A device that owns memory.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Device {
    /// The host.
    Cpu,
    /// A WebGPU device, normkit's own or a caller's.
    #[cfg(feature = "wgpu")]
    Wgpu(crate::backend::wgpu::WgpuDevice),
    /// A GPU by CUDA, or the host driver in its place.
    #[cfg(feature = "cuda")]
    Cuda(crate::backend::cuda::CudaDevice),
}

impl Device {
    /// The backend's name: `cpu`, `wgpu`, `cuda` or `cuda-host`.
    pub fn backend(&self) -> &'static str {
        match self {
            Device::Cpu => "cpu",
            #[cfg(feature = "wgpu")]
            Device::Wgpu(_) => "wgpu",
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => device.backend(),
        }
    }

    /// The device's default stream.
    pub fn stream(&self) -> Stream<'static> {
        match self {
            Device::Cpu => Stream::Cpu(Default::default()),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(device) => Stream::Wgpu(device.stream()),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => Stream::Cuda(device.stream()),
        }
    }

    /// A new tensor in this device's memory, row-major, filled with zeros.
    pub fn zeros(&self, shape: &[usize], dtype: DType) -> Result<DeviceTensor> {
        match self {
            Device::Cpu => HostTensor::zeros(shape, dtype).map(DeviceTensor::Host),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(device) => device.zeros(shape, dtype).map(DeviceTensor::Wgpu),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => device.zeros(shape, dtype).map(DeviceTensor::Cuda),
        }
    }

    /// A copy of `tensor` in this device's memory.
    pub fn upload(&self, tensor: &HostTensor) -> Result<DeviceTensor> {
        match self {
            Device::Cpu => Ok(DeviceTensor::Host(tensor.clone())),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(device) => device.upload(tensor).map(DeviceTensor::Wgpu),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => device.upload(tensor).map(DeviceTensor::Cuda),
        }
    }
}

impl Device {
    /// Runs `body` with a stream whose launches are submitted together when it ends.
    pub(crate) fn submit(&self, body: impl FnOnce(&Stream<'_>) -> Result<()>) -> Result<()> {
        match self {
            Device::Cpu => body(&self.stream()),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(device) => device.submit(|stream| body(&Stream::Wgpu(stream))),
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => body(&self.stream()),
        }
    }
}

/// An owned tensor on any device.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DeviceTensor {
    /// In host memory.
    Host(HostTensor),
    /// In a GPU buffer.
    #[cfg(feature = "wgpu")]
    Wgpu(crate::backend::wgpu::WgpuTensor),
    /// In a GPU's memory, by CUDA.
    #[cfg(feature = "cuda")]
    Cuda(crate::backend::cuda::CudaTensor),
}

impl DeviceTensor {
    /// A copy in host memory. Waits for the device.
    pub fn read(&self) -> Result<HostTensor> {
        match self {
            DeviceTensor::Host(tensor) => Ok(tensor.clone()),
            #[cfg(feature = "wgpu")]
            DeviceTensor::Wgpu(tensor) => tensor.read(),
            #[cfg(feature = "cuda")]
            DeviceTensor::Cuda(tensor) => tensor.read(),
        }
    }
}

impl Tensor for DeviceTensor {
    fn device(&self) -> Device {
        match self {
            DeviceTensor::Host(_) => Device::Cpu,
            #[cfg(feature = "wgpu")]
            DeviceTensor::Wgpu(tensor) => tensor.device(),
            #[cfg(feature = "cuda")]
            DeviceTensor::Cuda(tensor) => tensor.device(),
        }
    }
    fn view(&self) -> Result<View<'_>> {
        match self {
            DeviceTensor::Host(tensor) => tensor.view(),
            #[cfg(feature = "wgpu")]
            DeviceTensor::Wgpu(tensor) => tensor.view(),
            #[cfg(feature = "cuda")]
            DeviceTensor::Cuda(tensor) => tensor.view(),
        }
    }
    fn view_mut(&mut self) -> Result<ViewMut<'_>> {
        match self {
            DeviceTensor::Host(tensor) => tensor.view_mut(),
            #[cfg(feature = "wgpu")]
            DeviceTensor::Wgpu(tensor) => tensor.view_mut(),
            #[cfg(feature = "cuda")]
            DeviceTensor::Cuda(tensor) => tensor.view_mut(),
        }
    }
    fn empty(&self, shape: &[usize], dtype: DType) -> Result<Self> {
        match self {
            // Without the zeros, which somebody would have to wait for.
            #[cfg(feature = "cuda")]
            DeviceTensor::Cuda(tensor) => tensor.empty(shape, dtype).map(DeviceTensor::Cuda),
            _ => self.device().zeros(shape, dtype),
        }
    }
}

/// Where launches are enqueued, and in what order they run.
#[non_exhaustive]
pub enum Stream<'a> {
    /// The calling thread and its thread pool; a launch has finished when the call returns.
    Cpu(crate::backend::cpu::Cpu),
    /// A WebGPU queue or a caller's command encoder; a launch is only enqueued when the call returns.
    #[cfg(feature = "wgpu")]
    Wgpu(crate::backend::wgpu::WgpuStream<'a>),
    /// A CUDA stream, the device's own or a caller's; a launch is only enqueued when the call returns, or on the host
    /// driver has finished.
    #[cfg(feature = "cuda")]
    Cuda(crate::backend::cuda::CudaStream<'a>),
    #[doc(hidden)]
    #[cfg(not(any(feature = "wgpu", feature = "cuda")))]
    Never(std::convert::Infallible, std::marker::PhantomData<&'a ()>),
}

impl Stream<'_> {
    /// The device that the stream belongs to.
    pub fn device(&self) -> Device {
        match self {
            Stream::Cpu(_) => Device::Cpu,
            #[cfg(feature = "wgpu")]
            Stream::Wgpu(stream) => Device::Wgpu(stream.device().clone()),
            #[cfg(feature = "cuda")]
            Stream::Cuda(stream) => Device::Cuda(stream.device().clone()),
            #[cfg(not(any(feature = "wgpu", feature = "cuda")))]
            Stream::Never(never, _) => match *never {},
        }
    }
}

/// Scratch memory for launches. It grows when a launch needs more and is reused otherwise; launches on one stream may
/// share one. Its contents mean nothing between launches.
///
/// It holds the partial sums of parameter gradients, at most 16 MiB of each norm. On WebGPU and CUDA a call allocates more of its
/// own where launches hand numbers on: 5 float32 (backward 6) for each leaf of 4096 elements of a row longer than
/// that, 4 (backward 6) for each such row, 6 for each row whose sums are also its parameters' gradients, and 6 for
/// each place of a parameter in each row whose elements share it in part.
#[derive(Default)]
pub struct Workspace {
    host: Aligned,
    #[cfg(feature = "wgpu")]
    pub(crate) buffer: Option<crate::backend::wgpu::WgpuTensor>,
    #[cfg(feature = "cuda")]
    pub(crate) cuda: Option<crate::backend::cuda::CudaTensor>,
    /// Bytes of it that other problems of the same call have.
    #[cfg(feature = "cuda")]
    pub(crate) from: usize,
}

impl Workspace {
    /// An empty workspace.
    pub fn new() -> Self {
        Workspace::default()
    }

    /// A workspace on `device` that need not grow for launches whose
    /// [`workspace_size`](crate::Method::workspace_size) is at most `bytes`.
    pub fn with_capacity(device: &Device, bytes: usize) -> Result<Self> {
        let mut workspace = Workspace::new();
        match device {
            Device::Cpu => drop(workspace.host::<u64>(bytes.div_ceil(8))?),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(device) => drop(device.scratch(&mut workspace, bytes)?),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => device.reserve(&mut workspace, bytes)?,
        }
        Ok(workspace)
    }

    /// `len` numbers of scratch in host memory, with unspecified contents.
    pub(crate) fn host<T: bytemuck::Pod>(&mut self, len: usize) -> Result<&mut [T]> {
        self.host.try_numbers(len).map_err(|_| Error::OutOfMemory {
            what: format!("{} bytes of host workspace", len.saturating_mul(size_of::<T>())),
        })
    }
}
