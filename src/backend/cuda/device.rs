//! Devices: a GPU, or the CPU in its place.

use super::driver::{Cache, Driver, Function, HostOptions, disk};
use super::kernel::Kernel;
use super::stream::CudaStream;
use super::tensor::CudaTensor;
use super::{Functions, driver};
use crate::tensor::{DType, HostTensor};
use crate::{Result, Workspace};
use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::Arc;

/// A GPU, or the host driver, which runs the same kernels on the CPU. A clone is another handle to the same device; any
/// number of threads may use one.
#[derive(Clone)]
pub struct CudaDevice {
    inner: Arc<Inner>,
}

struct Inner {
    driver: Driver,
    info: CudaInfo,
    limits: Limits,
    disk: driver::Disk,
    functions: Functions,
}

/// Which GPU, and where what it needs lies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CudaOptions {
    /// The GPU's number, as the driver counts them.
    pub ordinal: usize,
    /// The file of NVRTC, or the folder that holds it. Without it `$NORMKIT_NVRTC` says so; else NVRTC is looked for in
    /// `$CUDA_HOME` and `$CUDA_PATH`, where the system's loader looks, and among the packages of Python's environments.
    pub nvrtc: Option<PathBuf>,
    /// The driver's library, where the system's loader does not find it.
    pub driver: Option<PathBuf>,
    /// Where compiled kernels are kept between runs.
    pub cache: Cache,
}

/// What a device is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CudaInfo {
    /// The GPU's name.
    pub name: String,
    /// The GPU's number.
    pub ordinal: usize,
    /// The compute capability.
    pub capability: (u32, u32),
    /// Bytes of memory; 0 on the host driver, which has the machine's.
    pub memory: u64,
    /// The CUDA version of the driver; none on the host driver.
    pub driver: Option<(u32, u32)>,
    /// The compiler and its version.
    pub compiler: String,
    /// Whether the CPU does the work.
    pub is_host: bool,
    /// Why the GPU cannot be used, if it cannot.
    pub unusable: Option<String>,
}

/// What launches are cut by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limits {
    pub(super) multiprocessors: u32,
    pub(super) l2_bytes: u64,
    /// The most shared memory that a block can ask for.
    pub(super) shared_bytes: u32,
    /// The compute capability.
    pub(super) capability: (u32, u32),
    pub(super) is_host: bool,
}

/// Every GPU of this machine, also those that cannot be used, with the reason; `Err` where there is no driver.
pub fn devices() -> Result<Vec<CudaInfo>> {
    driver::devices(&CudaOptions::default())
}

impl CudaDevice {
    /// The first GPU of this machine.
    pub fn new() -> Result<Self> {
        CudaDevice::with_options(&CudaOptions::default())
    }

    /// A GPU of this machine, by its primary context, which other libraries of the process use, too.
    pub fn with_options(options: &CudaOptions) -> Result<Self> {
        Driver::gpu(options).map(|parts| CudaDevice::assemble(parts, &options.cache))
    }

    /// The GPU of `context`, a `CUcontext` that must be a GPU's primary one. It is retained while the device is in
    /// use, and nothing of the caller's in it is ever freed. `options.ordinal` is not looked at.
    ///
    /// # Safety
    /// `context` is null, which is an error, or a context that has not been destroyed.
    pub unsafe fn from_context(context: *mut c_void, options: &CudaOptions) -> Result<Self> {
        // SAFETY: the caller's promise is the same.
        let parts = unsafe { Driver::gpu_of_context(context, options) }?;
        Ok(CudaDevice::assemble(parts, &options.cache))
    }

    /// The host driver: the same kernels, compiled by the system's C++ compiler, on a machine without a GPU. It is
    /// there to test them and finds what would be wrong on a GPU, too; it is slow.
    pub fn host() -> Result<Self> {
        CudaDevice::host_with(&HostOptions::default())
    }

    /// The host driver with another compiler, or another order of threads.
    pub fn host_with(options: &HostOptions) -> Result<Self> {
        Driver::host(options).map(|parts| CudaDevice::assemble(parts, &options.cache))
    }

    fn assemble((driver, info, limits): (Driver, CudaInfo, Limits), cache: &Cache) -> Self {
        let functions = Functions::default();
        CudaDevice { inner: Arc::new(Inner { driver, info, limits, disk: disk(cache), functions }) }
    }

    /// What the device is.
    pub fn info(&self) -> &CudaInfo {
        &self.inner.info
    }

