//! The real driver: kernels compiled by NVRTC, run on a GPU.
//!
//! All memory and launches belong to the GPU's primary context, which other libraries of a process use, too. It is
//! retained and released; nothing that is a caller's is ever freed. Modules are never unloaded, since a captured
//! graph may launch their kernels at any time; they go with the context.

use super::super::device::{CudaInfo, CudaOptions, Limits};
use super::super::fault::{CUDA, limit, no_device, refused};
use super::cache::{Disk, Key};
use super::context::{Apart, Context, attribute, check, enter};
use super::gpus::{about, arch, driver, name_of, nvrtc};
use super::nvrtc::{Nvrtc, flags};
use super::symbols::*;
use super::{Entry, Function, Launch, Queue};
use crate::{Error, Result};
use cudarc::driver::sys;
use std::ffi::{CString, c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError};
use sys::{CUdevice, CUdevice_attribute as Attribute, CUfunction, CUresult, CUstream};

/// The most blocks of a launch in one dimension.
pub(super) const MOST_BLOCKS: u64 = (1 << 31) - 1;

/// Shared memory that a kernel may have without asking.
const SHARED_UNASKED: u32 = 48 << 10;

/// Blocks of a cluster that every GPU with clusters allows without asking.
const CLUSTER_UNASKED: u32 = 8;

/// A GPU in use.
pub(in crate::backend::cuda) struct Gpu {
    context: Context,
    queue: Queue,
    /// Whether memory can be had in the order of a stream.
    pools: bool,
    arch: u32,
    options: Vec<String>,
    nvrtc: Nvrtc,
}

/// A compiled kernel.
#[derive(Clone)]
pub(super) struct Kernel {
    function: CUfunction,
    /// Bytes of dynamic shared memory, and blocks of a cluster, that it has been allowed so far.
    allowed: Arc<Mutex<(u32, u32)>>,
}

// SAFETY: the driver's handles may be used by any thread.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

impl Gpu {
    pub(super) fn open(options: &CudaOptions) -> Result<(Self, CudaInfo, Limits)> {
        let version = driver(options)?;
        let (device, info) = about(options.ordinal, version)?;
        Gpu::on(device, info, version, options)
    }

    /// # Safety
    /// As [`super::Driver::gpu_of_context`].
    pub(super) unsafe fn of_context(
        context: *mut c_void,
        options: &CudaOptions,
    ) -> Result<(Self, CudaInfo, Limits)> {
        let unlike = |found: &str| Error::argument("context", "the primary context of a GPU", found);
        if context.is_null() {
            return Err(unlike("a null pointer"));
        }
        let version = driver(options)?;
        let mut device = 0;
        // SAFETY: the caller says that the context is alive; a number is written.
        let code = unsafe {
            let _entered = enter(context.cast())?;
            cuCtxGetDevice(&mut device)
        };
        check("a context", code)?;
        let (device, info) = about(device as usize, version)?;
        let opened = Gpu::on(device, info, version, options)?;
        if opened.0.context.raw.cast::<c_void>() != context {
            return Err(unlike("another context of the same GPU"));
        }
        Ok(opened)
    }

    fn on(
        device: CUdevice,
        mut info: CudaInfo,
        version: (u32, u32),
        options: &CudaOptions,
    ) -> Result<(Self, CudaInfo, Limits)> {
        if let Some(reason) = &info.unusable {
            return Err(no_device(CUDA, format!("{}: {reason}", info.name)));
        }
        let arch = arch(&info);
        let nvrtc = nvrtc(options, version, arch)?;
        info.compiler = name_of(&nvrtc);
        let limits = Limits {
            multiprocessors: attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            l2_bytes: attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?.into(),
            shared_bytes: attribute(
                device,
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
            )?,
            capability: info.capability,
            is_host: false,
        };
        let pools = attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)? != 0;
        let context = Context::retain(device)?;
        let mut stream: CUstream = std::ptr::null_mut();
        {
            let _entered = context.enter()?;
            // In order with the legacy default stream, which is what programs without streams use.
            // SAFETY: a handle is written, which is destroyed once.
            check("a stream", unsafe { cuStreamCreate(&mut stream, 0) })?;
        }
        let queue = Queue(stream.expose_provenance());
        let options = flags(arch);
        tracing::info!(gpu = %info.name, compiler = %info.compiler, "cuda device");
        Ok((Gpu { context, queue, pools, arch, options, nvrtc }, info, limits))
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    pub(super) fn queue(&self) -> Queue {
        self.queue
    }

