//! Places to run: a device, the overrides for its launches, and what moves tensors there and back.

use crate::arguments::Backend;
use crate::failure::{Failure, Result};
use clap::Args;
use normkit::backend::cpu::{Cpu, Isa, Schedule};
#[cfg(feature = "cuda")]
use normkit::backend::cuda;
#[cfg(feature = "wgpu")]
use normkit::backend::wgpu;
use normkit::tensor::DType;
use normkit::{Device, Stream};

/// Choices that are otherwise the library's, for experiments.
#[derive(Args, Default, Clone)]
pub(crate) struct Overrides {
    /// Use this instruction set on the CPU; `normkit devices` lists them
    #[arg(long, help_heading = "Experiments")]
    pub(crate) isa: Option<String>,
    /// Use this many threads on the CPU
    #[arg(long, value_name = "N", help_heading = "Experiments")]
    pub(crate) threads: Option<usize>,
    /// Run norms by this schedule, where it can run them
    #[arg(long, help_heading = "Experiments")]
    pub(crate) schedule: Option<ScheduleName>,
    /// Use the adapter with this in its name
    #[cfg(feature = "wgpu")]
    #[arg(long, value_name = "NAME", help_heading = "Experiments")]
    pub(crate) adapter: Option<String>,
    /// Use the GPU with this number on cuda
    #[cfg(feature = "cuda")]
    #[arg(long, value_name = "N", help_heading = "Experiments")]
    pub(crate) gpu: Option<usize>,
    /// Combine a row's sums like this on wgpu
    #[cfg(feature = "wgpu")]
    #[arg(long, help_heading = "Experiments")]
    pub(crate) reduction: Option<ReductionName>,
    /// Invocations of a workgroup that reduces through workgroup memory on wgpu
    #[cfg(feature = "wgpu")]
    #[arg(long, value_name = "N", help_heading = "Experiments")]
    pub(crate) group: Option<u32>,
    /// The most vectors that an invocation keeps of a row on wgpu
    #[cfg(feature = "wgpu")]
    #[arg(long, value_name = "N", help_heading = "Experiments")]
    pub(crate) held: Option<u32>,
}

/// How a norm's rows are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ScheduleName {
    Row,
    Column,
    Split,
}

/// How the invocations of a row combine their sums.
#[cfg(feature = "wgpu")]
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum ReductionName {
    Subgroup,
    Workgroup,
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
        if let Some(schedule) = self.schedule {
            cpu = cpu.with_schedule(match schedule {
                ScheduleName::Row => Schedule::Row,
                ScheduleName::Column => Schedule::Column,
                ScheduleName::Split => Schedule::Split,
            });
        }
        Ok(cpu)
    }

    /// How wgpu is to run.
    #[cfg(feature = "wgpu")]
    fn wgpu(&self) -> wgpu::Overrides {
        let reduction = self.reduction.map(|reduction| match reduction {
            ReductionName::Subgroup => wgpu::Reduction::Subgroup,
            ReductionName::Workgroup => wgpu::Reduction::Workgroup,
        });
        let style = match self.schedule {
            Some(ScheduleName::Row) => Some(wgpu::Style::Row),
            Some(ScheduleName::Column) => Some(wgpu::Style::Column),
            _ => None,
        };
        let split = self.schedule == Some(ScheduleName::Split);
        wgpu::Overrides { reduction, group: self.group, held: self.held, style, split }
    }

    #[cfg(feature = "wgpu")]
    fn wgpu_device(&self) -> Result<Device> {
        let options = wgpu::Options { adapter: self.adapter.clone(), ..wgpu::Options::default() };
        Ok(Device::Wgpu(wgpu::WgpuDevice::with_options(&options)?))
    }

    #[cfg(not(feature = "wgpu"))]
    fn wgpu_device(&self) -> Result<Device> {
        Err(Failure::new("no wgpu device: this command was built without the feature `wgpu`"))
    }

    /// How CUDA is to run.
    #[cfg(feature = "cuda")]
    fn cuda(&self) -> cuda::Overrides {
        let mut overrides = cuda::Overrides::default();
        overrides.style = match self.schedule {
            Some(ScheduleName::Row) => Some(cuda::Style::Row),
            Some(ScheduleName::Column) => Some(cuda::Style::Column),
            _ => None,
        };
        overrides.split = self.schedule == Some(ScheduleName::Split);
        overrides
    }

    #[cfg(feature = "cuda")]
    fn cuda_device(&self, on_host: bool) -> Result<Device> {
        let options = cuda::CudaOptions { ordinal: self.gpu.unwrap_or(0), ..cuda::CudaOptions::default() };
        let workers = self.threads.unwrap_or_else(rayon::current_num_threads) as u32;
        let on_threads = cuda::HostOptions { workers, ..cuda::HostOptions::default() };
        Ok(Device::Cuda(match on_host {
            true => cuda::CudaDevice::host_with(&on_threads)?,
            false => cuda::CudaDevice::with_options(&options)?,
        }))
    }

    #[cfg(not(feature = "cuda"))]
    fn cuda_device(&self, _: bool) -> Result<Device> {
        Err(Failure::new("no cuda device: this command was built without the feature `cuda`"))
    }
}

