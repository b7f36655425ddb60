//! The functions of CUDA's driver that are called, and whether this machine has them.
//!
//! cudarc looks a function up where it is first called, and panics where the library or the function is missing. So
//! both are looked for here first, once, and everything else calls only what this list names.

use super::find::Opened;
use std::path::Path;
use std::sync::Mutex;

macro_rules! functions {
    ($($name:ident),* $(,)?) => {
        pub(super) use cudarc::driver::sys::{$($name),*};

        /// Their names in the library.
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

functions! {
    cuCtxGetDevice,
    cuCtxPopCurrent_v2,
    cuCtxPushCurrent_v2,
    cuCtxSynchronize,
    cuDeviceGet,
    cuDeviceGetAttribute,
    cuDeviceGetCount,
    cuDeviceGetName,
    cuDevicePrimaryCtxRelease_v2,
    cuDevicePrimaryCtxRetain,
    cuDeviceTotalMem_v2,
    cuDriverGetVersion,
    cuFuncSetAttribute,
    cuGetErrorName,
    cuGetErrorString,
    cuInit,
    cuLaunchKernelEx,
    cuMemAllocAsync,
    cuMemAlloc_v2,
    cuMemFreeAsync,
    cuMemFree_v2,
    cuMemcpyDtoDAsync_v2,
    cuMemcpyDtoH_v2,
    cuMemcpyHtoDAsync_v2,
    cuMemsetD8Async,
    cuModuleGetFunction,
    cuModuleLoadData,
    cuPointerGetAttribute,
    cuStreamCreate,
    cuStreamDestroy_v2,
    cuStreamGetCtx,
    cuStreamIsCapturing,
    cuStreamSynchronize,
    cuThreadExchangeStreamCaptureMode,
}

/// The names under which cudarc opens the driver, in its order.
#[cfg(unix)]
const LIBRARY: &[&str] = &["libcuda.so", "libcuda.so.1"];
#[cfg(windows)]
const LIBRARY: &[&str] = &["nvcuda.dll"];

/// Whether the driver has been found, which then holds for the process.
static FOUND: Mutex<bool> = Mutex::new(false);

/// Makes sure that the driver is there, or says what was tried. A driver at a path of its own is opened from there, and
/// then known by its name to whoever asks for it.
pub(super) fn probe(explicit: Option<&Path>) -> std::result::Result<(), String> {
    let mut found = FOUND.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if *found {
        return Ok(());
    }
    if let Some(path) = explicit {
        Opened::file(path, false).map_err(|e| format!("the driver {}: {e}", path.display()))?.keep();
    }
    let mut tried = Vec::new();
    for name in LIBRARY {
        match Opened::named(name) {
            Ok(library) => {
                let missing: Vec<&str> = NAMES.iter().copied().filter(|name| !library.has(name)).collect();
                if !missing.is_empty() {
                    return Err(format!(
                        "{name} lacks {}: a driver of CUDA 12.0 or newer is needed",
                        missing.join(", ")
                    ));
                }
                library.keep();
                *found = true;
                return Ok(());
            }
            Err(error) => tried.push(error),
        }
    }
    Err(format!("no NVIDIA driver found; tried {}", tried.join("; ")))
}
