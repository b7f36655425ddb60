//! The devices of this process, each made on first use.

use crate::errors::{exception, runtime_error};
use normkit::backend::cpu::Cpu;
use normkit::{Device, Error};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The GPUs in use, by backend and number.
static OPENED: Mutex<Vec<Opened>> = Mutex::new(Vec::new());

struct Opened {
    process: u32,
    backend: &'static str,
    ordinal: usize,
    device: Device,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first device of a backend other than the CPU.
pub(crate) fn named(backend: &str) -> PyResult<Device> {
    match backend {
        "wgpu" => opened("wgpu", 0, || normkit::backend::wgpu::WgpuDevice::new().map(Device::Wgpu)),
        "cuda" => cuda(0).map(Device::Cuda),
        "cuda-host" => {
            opened("cuda-host", 0, || normkit::backend::cuda::CudaDevice::host().map(Device::Cuda))
        }
        other => Err(runtime_error(format!("no usable {other} device: there is no such backend"))),
    }
}

/// A GPU by CUDA.
pub(crate) fn cuda(ordinal: usize) -> PyResult<normkit::backend::cuda::CudaDevice> {
    use normkit::backend::cuda::{CudaDevice, CudaOptions};
    let options = CudaOptions { ordinal, ..CudaOptions::default() };
    match opened("cuda", ordinal, || CudaDevice::with_options(&options).map(Device::Cuda))? {
        Device::Cuda(device) => Ok(device),
        other => Err(runtime_error(format!("no usable cuda device: found {}", other.backend()))),
    }
}

/// A device that has been opened, or `open`ed now.
fn opened(
    backend: &'static str,
    ordinal: usize,
    open: impl FnOnce() -> normkit::Result<Device>,
) -> PyResult<Device> {
    let process = std::process::id();
    let mut all = lock(&OPENED);
    if let Some(found) = all.iter().find(|other| other.backend == backend && other.ordinal == ordinal) {
        if found.process != process {
            let advice = "it was opened before this process was forked; start processes by 'spawn'";
            return Err(runtime_error(format!("no usable {backend} device: {advice}")));
        }
        return Ok(found.device.clone());
    }
    let device = open().map_err(exception)?;
    all.push(Opened { process, backend, ordinal, device: device.clone() });
    Ok(device)
}

/// Forgets a device that was lost, so that the next call opens another.
pub(crate) fn forget_lost(error: &Error) {
    if let Error::DeviceLost { backend, .. } = error {
        lock(&OPENED).retain(|opened| opened.backend != *backend);
    }
}

/// The names of the backends that can be used here, best known first.
///
/// ``"cpu"`` is always among them, ``"wgpu"`` where there is a Vulkan, Metal or Direct3D 12 adapter, and ``"cuda"`` where
/// there is an NVIDIA driver with a GPU, and NVRTC. ``"cuda-host"``, which runs the CUDA kernels on the CPU to test
/// them, can be named in calls but is not listed.
///
/// >>> import normkit
/// >>> "cpu" in normkit.backends()
/// True
#[pyfunction]
pub(crate) fn backends(py: Python<'_>) -> Vec<&'static str> {
    let mut usable = vec!["cpu"];
    if py.detach(|| named("wgpu")).is_ok() {
        usable.push("wgpu");
    }
    if py.detach(|| cuda(0)).is_ok() {
        usable.push("cuda");
    }
    usable
}

/// What there is to compute on, and why what cannot be used, cannot: a list of dicts with the keys ``"backend"``,
/// ``"usable"`` (``"yes"`` or ``"no"``) and ``"detail"``.
///
/// >>> import normkit
/// >>> normkit.devices()[0]["backend"]
/// 'cpu'
#[pyfunction]
pub(crate) fn devices(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyDict>>> {
    let mut found: Vec<(&str, Result<String, String>)> = Vec::new();
    let cpu = Cpu::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    found.push(("cpu", Ok(format!("{} on {threads} threads", cpu.isa().name()))));
    match py.detach(|| named("wgpu")) {
        Ok(Device::Wgpu(device)) => found.push(("wgpu", Ok(device.info().name))),
        Ok(_) => {}
        Err(error) => found.push(("wgpu", Err(error.value(py).to_string()))),
    }
    match py.detach(normkit::backend::cuda::devices) {
        Ok(gpus) => found.extend(gpus.into_iter().map(|gpu| {
            let (major, minor) = gpu.capability;
            let name = format!("{}, compute capability {major}.{minor}", gpu.name);
            (
                "cuda",
                match gpu.unusable {
                    Some(reason) => Err(format!("{name}: {reason}")),
                    None => Ok(name),
                },
            )
        })),
        Err(error) => found.push(("cuda", Err(error.to_string()))),
    }
    (found.into_iter())
        .map(|(backend, state)| {
            let entry = PyDict::new(py);
            entry.set_item("backend", backend)?;
            entry.set_item("usable", if state.is_ok() { "yes" } else { "no" })?;
            entry.set_item("detail", state.unwrap_or_else(|reason| reason))?;
            Ok(entry)
        })
        .collect()
}
