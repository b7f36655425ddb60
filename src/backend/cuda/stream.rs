//! Where launches go: the device's own stream, a caller's, or nowhere.

use super::driver::{Launch, Queue};
use super::kernel::Kernel;
use super::tensor::DeviceRange;
use super::variant::Variant;
use super::{CudaDevice, Overrides};
use crate::tensor::{DType, Layout, View, ViewMut};
use crate::{Error, Result, Workspace};
use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

/// Where launches are enqueued: see [`CudaDevice::stream`], [`CudaDevice::on_stream`] and [`CudaDevice::preparing`].
#[derive(Debug, Clone)]
pub struct CudaStream<'a> {
    device: CudaDevice,
    queue: Queue,
    preparing: bool,
    /// What calls would compile and launch, where they do not even the former.
    listed: Option<Arc<Mutex<Listed>>>,
    overrides: Overrides,
    /// A caller's stream is borrowed.
    lent: PhantomData<&'a ()>,
}

/// What calls would have done.
#[derive(Debug, Default)]
struct Listed {
    /// Each once.
    variants: Vec<Variant>,
    launches: usize,
}

impl<'a> CudaStream<'a> {
    pub(super) fn own(device: &CudaDevice) -> Self {
        CudaStream {
            device: device.clone(),
            queue: device.driver().queue(),
            preparing: false,
            listed: None,
            overrides: Overrides::default(),
            lent: PhantomData,
        }
    }

    pub(super) fn preparing(device: &CudaDevice) -> Self {
        CudaStream { preparing: true, ..CudaStream::own(device) }
    }

    pub(super) fn listing(device: &CudaDevice) -> Self {
        CudaStream { listed: Some(Arc::default()), ..CudaStream::preparing(device) }
    }

    /// Notes the kernels that a call would launch, one after the other; whether that is all that it shall do.
    pub(super) fn list(&self, variants: &[&Variant]) -> bool {
        let Some(listed) = &self.listed else { return false };
        let mut listed = listed.lock().unwrap_or_else(PoisonError::into_inner);
        listed.launches += variants.len();
        for variant in variants {
            if !listed.variants.contains(variant) {
                listed.variants.push((*variant).clone());
            }
        }
        true
    }

    /// The kernels that calls on a [listing](CudaDevice::listing) stream have asked for so far, each once; of other streams
    /// none.
    pub fn kernels(&self) -> Vec<Kernel> {
        let Some(listed) = &self.listed else { return Vec::new() };
        let listed = listed.lock().unwrap_or_else(PoisonError::into_inner);
        listed.variants.iter().cloned().map(Kernel::new).collect()
    }

    /// How often calls on a [listing](CudaDevice::listing) stream would have launched kernels so far; 0 of other streams.
    pub fn launches(&self) -> usize {
        let Some(listed) = &self.listed else { return 0 };
        listed.lock().unwrap_or_else(PoisonError::into_inner).launches
    }

    /// # Safety
    /// As [`CudaDevice::on_stream`].
    pub(super) unsafe fn foreign(device: &CudaDevice, stream: *mut c_void) -> Result<Self> {
        let queue = Queue(stream.expose_provenance());
        // SAFETY: the caller says that the stream is alive.
        unsafe { device.driver().check_queue(queue) }?;
        Ok(CudaStream { queue, ..CudaStream::own(device) })
    }

    /// The same stream with some of its geometry given.
    pub fn with_overrides(mut self, overrides: Overrides) -> Result<Self> {
        overrides.check()?;
        self.overrides = overrides;
        Ok(self)
    }

    /// The stream's device.
    pub fn device(&self) -> &CudaDevice {
        &self.device
    }

    /// The driver's handle, a `CUstream`, for a caller's own work in the same order.
    pub fn raw(&self) -> *mut c_void {
        std::ptr::with_exposed_provenance_mut(self.queue.0)
    }

    pub(super) fn overrides(&self) -> Overrides {
        self.overrides
    }

    /// Whether launches become parts of a graph now.
    fn is_capturing(&self) -> Result<bool> {
        Ok(!self.preparing && self.device.driver().is_capturing(self.queue)?)
    }