    /// The backend's name: `cuda`, or `cuda-host` for the host driver.
    pub fn backend(&self) -> &'static str {
        if self.inner.info.is_host { super::fault::HOST } else { super::fault::CUDA }
    }

    /// The device's own stream: launches are enqueued, in their order and in order with the legacy default stream.
    pub fn stream(&self) -> CudaStream<'static> {
        CudaStream::own(self)
    }

    /// A caller's stream, a `CUstream`; null is the legacy default stream. Launches are enqueued there and nowhere
    /// else, and nothing waits for them. The host driver has the null stream only.
    ///
    /// # Safety
    /// The stream has not been destroyed, and is not while the result lives. Operands of launches stay where
    /// they are until the stream has run them.
    pub unsafe fn on_stream<'a>(&self, stream: *mut c_void) -> Result<CudaStream<'a>> {
        // SAFETY: the caller's promise is the same.
        unsafe { CudaStream::foreign(self, stream) }
    }

    /// A stream on which calls compile what they would launch, and launch nothing. Afterwards the same calls can be
    /// captured into a CUDA graph on a stream of the caller's. It works with every method, forward and backward:
    ///
    /// ```
    /// use normkit::backend::cuda::CudaDevice;
    /// use normkit::prelude::*;
    /// use normkit::tensor::DType;
    ///
    /// # fn prepare() -> normkit::Result<()> {
    /// // `CudaDevice::new()` on a GPU.
    /// let device = CudaDevice::host()?;
    /// let input = device.zeros(&[64, 768], DType::BF16)?;
    /// let mut output = device.zeros(&[64, 768], DType::BF16)?;
    /// let norm = LayerNorm::new([768]);
    /// let preparing = normkit::Stream::Cuda(device.preparing());
    /// norm.forward_into(&input.view()?, &mut output.view_mut()?, None, &preparing)?;
    /// // From here on the same call compiles nothing.
    /// # Ok(())
    /// # }
    /// ```
    pub fn preparing(&self) -> CudaStream<'static> {
        CudaStream::preparing(self)
    }

    /// A stream on which calls only note which kernels they would launch; [`CudaStream::kernels`] gives them, to be
    /// [compiled](CudaDevice::compile_kernels) ahead of time or looked at.
    pub fn listing(&self) -> CudaStream<'static> {
        CudaStream::listing(self)
    }

    /// Compiles the kernels that have not been compiled yet, many at a time and on all of the machine's cores: much sooner
    /// than calls on [`preparing`](CudaDevice::preparing), each of which compiles its own.
    pub fn compile_kernels(&self, kernels: &[Kernel]) -> Result<()> {
        let variants: Vec<_> = kernels.iter().map(Kernel::variant).collect();
        self.functions().compile_all(self, &variants)
    }

    /// A new row-major tensor filled with zeros.
    pub fn zeros(&self, shape: &[usize], dtype: DType) -> Result<CudaTensor> {
        CudaTensor::zeros(self, shape, dtype)
    }

    /// A copy of `tensor` in this device's memory.
    pub fn upload(&self, tensor: &HostTensor) -> Result<CudaTensor> {
        CudaTensor::upload(self, tensor)
    }

    /// Waits until everything enqueued on the device has run.
    pub fn wait(&self) -> Result<()> {
        self.driver().wait()
    }

    /// Makes sure that the workspace has at least `bytes` on this device.
    pub(crate) fn reserve(&self, workspace: &mut Workspace, bytes: usize) -> Result<()> {
        if !self.has_room(workspace, bytes) {
            // The old memory goes first, so that both need not fit at once.
            workspace.cuda = None;
            workspace.cuda = Some(CudaTensor::bytes(self, bytes)?);
        }
        Ok(())
    }

    pub(super) fn has_room(&self, workspace: &Workspace, bytes: usize) -> bool {
        workspace.cuda.as_ref().is_some_and(|t| t.owner() == self && t.size() >= bytes)
    }

    pub(super) fn driver(&self) -> &Driver {
        &self.inner.driver
    }

    /// The kernels compiled so far.
    pub(super) fn functions(&self) -> &Functions {
        &self.inner.functions
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// The entries `names` of `source`, from the disk cache or compiled. It takes a while; a stream says whether it
    /// [may](CudaStream::check_may_compile).
    pub(super) fn compile(&self, source: &str, names: &[String]) -> Result<Vec<Function>> {
        self.driver().compile(&self.inner.disk, source, names)
    }
}

/// Handles are equal where the memory of one is memory of the other: two of one GPU are, two host drivers are not.
impl PartialEq for CudaDevice {
    fn eq(&self, other: &Self) -> bool {
        self.driver().shares_memory(other.driver())
    }
}

impl std::fmt::Debug for CudaDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CudaDevice").field("name", &self.info().name).finish_non_exhaustive()
    }
}
