//! The GPUs of this machine: what they are, and whether they can be used.

use super::super::device::{CudaInfo, CudaOptions};
use super::super::fault::{CUDA, no_device};
use super::context::{attribute, check};
use super::find;
use super::nvrtc::Nvrtc;
use super::symbols::*;
use crate::{Error, Result};
use cudarc::driver::sys;
use std::ffi::{CStr, c_int};
use sys::{CUdevice, CUdevice_attribute as Attribute};

/// The least compute capability that the kernels are written for.
const LEAST: (u32, u32) = (7, 5);

/// Makes sure that there is a driver; its version.
pub(super) fn driver(options: &CudaOptions) -> Result<(u32, u32)> {
    probe(options.driver.as_deref()).map_err(|reason| no_device(CUDA, reason))?;
    let mut version = 0;
    // SAFETY: the driver is there; the number is written.
    let codes = unsafe { (cuInit(0), cuDriverGetVersion(&mut version)) };
    check("the driver's start", codes.0).map_err(|error| no_device(CUDA, error))?;
    check("the driver's version", codes.1)?;
    Ok((version as u32 / 1000, version as u32 % 1000 / 10))
}

/// Every GPU of this machine, also those that cannot be used, with the reason.
pub(in crate::backend::cuda) fn devices(options: &CudaOptions) -> Result<Vec<CudaInfo>> {
    let version = driver(options)?;
    let mut count = 0;
    // SAFETY: the number is written.
    check("a count of GPUs", unsafe { cuDeviceGetCount(&mut count) })?;
    (0..count as usize)
        .map(|ordinal| {
            let (_, mut info) = about(ordinal, version)?;
            if info.unusable.is_none() {
                match nvrtc(options, version, arch(&info)) {
                    Ok(nvrtc) => info.compiler = name_of(&nvrtc),
                    Err(Error::NoDevice { reason, .. }) => info.unusable = Some(reason),
                    Err(error) => return Err(error),
                }
            }
            Ok(info)
        })
        .collect()
}

pub(super) fn arch(info: &CudaInfo) -> u32 {
    info.capability.0 * 10 + info.capability.1
}

pub(super) fn nvrtc(options: &CudaOptions, driver: (u32, u32), arch: u32) -> Result<Nvrtc> {
    Nvrtc::find(options.nvrtc.as_deref(), &find::PROCESS, driver.0, arch)
}

pub(super) fn name_of(nvrtc: &Nvrtc) -> String {
    let (major, minor) = nvrtc.version();
    format!("NVRTC {major}.{minor}")
}

/// The GPU of this number, and what it is.
pub(super) fn about(ordinal: usize, driver: (u32, u32)) -> Result<(CUdevice, CudaInfo)> {
    let mut device = 0;
    let (mut name, mut memory) = ([0u8; 256], 0usize);
    // SAFETY: a number is written; the driver refuses ordinals that it does not have.
    let code = unsafe { cuDeviceGet(&mut device, c_int::try_from(ordinal).unwrap_or(c_int::MAX)) };
    check("a GPU", code).map_err(|error| no_device(CUDA, format!("GPU {ordinal} is not there: {error}")))?;
    // SAFETY: there is room for as many bytes as said, and for a number.
    let codes = unsafe {
        (
            cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as c_int, device),
            cuDeviceTotalMem_v2(&mut memory, device),
        )
    };
    check("a GPU's name", codes.0)?;
    check("a GPU's memory", codes.1)?;
    let major = attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let name = CStr::from_bytes_until_nul(&name).unwrap_or(c"").to_string_lossy().into_owned();
    let unusable = ((major, minor) < LEAST)
        .then(|| format!("compute capability {major}.{minor}; {}.{} is needed", LEAST.0, LEAST.1));
    let info = CudaInfo {
        name,
        ordinal,
        capability: (major, minor),
        memory: memory as u64,
        driver: Some(driver),
        compiler: String::new(),
        is_host: false,
        unusable,
    };
    Ok((device, info))
}