    /// Refuses to compile where it would spoil a capture.
    pub(super) fn check_may_compile(&self) -> Result<()> {
        if !self.is_capturing()? {
            return Ok(());
        }
        let expected = "kernels compiled before: make the same call on `CudaDevice::preparing` first";
        Err(Error::argument("stream", expected, "a capture during which a kernel would be compiled"))
    }

    /// Enqueues launches in their order; `what` names them in errors.
    pub(super) fn run(&self, what: &str, launches: &[Launch]) -> Result<()> {
        if self.preparing || launches.is_empty() {
            return Ok(());
        }
        self.device.driver().run(self.queue, what, launches)
    }

    /// Copies bytes of this device, of views that are alive and apart.
    pub(super) fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        if self.preparing || bytes == 0 {
            return Ok(());
        }
        // SAFETY: the only caller has both addresses from views of as many bytes.
        unsafe { self.device.driver().copy(self.queue, to, from, bytes) }
    }

    /// At least `bytes` of the workspace. Its memory is replaced by a larger one if need be, but not during a
    /// capture, since a graph that was captured before may use it.
    pub(super) fn workspace<'w>(&self, workspace: &'w mut Workspace, bytes: usize) -> Result<View<'w>> {
        let (from, end) = (workspace.from, workspace.from.saturating_add(bytes));
        let refused = |reason| super::fault::refused(self.device.backend(), "workspace", reason);
        if from > 0 && !self.device.has_room(workspace, end) {
            // Launches that are planned have the addresses of what is before it.
            return Err(refused("a part is larger than it was reserved"));
        }
        if !self.has_room(workspace, end)? {
            let expected =
                format!("at least {end} bytes before a capture begins: `Workspace::with_capacity`");
            return Err(Error::argument("workspace", expected, "less"));
        }
        self.device.reserve(workspace, end)?;
        let tensor = workspace.cuda.as_ref().ok_or_else(|| refused("no memory"))?;
        let range = DeviceRange::of_own(&self.device, tensor.address() + from as u64, bytes as u64);
        View::of_cuda(range, DType::I8, Layout::contiguous(&[bytes]))
    }

    /// Whether the workspace has so many bytes, or can have them.
    pub(super) fn has_room(&self, workspace: &Workspace, bytes: usize) -> Result<bool> {
        Ok(self.device.has_room(workspace, bytes) || !self.is_capturing()?)
    }

    /// Memory for launches of one call, in the order of the stream.
    pub(super) fn scratch(&self, bytes: usize) -> Result<Scratch> {
        // No launch comes while preparing: an address as aligned as memory is all that is needed.
        let address =
            if self.preparing { PREPARED } else { self.device.driver().allocate_on(self.queue, bytes)? };
        Ok(Scratch {
            device: self.device.clone(),
            queue: self.queue,
            is_real: !self.preparing,
            address,
            size: bytes,
        })
    }
}

/// An address that nobody reads or writes.
const PREPARED: u64 = 1 << 32;

/// Memory of a stream, given back in the stream's order when it is dropped, which is before the call on the stream
/// ends.
pub(super) struct Scratch {
    device: CudaDevice,
    queue: Queue,
    is_real: bool,
    address: u64,
    size: usize,
}

impl Scratch {
    /// All of it.
    pub(super) fn view(&self, dtype: DType, layout: Layout) -> Result<View<'_>> {
        let range = DeviceRange::of_own(&self.device, self.address, self.size as u64);
        View::of_cuda(range, dtype, layout)
    }

    /// A part of it that a launch writes; those that read it come before or after that, in the order of the stream.
    pub(super) fn view_mut(&self, dtype: DType, layout: Layout) -> Result<ViewMut<'_>> {
        let range = DeviceRange::of_own(&self.device, self.address, self.size as u64);
        ViewMut::of_cuda(range, dtype, layout)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.is_real {
            // SAFETY: allocated so, and the views that launches were made from have ended.
            unsafe { self.device.driver().release_on(self.queue, self.address, self.size) };
        }
    }
}
