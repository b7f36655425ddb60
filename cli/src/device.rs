//! Places to run: a device, the overrides for its launches, and what moves tensors there and back.

use crate::arguments::Backend;
use crate::failure::{Failure, Result};
use clap::Args;
use normkit::backend::cpu::{Cpu, Isa};
use normkit::tensor::{DType, HostTensor};
use normkit::{Device, DeviceTensor, Stream};

/// Choices that are otherwise the library's, for experiments.
#[derive(Args, Default, Clone)]
pub(crate) struct Overrides {
    /// Use this instruction set on the CPU; `normkit devices` lists them
    #[arg(long, help_heading = "Experiments")]
    pub(crate) isa: Option<String>,
    /// Use this many threads on the CPU
    #[arg(long, value_name = "N", help_heading = "Experiments")]
    pub(crate) threads: Option<usize>,
}

impl Overrides {
    /// How the CPU is to run.
    fn cpu(&self) -> Result<Cpu> {
        let mut cpu = Cpu::default();
        if let Some(name) = &self.isa {
            cpu = cpu.with_isa(name.parse::<Isa>()?)?;
        }
        if let Some(threads) = self.threads {
            cpu = cpu.with_threads(threads)?;
        }
        Ok(cpu)
    }
}

/// A device and how to launch on it.
pub(crate) struct Place {
    device: Device,
    cpu: Cpu,
    threads: usize,
}

impl Place {
    /// The device of `backend`, or why there is none.
    pub(crate) fn open(backend: Backend, overrides: &Overrides) -> Result<Self> {
        let cpu = overrides.cpu()?;
        let device = match backend {
            Backend::Cpu => Device::Cpu,
            Backend::Wgpu => wgpu_device()?,
        };
        let threads = overrides.threads.unwrap_or_else(rayon::current_num_threads);
        Ok(Place { device, cpu, threads })
    }

    /// `wanted`, or every device that can be used; the CPU always can. Beside them, why others cannot.
    pub(crate) fn find(wanted: Option<Backend>, overrides: &Overrides) -> Result<(Vec<Self>, Vec<String>)> {
        if let Some(backend) = wanted {
            return Ok((vec![Place::open(backend, overrides)?], Vec::new()));
        }
        let (mut places, mut missing) = (Vec::new(), Vec::new());
        for backend in Backend::ALL {
            match Place::open(backend, overrides) {
                Ok(place) => places.push(place),
                Err(failure) if backend == Backend::Cpu => return Err(failure),
                Err(failure) => missing.push(failure.0),
            }
        }
        Ok((places, missing))
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn backend(&self) -> &'static str {
        self.device.backend()
    }

    /// Threads that share a launch on the CPU.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Whether the device has arithmetic for `dtype`.
    pub(crate) fn has(&self, dtype: DType) -> bool {
        dtype != DType::F64 || self.device == Device::Cpu
    }

    pub(crate) fn stream(&self) -> Stream<'static> {
        match self.device {
            Device::Cpu => Stream::Cpu(self.cpu.clone()),
            _ => self.device.stream(),
        }
    }

    /// `tensor` in the device's memory.
    pub(crate) fn upload(&self, tensor: HostTensor) -> Result<DeviceTensor> {
        match &self.device {
            Device::Cpu => Ok(DeviceTensor::Host(tensor)),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(device) => Ok(DeviceTensor::Wgpu(device.upload(&tensor)?)),
            _ => unreachable_device(),
        }
    }

    /// `tensor` in the host's memory, once everything before has run.
    pub(crate) fn download(&self, tensor: &DeviceTensor) -> Result<HostTensor> {
        match tensor {
            DeviceTensor::Host(tensor) => Ok(tensor.clone()),
            #[cfg(feature = "wgpu")]
            DeviceTensor::Wgpu(tensor) => Ok(tensor.download()?),
            _ => unreachable_device(),
        }
    }

    /// Waits for all launches so far.
    pub(crate) fn wait(&self) -> Result<()> {
        match &self.device {
            Device::Cpu => Ok(()),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(device) => Ok(device.wait()?),
            _ => unreachable_device(),
        }
    }
}

/// The library may grow backends that this command does not know.
fn unreachable_device<T>() -> Result<T> {
    Err(Failure::new("this device is not known to the command line"))
}

#[cfg(feature = "wgpu")]
fn wgpu_device() -> Result<Device> {
    Ok(Device::Wgpu(normkit::backend::wgpu::WgpuDevice::new()?))
}

#[cfg(not(feature = "wgpu"))]
fn wgpu_device() -> Result<Device> {
    Err(Failure::new("no wgpu device: this command was built without the feature `wgpu`"))
}