    /// # Safety
    /// As [`super::Driver::check_queue`].
    pub(super) unsafe fn check_queue(&self, queue: Queue) -> Result<()> {
        let _entered = self.context.enter()?;
        let mut context = std::ptr::null_mut();
        // SAFETY: the caller says that the stream is alive; a handle is written.
        check("a stream", unsafe { cuStreamGetCtx(stream(queue), &mut context) })?;
        if context == self.context.raw {
            return Ok(());
        }
        Err(Error::argument("stream", "a stream of the device's context", "a stream of another context"))
    }

    pub(super) fn is_capturing(&self, queue: Queue) -> Result<bool> {
        let _entered = self.context.enter()?;
        let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        // SAFETY: the stream is alive by `CudaDevice::on_stream`'s contract; the status is written.
        let code = unsafe { cuStreamIsCapturing(stream(queue), &mut status) };
        if code == CUresult::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT {
            // The legacy stream, while another one is being captured in the context.
            return Ok(true);
        }
        check("a stream's status", code)?;
        Ok(status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
    }

    pub(super) fn wait(&self) -> Result<()> {
        let _entered = self.context.enter()?;
        // SAFETY: no arguments.
        check("waiting", unsafe { cuCtxSynchronize() })
    }

    pub(super) fn allocate(&self, bytes: usize) -> Result<u64> {
        let (_entered, _apart) = (self.context.enter()?, Apart::new()?);
        let mut address = 0;
        // SAFETY: an address is written.
        let code = unsafe { cuMemAlloc_v2(&mut address, bytes.max(1)) };
        check(&format!("{bytes} bytes of GPU memory"), code)?;
        Ok(address)
    }

    /// # Safety
    /// As [`super::Driver::release`].
    pub(super) unsafe fn release(&self, address: u64, _: usize) {
        if let (Ok(_entered), Ok(_apart)) = (self.context.enter(), Apart::new()) {
            // SAFETY: the caller says that nobody uses the memory from now on; the driver waits for launches that do.
            // Where it fails the context is lost, and its memory with it.
            let _ = unsafe { cuMemFree_v2(address) };
        }
    }

    pub(super) fn allocate_on(&self, queue: Queue, bytes: usize) -> Result<u64> {
        if !self.pools {
            if self.is_capturing(queue)? {
                let reason = "this GPU has no memory pools, so a call that needs memory cannot be captured";
                return Err(refused(CUDA, "scratch memory", reason));
            }
            return self.allocate(bytes);
        }
        let _entered = self.context.enter()?;
        let mut address = 0;
        // SAFETY: an address is written; the stream is alive.
        let code = unsafe { cuMemAllocAsync(&mut address, bytes.max(1), stream(queue)) };
        check(&format!("{bytes} bytes of GPU memory"), code)?;
        Ok(address)
    }

    /// # Safety
    /// As [`super::Driver::release_on`].
    pub(super) unsafe fn release_on(&self, queue: Queue, address: u64, bytes: usize) {
        let Ok(_entered) = self.context.enter() else { return };
        if self.pools {
            // SAFETY: allocated on the same stream, and no later launch uses it. Errors as for `release`.
            let _ = unsafe { cuMemFreeAsync(address, stream(queue)) };
            return;
        }
        // SAFETY: the stream is alive; after waiting no launch uses the memory.
        unsafe {
            let _ = cuStreamSynchronize(stream(queue));
            self.release(address, bytes);
        }
    }

    /// # Safety
    /// As [`super::Driver::clear`].
    pub(super) unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let (_entered, _apart) = (self.context.enter()?, Apart::new()?);
        // SAFETY: the caller says that the bytes are this device's.
        check("zeros", unsafe { cuMemsetD8Async(address, 0, bytes, stream(self.queue)) })?;
        // SAFETY: the stream is this device's own.
        check("zeros", unsafe { cuStreamSynchronize(stream(self.queue)) })
    }

