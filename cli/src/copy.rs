//! The floor of every measurement: a copy on the same device, between buffers allocated beforehand.

use crate::device::Place;
use crate::failure::{Failure, Result};
use normkit::Device;
use normkit::backend::cpu::Cpu;
#[cfg(feature = "cuda")]
use normkit::backend::cuda::{CudaStream, CudaTensor};
#[cfg(feature = "wgpu")]
use normkit::backend::wgpu::{WgpuStream, WgpuTensor};
use normkit::tensor::{DType, HostTensor, Tensor};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Two buffers and how to copy the one to the other.
pub(crate) enum Copy {
    Host {
        from: HostTensor,
        to: HostTensor,
        cpu: Cpu,
        pool: ThreadPool,
    },
    #[cfg(feature = "wgpu")]
    Wgpu {
        from: WgpuTensor,
        to: WgpuTensor,
        stream: WgpuStream<'static>,
    },
    #[cfg(feature = "cuda")]
    Cuda {
        from: CudaTensor,
        to: CudaTensor,
        stream: CudaStream<'static>,
    },
}

/// Bytes that a thread copies at a time: below the size where the C library turns to stores past the caches.
const PIECE: usize = 256 << 10;

impl Copy {
    /// Buffers of `rows` x `cols` on `place`.
    pub(crate) fn new(place: &Place, [rows, cols]: [usize; 2], dtype: DType) -> Result<Self> {
        match place.device() {
            Device::Cpu => {
                let pool = ThreadPoolBuilder::new().num_threads(place.threads()).build();
                let pool = pool.map_err(|e| Failure::new(format!("no threads to copy with: {e}")))?;
                let mut from = HostTensor::zeros(&[rows, cols], dtype)?;
                // What was never written is one page of zeros, again and again, which lies in the caches.
                from.bytes_mut().fill(1);
                let to = HostTensor::zeros(&[rows, cols], dtype)?;
                Ok(Copy::Host { from, to, cpu: place.cpu().clone(), pool })
            }
            #[cfg(feature = "wgpu")]
            Device::Wgpu(device) => {
                let zeros = || device.zeros(&[rows, cols], dtype);
                Ok(Copy::Wgpu { from: zeros()?, to: zeros()?, stream: device.stream() })
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => {
                let zeros = || device.zeros(&[rows, cols], dtype);
                Ok(Copy::Cuda { from: zeros()?, to: zeros()?, stream: device.stream() })
            }
            _ => Err(Failure::new("no copy is known for this device")),
        }
    }

    /// How many ways there are to copy; the fastest counts.
    pub(crate) fn ways(&self) -> usize {
        match self {
            Copy::Host { .. } => 3,
            #[cfg(feature = "wgpu")]
            Copy::Wgpu { .. } => 1,
            #[cfg(feature = "cuda")]
            Copy::Cuda { .. } => 1,
        }
    }

    /// Copies in the given way: on the CPU in pieces, with ordinary stores, on the kernels' threads or on rayon's, or in one part
    /// per thread, for which the C library may choose stores past the caches.
    pub(crate) fn run(&mut self, way: usize) -> Result<()> {
        match self {
            Copy::Host { from, to, cpu, .. } if way == 0 => {
                Ok(normkit::backend::cpu::copy(&from.view()?, &mut to.view_mut()?, cpu)?)
            }
            Copy::Host { from, to, pool, .. } => {
                let (from, to) = (from.bytes(), to.bytes_mut());
                let part = if way == 1 { PIECE } else { from.len().div_ceil(pool.current_num_threads()) };
                let part = part.max(1);
                pool.install(|| {
                    let parts = to.par_chunks_mut(part).zip(from.par_chunks(part));
                    parts.for_each(|(to, from)| to.copy_from_slice(from));
                });
                Ok(())
            }
            #[cfg(feature = "wgpu")]
            Copy::Wgpu { from, to, stream } => {
                Ok(normkit::backend::wgpu::copy(&from.view()?, &mut to.view_mut()?, stream)?)
            }
            #[cfg(feature = "cuda")]
            Copy::Cuda { from, to, stream } => {
                Ok(normkit::backend::cuda::copy(&from.view()?, &mut to.view_mut()?, stream)?)
            }
        }
    }
}
