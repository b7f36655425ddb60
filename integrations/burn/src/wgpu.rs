//! burn's wgpu devices: normkit's shaders run on their device, queue and buffers.
//!
//! burn keeps the wgpu device of its runtime to itself, so normkit must be there when it is made: make it by [`init`] in the place
//! of `Device::wgpu`, before there is any tensor, or tell [`share`] which wgpu device a runtime of your own setup has. Tensors of other
//! devices are refused with an error that says so.
//!
//! ```no_run
//! use burn::tensor::{DeviceKind, Tensor};
//!
//! let device = normkit_burn::wgpu::init(DeviceKind::DefaultDevice)?;
//! let x = Tensor::<2>::ones([8, 64], &device);
//! let y = normkit_burn::rms_norm(x, None, 1e-5)?;
//! # Ok::<(), normkit_burn::Error>(())
//! ```
//!
//! A call flushes what burn has queued, and its launches follow in the same queue; nothing waits. Shaders compile at their first use.

use crate::cube::{bytes, contents};
use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::{RuntimeOptions, WgpuDevice, try_init_setup};
use burn::backend::{AutoGraphicsApi, Cube, CubeDevice, DispatchDevice, WgpuDeviceKind};
use burn::cubecl::wgpu::{AutoCompiler, WgpuServer};
use burn::tensor::{Device, DeviceKind};
use normkit::backend::wgpu as ours;
use normkit::tensor::{DType, Layout, View, ViewMut};
use normkit::{Error, Result, Stream};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// The wgpu version whose handles these are.
pub use burn::cubecl::wgpu::wgpu as handles;

/// The devices that are known: burn's, and normkit's for it.
static KNOWN: Mutex<Vec<(CubeDevice, ours::WgpuDevice)>> = Mutex::new(Vec::new());

/// Starts burn's wgpu runtime on an adapter and shares its device.
///
/// An error where there is no such adapter, and where burn has started that runtime already.
pub fn init(kind: DeviceKind) -> Result<Device> {
    let selected = match kind.clone() {
        DeviceKind::DiscreteGpu(index) => WgpuDeviceKind::DiscreteGpu(index),
        DeviceKind::IntegratedGpu(index) => WgpuDeviceKind::IntegratedGpu(index),
        DeviceKind::VirtualGpu(index) => WgpuDeviceKind::VirtualGpu(index),
        DeviceKind::Cpu => WgpuDeviceKind::Cpu,
        DeviceKind::DefaultDevice => WgpuDeviceKind::DefaultDevice,
        DeviceKind::Existing(id) => WgpuDeviceKind::Existing(id),
    };
    let refused =
        |error: &dyn std::fmt::Display| Error::NoDevice { backend: "wgpu", reason: error.to_string() };
    let options = RuntimeOptions::try_default().map_err(|error| refused(&error))?;
    let setup = try_init_setup::<AutoGraphicsApi>(&WgpuDevice::new(selected), options);
    let setup = setup.map_err(|error| refused(&error))?;
    let device = Device::wgpu(kind);
    share(&device, setup.device, setup.queue)?;
    Ok(device)
}

/// Says which wgpu device and queue a burn device runs on: those that its runtime was set up with.
pub fn share(device: &Device, raw: handles::Device, queue: handles::Queue) -> Result<()> {
    let mut inner = device.clone().inner();
    if inner.is_autodiff() {
        inner = inner.without_autodiff();
    }
    let DispatchDevice::Cube(own) = inner.as_dispatch() else {
        let (expected, found) = ("a wgpu device of burn".to_owned(), format!("{device:?}"));
        return Err(Error::Argument { name: "device", expected, found });
    };
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|(other, _)| other != own);
    known.push((own.clone(), ours::WgpuDevice::from_existing(raw, queue)));
    Ok(())
}

/// normkit's device for a tensor's.
pub(crate) fn known(tensor: &FloatTensor<Cube>) -> Result<ours::WgpuDevice> {
    let name = &tensor.device;
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let found = known.iter().find(|(own, _)| own == name).map(|(_, device)| device.clone());
    found.ok_or_else(|| Error::NoDevice {
        backend: "wgpu",
        reason: format!(
            "burn's device {name:?} is not shared with normkit: make it by normkit_burn::wgpu::init, or tell \
             normkit_burn::wgpu::share its wgpu device"
        ),
    })
}

/// A tensor's buffer, and where in it the tensor is.
struct Place {
    buffer: handles::Buffer,
    range: Range<u64>,
    dtype: DType,
    layout: Layout,
    /// While it is there, the buffer is nobody else's.
    _held: Box<dyn std::any::Any>,
}

impl Place {
    /// Submits what burn has queued for the tensor.
    fn of(tensor: &FloatTensor<Cube>) -> Result<Self> {
        let (dtype, layout) = contents(tensor)?;
        let held = tensor.client.get_resource::<WgpuServer<AutoCompiler>>(tensor.handle.clone());
        let held = held.map_err(|error| Error::Backend {
            backend: "wgpu",
            what: "burn's buffer of a tensor".into(),
            reason: error.to_string(),
        })?;
        let resource = held.resource();
        let (buffer, start) = (resource.buffer.clone(), resource.offset);
        let range = start..start + bytes(tensor, dtype);
        Ok(Place { buffer, range, dtype, layout, _held: Box::new(held) })
    }

    fn view<'a>(&'a self, device: &ours::WgpuDevice) -> Result<View<'a>> {
        View::from_buffer(device, &self.buffer, self.range.clone(), self.dtype, self.layout.clone())
    }

    fn view_mut<'a>(&'a self, device: &ours::WgpuDevice) -> Result<ViewMut<'a>> {
        ViewMut::from_buffer(device, &self.buffer, self.range.clone(), self.dtype, self.layout.clone())
    }
}

/// Runs `run` on tensors to read and on new ones to write, behind all that burn has queued for them.
pub(crate) fn on<R>(
    device: &ours::WgpuDevice,
    read: &[&FloatTensor<Cube>],
    made: &[FloatTensor<Cube>],
    run: impl FnOnce(&[View<'_>], &mut [ViewMut<'_>], &Stream<'_>) -> Result<R>,
) -> Result<R> {
    let inputs = read.iter().map(|tensor| Place::of(tensor)).collect::<Result<Vec<_>>>()?;
    let outputs = made.iter().map(Place::of).collect::<Result<Vec<_>>>()?;
    let views = inputs.iter().map(|place| place.view(device)).collect::<Result<Vec<_>>>()?;
    let mut targets = outputs.iter().map(|place| place.view_mut(device)).collect::<Result<Vec<_>>>()?;
    run(&views, &mut targets, &Stream::Wgpu(device.stream()))
}