/// A device and how to launch on it.
pub(crate) struct Place {
    device: Device,
    cpu: Cpu,
    overrides: Overrides,
}

impl Place {
    /// The device of `backend`, or why there is none.
    pub(crate) fn open(backend: Backend, overrides: &Overrides) -> Result<Self> {
        let cpu = overrides.cpu()?;
        let device = match backend {
            Backend::Cpu => Device::Cpu,
            Backend::Wgpu => overrides.wgpu_device()?,
            Backend::Cuda => overrides.cuda_device(false)?,
            Backend::CudaHost => overrides.cuda_device(true)?,
        };
        let place = Place { device, cpu, overrides: overrides.clone() };
        // An override that the device cannot follow is refused here and not at the first launch.
        place.stream().map(|_| place)
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

    /// How the CPU is to run.
    pub(crate) fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    /// Threads that share a launch on the CPU.
    pub(crate) fn threads(&self) -> usize {
        self.overrides.threads.unwrap_or_else(rayon::current_num_threads)
    }

    /// Whether the device has arithmetic for `dtype`.
    pub(crate) fn has(&self, dtype: DType) -> bool {
        dtype != DType::F64 || self.backend() != "wgpu"
    }

    /// The device's stream, with the overrides.
    pub(crate) fn stream(&self) -> Result<Stream<'static>> {
        match &self.device {
            Device::Cpu => Ok(Stream::Cpu(self.cpu.clone())),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(device) => Ok(Stream::Wgpu(device.stream().with_overrides(self.overrides.wgpu())?)),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => Ok(Stream::Cuda(device.stream().with_overrides(self.overrides.cuda())?)),
            _ => unknown_device(),
        }
    }

    /// How many calls are enqueued before the clock is stopped: on a GPU waiting costs as much as a small call.
    pub(crate) fn calls_between_waits(&self) -> u32 {
        if self.backend() == "cuda" { 20 } else { 1 }
    }

    /// Makes sure that the device does what kernels are made of, where that is to be found out before they run.
    pub(crate) fn self_test(&self) -> Result<()> {
        match &self.device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => Ok(device.self_test()?),
            _ => Ok(()),
        }
    }

    /// Waits for all launches so far.
    pub(crate) fn wait(&self) -> Result<()> {
        match &self.device {
            Device::Cpu => Ok(()),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(device) => Ok(device.wait()?),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => Ok(device.wait()?),
            _ => unknown_device(),
        }
    }
}

/// The library may grow backends that this command does not know.
fn unknown_device<T>() -> Result<T> {
    Err(Failure::new("this device is not known to the command line"))
}