    /// # Safety
    /// As [`super::Driver::upload`].
    pub(super) unsafe fn upload(&self, address: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (_entered, _apart) = (self.context.enter()?, Apart::new()?);
        let from = bytes.as_ptr().cast();
        // SAFETY: the caller says that the bytes are this device's; the slice lives until the copy has arrived.
        let code = unsafe { cuMemcpyHtoDAsync_v2(address, from, bytes.len(), stream(self.queue)) };
        // Waited for even after an error, since a copy may have begun.
        // SAFETY: the stream is this device's own.
        let arrived = unsafe { cuStreamSynchronize(stream(self.queue)) };
        check("an upload", code).and(check("an upload", arrived))
    }

    /// # Safety
    /// As [`super::Driver::copy`].
    pub(super) unsafe fn copy(&self, queue: Queue, to: u64, from: u64, bytes: usize) -> Result<()> {
        let _entered = self.context.enter()?;
        // SAFETY: the caller says that the bytes are this device's.
        check("a copy", unsafe { cuMemcpyDtoDAsync_v2(to, from, bytes, stream(queue)) })
    }

    /// # Safety
    /// As [`super::Driver::download`].
    pub(super) unsafe fn download(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.wait()?;
        if bytes.is_empty() {
            return Ok(());
        }
        let _entered = self.context.enter()?;
        // SAFETY: the caller says that the bytes are this device's; there is room for them, and the call returns when
        // they have arrived.
        check("a readback", unsafe { cuMemcpyDtoH_v2(bytes.as_mut_ptr().cast(), address, bytes.len()) })
    }

    pub(super) fn check_address(&self, address: u64) -> Result<()> {
        let expected = || format!("memory of GPU {}", self.context.device);
        let mut ordinal: c_int = 0;
        let asked = sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL;
        // SAFETY: the attribute is a number, which is written; the driver refuses addresses that are not its own.
        let code = unsafe { cuPointerGetAttribute((&raw mut ordinal).cast(), asked, address) };
        if code == CUresult::CUDA_ERROR_INVALID_VALUE {
            let found = format!("{address:#x}, which is no memory of a GPU");
            return Err(Error::argument("address", expected(), found));
        }
        check("an address", code)?;
        if ordinal == self.context.device {
            return Ok(());
        }
        Err(Error::argument("address", expected(), format!("{address:#x}, memory of GPU {ordinal}")))
    }

    pub(super) fn run(&self, queue: Queue, what: &str, launches: &[Launch]) -> Result<()> {
        let _entered = self.context.enter()?;
        launches.iter().try_for_each(|launch| self.launch(queue, what, launch))
    }

    /// Enqueues one launch; the context is current.
    fn launch(&self, queue: Queue, what: &str, launch: &Launch) -> Result<()> {
        let Entry::Gpu(kernel) = &launch.function.0 else {
            return Err(refused(CUDA, what, "a kernel that was compiled for the host driver"));
        };
        if launch.grid > MOST_BLOCKS {
            return Err(limit("grid", format!("{MOST_BLOCKS} blocks"), launch.grid));
        }
        kernel.allow(launch.shared, launch.cluster)?;
        // SAFETY: a number of zeros is the attribute that says nothing.
        let mut cluster: sys::CUlaunchAttribute = unsafe { std::mem::zeroed() };
        cluster.id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
        cluster.value.clusterDim.x = launch.cluster;
        cluster.value.clusterDim.y = 1;
        cluster.value.clusterDim.z = 1;
        let config = sys::CUlaunchConfig {
            gridDimX: launch.grid as u32,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: launch.block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: launch.shared,
            hStream: stream(queue),
            attrs: &raw mut cluster,
            numAttrs: u32::from(launch.cluster > 1),
        };
        // With its size beside it the driver compares the parameters with what the kernel takes.
        let mut size = launch.params.len();
        let mut extra: [*mut c_void; 5] = [
            std::ptr::without_provenance_mut(1), // CU_LAUNCH_PARAM_BUFFER_POINTER
            launch.params.as_ptr().cast_mut().cast(),
            std::ptr::without_provenance_mut(2), // CU_LAUNCH_PARAM_BUFFER_SIZE
            (&raw mut size).cast(),
            std::ptr::null_mut(), // CU_LAUNCH_PARAM_END
        ];
        // SAFETY: the driver copies parameters and attributes before it returns; the kernel's parameters name memory
        // that the views they were made from have checked or their makers have vouched for.
        let code =
            unsafe { cuLaunchKernelEx(&config, kernel.function, std::ptr::null_mut(), extra.as_mut_ptr()) };
        check(what, code)
    }

