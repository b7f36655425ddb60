//! What every call of the driver needs: its answers as errors, a current context, and leave to allocate while somebody
//! captures a graph.

use super::super::fault::{CUDA, lost, out_of_memory, refused};
use super::symbols::*;
use crate::Result;
use cudarc::driver::sys;
use std::ffi::{CStr, c_int};
use sys::{CUcontext, CUdevice, CUdevice_attribute as Attribute, CUresult};

/// What a code of the driver's means for `what`.
pub(super) fn check(what: &str, code: CUresult) -> Result<()> {
    use CUresult::*;
    let text = || {
        let mut texts = [c"".as_ptr(); 2];
        let [name, meaning] = &mut texts;
        // SAFETY: each pointer is written, or left, and what is written is a text that stays.
        let texts = unsafe {
            let _ = (cuGetErrorName(code, name), cuGetErrorString(code, meaning));
            texts.map(|text| if text.is_null() { c"" } else { CStr::from_ptr(text) })
        };
        format!("{} ({})", texts[0].to_string_lossy(), texts[1].to_string_lossy())
    };
    match code {
        CUDA_SUCCESS => Ok(()),
        CUDA_ERROR_OUT_OF_MEMORY => Err(out_of_memory(what)),
        // After these a context does nothing any more.
        CUDA_ERROR_DEINITIALIZED
        | CUDA_ERROR_ECC_UNCORRECTABLE
        | CUDA_ERROR_CONTEXT_IS_DESTROYED
        | CUDA_ERROR_ILLEGAL_ADDRESS
        | CUDA_ERROR_LAUNCH_TIMEOUT
        | CUDA_ERROR_ASSERT
        | CUDA_ERROR_HARDWARE_STACK_ERROR
        | CUDA_ERROR_ILLEGAL_INSTRUCTION
        | CUDA_ERROR_MISALIGNED_ADDRESS
        | CUDA_ERROR_INVALID_ADDRESS_SPACE
        | CUDA_ERROR_INVALID_PC
        | CUDA_ERROR_LAUNCH_FAILED => Err(lost(CUDA, format!("{what}: {}", text()))),
        _ => Err(refused(CUDA, what, text())),
    }
}

/// A number that a GPU has.
pub(super) fn attribute(device: CUdevice, attribute: Attribute) -> Result<u32> {
    let mut value: c_int = 0;
    // SAFETY: the number is written.
    check("an attribute", unsafe { cuDeviceGetAttribute(&mut value, attribute, device) })?;
    Ok(value.max(0) as u32)
}

/// A GPU's primary context, retained.
#[derive(PartialEq)]
pub(in crate::backend::cuda) struct Context {
    pub(super) device: CUdevice,
    pub(super) raw: CUcontext,
}

// SAFETY: the driver's handles may be used by any thread.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    pub(super) fn retain(device: CUdevice) -> Result<Self> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: a handle is written, which is released once.
        check("a context", unsafe { cuDevicePrimaryCtxRetain(&mut raw, device) })?;
        Ok(Context { device, raw })
    }

    /// Makes the context the thread's current one until the result is dropped.
    pub(super) fn enter(&self) -> Result<Entered> {
        // SAFETY: the context is alive, being retained.
        unsafe { enter(self.raw) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was retained once. An error would say that the driver is being shut down.
        let _ = unsafe { cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// While it lives, a context is the thread's current one.
pub(super) struct Entered;

/// # Safety
/// The context is alive.
pub(super) unsafe fn enter(context: CUcontext) -> Result<Entered> {
    // SAFETY: the caller's promise.
    check("a context", unsafe { cuCtxPushCurrent_v2(context) })?;
    Ok(Entered)
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut context = std::ptr::null_mut();
        // SAFETY: what was pushed is popped; the handle is written. An error would say that there is nothing to pop.
        let _ = unsafe { cuCtxPopCurrent_v2(&mut context) };
    }
}

/// While it lives, the thread may do what would spoil somebody's capture of a graph if it were part of it: allocate,
/// free and load.
pub(super) struct Apart(sys::CUstreamCaptureMode);

impl Apart {
    pub(super) fn new() -> Result<Self> {
        let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the mode is read, and the old one written.
        check("a change of mode", unsafe { cuThreadExchangeStreamCaptureMode(&mut mode) })?;
        Ok(Apart(mode))
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // SAFETY: as above; the old mode is a valid one.
        let _ = unsafe { cuThreadExchangeStreamCaptureMode(&mut self.0) };
    }
}
