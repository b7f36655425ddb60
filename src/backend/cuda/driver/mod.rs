//! The two drivers behind one interface: `real` runs kernels on a GPU, `host` the same sources on the CPU, every thread
//! of a block being a fiber. What both of them compile is kept by `cache`; `find` knows where libraries may lie.

mod cache;
mod context;
mod find;
mod gpus;
mod host;
mod nvrtc;
mod real;
mod symbols;
#[cfg(test)]
mod tests;

pub use cache::Cache;
pub(super) use cache::Disk;
pub(super) use gpus::devices;
pub use host::{HostOptions, Schedule};
pub(super) use nvrtc::Nvrtc;

use super::device::{CudaInfo, CudaOptions, Limits};
use crate::Result;
use cache::Key;

/// Changes whenever files in the cache shall not be used any more although source and compiler are the same.
const FORM: &str = "1";

/// Where launches are enqueued, by the driver's own handle. Its owner keeps it alive while launches go there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Queue(pub(super) usize);

/// An entry of a compiled source. It stays valid for the process: a captured graph may launch it at any time.
#[derive(Clone)]
pub(in crate::backend::cuda) struct Function(Entry);

#[derive(Clone)]
enum Entry {
    Gpu(real::Kernel),
    Host(host::Kernel),
}

/// A launch, ready to be enqueued.
pub(in crate::backend::cuda) struct Launch {
    pub(in crate::backend::cuda) function: Function,
    /// Blocks.
    pub(in crate::backend::cuda) grid: u64,
    /// Threads of a block.
    pub(in crate::backend::cuda) block: u32,
    /// Bytes of dynamic shared memory of a block.
    pub(in crate::backend::cuda) shared: u32,
    /// Blocks of a cluster; 1 where there are none.
    pub(in crate::backend::cuda) cluster: u32,
    /// The kernel's one parameter, a struct.
    pub(in crate::backend::cuda) params: Vec<u8>,
}

/// What runs kernels.
pub(super) enum Driver {
    Gpu(Box<real::Gpu>),
    Host(Box<host::Host>),
}

/// Calls the same method of whichever driver it is.
macro_rules! each {
    ($driver:expr, $d:ident => $body:expr) => {
        match $driver {
            Driver::Gpu($d) => $body,
            Driver::Host($d) => $body,
        }
    };
}

impl Driver {
    /// A GPU of this machine.
    pub(super) fn gpu(options: &CudaOptions) -> Result<(Self, CudaInfo, Limits)> {
        let (gpu, info, limits) = real::Gpu::open(options)?;
        Ok((Driver::Gpu(Box::new(gpu)), info, limits))
    }

    /// The GPU of a caller's context.
    ///
    /// # Safety
    /// `context` is null or a context that is alive.
    pub(super) unsafe fn gpu_of_context(
        context: *mut std::ffi::c_void,
        options: &CudaOptions,
    ) -> Result<(Self, CudaInfo, Limits)> {
        // SAFETY: the caller's promise is the same.
        let (gpu, info, limits) = unsafe { real::Gpu::of_context(context, options) }?;
        Ok((Driver::Gpu(Box::new(gpu)), info, limits))
    }

    /// The CPU.
    pub(super) fn host(options: &HostOptions) -> Result<(Self, CudaInfo, Limits)> {
        let (host, info, limits) = host::Host::open(options)?;
        Ok((Driver::Host(Box::new(host)), info, limits))
    }

    /// Whether memory of one is memory of the other.
    pub(super) fn shares_memory(&self, other: &Driver) -> bool {
        match (self, other) {
            (Driver::Gpu(a), Driver::Gpu(b)) => a.context() == b.context(),
            // Host memory would do for any of them, but a test has to see a tensor of the wrong device refused.
            _ => std::ptr::eq(self, other),
        }
    }

    /// The stream for those who have none.
    pub(super) fn queue(&self) -> Queue {
        each!(self, d => d.queue())
    }

    /// Whether `queue`, which a caller gave, is one of this device.
    ///
    /// # Safety
    /// `queue` is a stream that is alive.
    pub(super) unsafe fn check_queue(&self, queue: Queue) -> Result<()> {
        // SAFETY: the caller's promise is the same.
        each!(self, d => unsafe { d.check_queue(queue) })
    }

