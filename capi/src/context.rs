//! Contexts: where calls run.

use crate::pointers::{hand_out, required, take_back};
use crate::status::{Fault, Result, Status, guard};
use normkit::backend::cpu::Cpu;
use normkit::{Stream, Workspace};
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

/// Where calls run, and the scratch memory that they need: the CPU and its threads, or a GPU and one of its streams.
///
/// Any number of threads may use one context at the same time. On a GPU their work is enqueued on its one stream; for work
/// side by side, make a context for each stream.
pub struct Context {
    place: Place,
    /// Scratch of earlier calls, for later ones. As many as calls ran at the same time.
    scratch: Mutex<Vec<Workspace>>,
}

pub(crate) enum Place {
    Cpu(Cpu),
    #[cfg(feature = "cuda")]
    Cuda(normkit::backend::cuda::CudaStream<'static>),
}

const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<Context>();
};

impl Context {
    fn new(place: Place) -> Self {
        Context { place, scratch: Mutex::default() }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn stream(&self) -> Stream<'static> {
        match &self.place {
            Place::Cpu(cpu) => Stream::Cpu(cpu.clone()),
            #[cfg(feature = "cuda")]
            Place::Cuda(stream) => Stream::Cuda(stream.clone()),
        }
    }

    /// Runs `body` with scratch memory that no other call uses meanwhile.
    pub(crate) fn with_workspace<R>(&self, body: impl FnOnce(&mut Workspace) -> R) -> R {
        let lock = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut workspace = lock().pop().unwrap_or_default();
        let result = body(&mut workspace);
        lock().push(workspace);
        result
    }

    fn synchronize(&self) -> Result<()> {
        match &self.place {
            Place::Cpu(_) => Ok(()),
            #[cfg(feature = "cuda")]
            Place::Cuda(stream) => Ok(stream.device().wait()?),
        }
    }
}

fn cpu(threads: i32) -> Result<Context> {
    let threads = usize::try_from(threads)
        .map_err(|_| Fault::argument("threads", "0 or a number of threads", threads))?;
    let cpu = if threads == 0 { Cpu::default() } else { Cpu::default().with_threads(threads)? };
    Ok(Context::new(Place::Cpu(cpu)))
}

#[cfg(feature = "cuda")]
mod gpu {
    use super::{Context, Place};
    use crate::status::{Fault, Result};
    use normkit::backend::cuda::{CudaDevice, CudaOptions};
    use std::ffi::c_void;

    /// # Safety
    /// `stream` is NULL or a stream of `device` that outlives the context.
    unsafe fn on(device: &CudaDevice, stream: *mut c_void) -> Result<Context> {
        // SAFETY: the caller's promise is the same.
        let stream = unsafe { device.on_stream(stream) }?;
        Ok(Context::new(Place::Cuda(stream)))
    }

    /// # Safety
    /// `stream` is NULL or a stream of the GPU that outlives the context.
    pub(super) unsafe fn cuda(ordinal: i32, stream: *mut c_void) -> Result<Context> {
        let ordinal = usize::try_from(ordinal)
            .map_err(|_| Fault::argument("ordinal", "the number of a GPU, from 0 up", ordinal))?;
        let device = CudaDevice::with_options(&CudaOptions { ordinal, ..CudaOptions::default() })?;
        // SAFETY: the caller's promise is the same.
        unsafe { on(&device, stream) }
    }

    pub(super) fn host() -> Result<Context> {
        let device = CudaDevice::host()?;
        Ok(Context::new(Place::Cuda(device.stream())))
    }

    /// # Safety
    /// As [`cuda`].
    pub(super) unsafe fn sibling(context: &Context, stream: *mut c_void) -> Result<Context> {
        match &context.place {
            // SAFETY: the caller's promise is the same.
            Place::Cuda(own) => unsafe { on(own.device(), stream) },
            Place::Cpu(_) => Err(Fault::argument("context", "a context of a GPU", "one of the CPU")),
        }
    }
}

#[cfg(not(feature = "cuda"))]
mod gpu {
    use super::Context;
    use crate::status::{Fault, Result, Status};
    use std::ffi::c_void;

    fn none() -> Result<Context> {
        let message = "no usable cuda device: this library was built without the feature cuda".to_owned();
        Err(Fault { status: Status::NoDevice, message })
    }

    pub(super) unsafe fn cuda(_: i32, _: *mut c_void) -> Result<Context> {
        none()
    }

    pub(super) fn host() -> Result<Context> {
        none()
    }

    pub(super) unsafe fn sibling(_: &Context, _: *mut c_void) -> Result<Context> {
        none()
    }
}

/// Makes a context of the CPU. Its calls have finished when they return. threads: how many threads they run on; 1 is the calling
/// thread alone, 0 is as many as the machine has, which all such contexts of the process share. Results do not depend on it.
///
/// A process that was forked has none of its parent's threads: there, make a context anew, unless threads was 0.
///
/// On errors *context is NULL: threads negative, or more than the system gives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_context_new_cpu(threads: i32, context: *mut *mut Context) -> Status {
    // SAFETY: the header says what `context` must be.
    guard(|| unsafe { hand_out("context", context, || cpu(threads)) })
}

/// Makes a context of the GPU with this number, by CUDA, in the GPU's primary context, which the CUDA runtime uses, too. stream is a
/// CUstream (or cudaStream_t) of that GPU, or NULL for the legacy default stream; it must live as long as the context.
///
/// Calls enqueue their work on the stream and return; operands must stay where they are until it has run. Kernels are compiled on
/// first use, by NVRTC, and kept on disk. A first context of a GPU costs more than another stream for it: see
/// normkit_context_new_on_stream.
///
/// On errors *context is NULL: NORMKIT_STATUS_NO_DEVICE where there is no driver, no such GPU or no NVRTC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_context_new_cuda(
    ordinal: i32,
    stream: *mut c_void,
    context: *mut *mut Context,
) -> Status {
    // SAFETY: the header says what `stream` and `context` must be.
    guard(|| unsafe { hand_out("context", context, || gpu::cuda(ordinal, stream)) })
}

/// Makes a context of the GPU of another context, for another of its streams. Kernels that the other has compiled are shared.
///
/// On errors *context is NULL: other is NULL or a context of the CPU, or the stream is another GPU's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_context_new_on_stream(
    other: *const Context,
    stream: *mut c_void,
    context: *mut *mut Context,
) -> Status {
    // SAFETY: the header says what `other`, `stream` and `context` must be.
    guard(|| unsafe { hand_out("context", context, || gpu::sibling(required("other", other)?, stream)) })
}

/// Makes a context that runs the CUDA kernels on the CPU, on memory of the host: to test programs for GPUs on machines without one.
/// It is slow, and needs a C++ compiler when it runs, c++ or the one that the environment variable CXX names.
///
/// On errors *context is NULL: NORMKIT_STATUS_NO_DEVICE where there is no compiler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_context_new_cuda_host(context: *mut *mut Context) -> Status {
    // SAFETY: the header says what `context` must be.
    guard(|| unsafe { hand_out("context", context, gpu::host) })
}

/// Waits until everything that was enqueued on the context's device has run. On the CPU that is at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_context_synchronize(context: *const Context) -> Status {
    // SAFETY: the header says what `context` must be.
    guard(|| unsafe { required("context", context) }?.synchronize())
}

/// Frees a context; NULL is nothing. No call may be using it. On a GPU it waits for work that uses its scratch memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_context_free(context: *mut Context) {
    guard(|| {
        // SAFETY: the header says what `context` must be.
        unsafe { take_back(context) };
        Ok(())
    });
}