    /// Everything but the source that a compiled kernel depends on.
    pub(super) fn identity(&self) -> Vec<String> {
        let compiler = [name_of(&self.nvrtc), format!("sm_{}", self.arch)];
        compiler.into_iter().chain(self.options.iter().cloned()).collect()
    }

    pub(super) fn compile(
        &self,
        disk: &Disk,
        key: &Key,
        source: &str,
        names: &[String],
    ) -> Result<Vec<Function>> {
        if let Some((_, code)) = disk.get(key, "cubin")
            && let Ok(functions) = self.load(&code, names)
        {
            return Ok(functions);
        }
        let code = self.nvrtc.compile(source, &self.options)?;
        disk.put(key, "cubin", &code);
        self.load(&code, names)
    }

    /// The entries of machine code.
    fn load(&self, code: &[u8], names: &[String]) -> Result<Vec<Function>> {
        let (_entered, _apart) = (self.context.enter()?, Apart::new()?);
        let mut module = std::ptr::null_mut();
        // SAFETY: a handle is written; the code says its own length, and is NVRTC's as it was made.
        check("a module", unsafe { cuModuleLoadData(&mut module, code.as_ptr().cast()) })?;
        let entry = |name: &String| {
            let text = CString::new(name.as_str()).map_err(|error| refused(CUDA, "a kernel", error))?;
            let mut function = std::ptr::null_mut();
            // SAFETY: a handle is written; the module stays loaded.
            let code = unsafe { cuModuleGetFunction(&mut function, module, text.as_ptr()) };
            check(&format!("kernel {name}"), code)?;
            Ok(Function(Entry::Gpu(Kernel { function, allowed: Arc::default() })))
        };
        names.iter().map(entry).collect()
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if let Ok(_entered) = self.context.enter() {
            // SAFETY: the stream was made here; what is enqueued on it still runs.
            let _ = unsafe { cuStreamDestroy_v2(stream(self.queue)) };
        }
    }
}

/// The driver's handle of a stream.
fn stream(queue: Queue) -> CUstream {
    std::ptr::with_exposed_provenance_mut(queue.0)
}

impl Kernel {
    /// Asks for as much shared memory, and as large clusters, as a launch has; once for each more.
    fn allow(&self, shared: u32, cluster: u32) -> Result<()> {
        use sys::CUfunction_attribute::*;
        let ask = |what: &str, attribute, value: u32| {
            // SAFETY: the function is alive, as its module is never unloaded.
            check(what, unsafe { cuFuncSetAttribute(self.function, attribute, value as c_int) })
        };
        if shared <= SHARED_UNASKED && cluster <= CLUSTER_UNASKED {
            return Ok(());
        }
        let mut allowed = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        if shared > SHARED_UNASKED.max(allowed.0) {
            ask("shared memory", CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)?;
            allowed.0 = shared;
        }
        if cluster > CLUSTER_UNASKED.max(allowed.1) {
            ask("a cluster", CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)?;
            allowed.1 = cluster;
        }
        Ok(())
    }
}