    /// Whether launches on `queue` become parts of a graph now.
    pub(super) fn is_capturing(&self, queue: Queue) -> Result<bool> {
        each!(self, d => d.is_capturing(queue))
    }

    /// Waits until everything enqueued on the device has run.
    pub(super) fn wait(&self) -> Result<()> {
        each!(self, d => d.wait())
    }

    /// New memory of this many bytes, aligned to 256, with unspecified contents.
    pub(super) fn allocate(&self, bytes: usize) -> Result<u64> {
        each!(self, d => d.allocate(bytes))
    }

    /// Gives memory back, once launches that use it have run.
    ///
    /// # Safety
    /// `address` came from [`allocate`](Driver::allocate) with the same `bytes`, and nobody uses it from now on.
    pub(super) unsafe fn release(&self, address: u64, bytes: usize) {
        // SAFETY: the caller's promise is the same.
        each!(self, d => unsafe { d.release(address, bytes) })
    }

    /// As [`allocate`](Driver::allocate), in the order of `queue`.
    pub(super) fn allocate_on(&self, queue: Queue, bytes: usize) -> Result<u64> {
        each!(self, d => d.allocate_on(queue, bytes))
    }

    /// Gives memory back once what was enqueued on `queue` before has run.
    ///
    /// # Safety
    /// `address` came from [`allocate_on`](Driver::allocate_on) with the same `queue` and `bytes`, and nothing enqueued
    /// from now on uses it.
    pub(super) unsafe fn release_on(&self, queue: Queue, address: u64, bytes: usize) {
        // SAFETY: the caller's promise is the same.
        each!(self, d => unsafe { d.release_on(queue, address, bytes) })
    }

    /// Sets bytes to zero, and waits until they are.
    ///
    /// # Safety
    /// The bytes are this device's, and nobody uses them meanwhile.
    pub(super) unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise is the same.
        each!(self, d => unsafe { d.clear(address, bytes) })
    }

    /// Copies bytes to the device, and waits until they are there.
    ///
    /// # Safety
    /// As many bytes from `address` on are this device's, and nobody uses them meanwhile.
    pub(super) unsafe fn upload(&self, address: u64, bytes: &[u8]) -> Result<()> {
        // SAFETY: the caller's promise is the same.
        each!(self, d => unsafe { d.upload(address, bytes) })
    }

    /// Enqueues a copy between two places of the device that are apart.
    ///
    /// # Safety
    /// As many bytes from both addresses on are this device's until the copy has been made.
    pub(super) unsafe fn copy(&self, queue: Queue, to: u64, from: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise is the same.
        each!(self, d => unsafe { d.copy(queue, to, from, bytes) })
    }

    /// Copies bytes from the device once everything enqueued has run.
    ///
    /// # Safety
    /// As many bytes from `address` on are this device's.
    pub(super) unsafe fn download(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: the caller's promise is the same.
        each!(self, d => unsafe { d.download(address, bytes) })
    }

    /// Whether a caller's address is memory of this device.
    pub(super) fn check_address(&self, address: u64) -> Result<()> {
        each!(self, d => d.check_address(address))
    }

    /// Enqueues launches in their order; `what` names them in errors.
    pub(super) fn run(&self, queue: Queue, what: &str, launches: &[Launch]) -> Result<()> {
        each!(self, d => d.run(queue, what, launches))
    }

    /// Everything but the source that a compiled kernel depends on.
    fn identity(&self) -> Vec<String> {
        each!(self, d => d.identity())
    }

    /// The entries `names` of `source`, from the cache or compiled.
    pub(super) fn compile(&self, disk: &Disk, source: &str, names: &[String]) -> Result<Vec<Function>> {
        let identity = self.identity();
        let parts: Vec<&str> =
            [FORM, source].into_iter().chain(identity.iter().map(String::as_str)).collect();
        each!(self, d => d.compile(disk, &Key::of(&parts), source, names))
    }
}

/// Opens the folder of compiled kernels.
pub(super) fn disk(cache: &Cache) -> Disk {
    Disk::open(cache)
}
