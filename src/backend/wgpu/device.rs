//! Adapters and devices.

use super::fault::{BACKEND, refused, scoped};
use super::pipeline::Pipelines;
use super::stream::WgpuStream;
use super::tensor::WgpuTensor;
use crate::tensor::{DType, HostTensor, View};
use crate::{Error, Result, Workspace};
use std::sync::{Arc, OnceLock};

/// The backends that kernels run on. OpenGL is not among them: its compute shaders lack what the kernels need.
const BACKENDS: wgpu::Backends =
    wgpu::Backends::VULKAN.union(wgpu::Backends::METAL).union(wgpu::Backends::DX12);

/// What helps where there is no adapter.
const HINT: &str = "a Vulkan, Metal or DX12 driver is needed; on Debian and Ubuntu the packages mesa-vulkan-drivers \
                    and libvulkan1 bring a software one";

/// A WebGPU device. A clone is another handle to the same device, and threads may share it: what each submits runs in the order of
/// submission, and each reads its own results.
#[derive(Clone)]
pub struct WgpuDevice {
    inner: Arc<Inner>,
}

struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    limits: wgpu::Limits,
    /// The one size of all subgroups, where the adapter has only one and shaders may use them.
    subgroup: Option<u32>,
    /// Whether the CPU does the work.
    software: bool,
    pipelines: Pipelines,
    /// What the driver said when the device was lost; only devices made here are watched.
    lost: Arc<OnceLock<String>>,
    /// Where launches are written down, on a device that does not run them.
    #[cfg(feature = "check")]
    recorder: OnceLock<super::record::Recorder>,
}

/// Which of an adapter's features a device may use. All, by default.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Shuffles within subgroups, where all subgroups of the adapter have one size.
    pub subgroups: bool,
    /// The feature `SHADER_F16`, for a caller's own shaders on [`raw`](WgpuDevice::raw). normkit's kernels compute in
    /// 32 bits and convert f16 and bf16 by integer operations, on purpose: the built-in conversions may flush or round
    /// as the driver likes, integers are exact on every adapter. The numbers are the same with the feature and without.
    pub shader_f16: bool,
    /// The part of the adapter's name to look for, in any case; the best adapter without it.
    pub adapter: Option<String>,
    /// The most bytes that one binding may have, if less than the adapter allows.
    pub max_binding: Option<u64>,
    /// The most storage buffers that one launch may bind, if less than the adapter allows. A norm by itself needs no more
    /// than 8, which every WebGPU device has; what surrounds a norm may need more, and a call that does not fit is an
    /// [`Error::Limit`](crate::Error::Limit).
    ///
    /// With 8, a residual whose branch has a bias and a scale fits beside weight and bias, with saved statistics, a sum that is
    /// written, and every gradient, that of the sum included; the bias and the scale must have one dtype for that. What does not
    /// fit beside all of these is a mask, the operand of an epilogue, rotary tables, an activation's backward pass, and gradients
    /// of the input and of the residual that are written in the places of the output's and of the sum's. Norms on both sides of a
    /// residual fit whole.
    pub max_buffers: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Options { subgroups: true, shader_f16: true, adapter: None, max_binding: None, max_buffers: None }
    }
}

/// What an adapter is and can do.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AdapterInfo {
    /// The adapter's name.
    pub name: String,
    /// The graphics interface it is reached by, as in `vulkan`.
    pub interface: String,
    /// The driver and its version.
    pub driver: String,
    /// Whether the CPU does the work.
    pub software: bool,
    /// Smallest and largest subgroup.
    pub subgroup_sizes: (u32, u32),
    /// Whether shaders may use subgroup operations.
    pub subgroups: bool,
    /// Whether shaders may compute in 16 bits, which normkit's do not: see [`Options::shader_f16`].
    pub shader_f16: bool,
    /// The most bytes of a tensor that one launch can reach; larger ones take several.
    pub max_binding: u64,
    /// Why the adapter cannot be used, if it cannot.
    pub unusable: Option<String>,
}

fn instance(backends: wgpu::Backends) -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    wgpu::Instance::new(descriptor)
}

fn describe(info: &wgpu::AdapterInfo, features: wgpu::Features, limits: &wgpu::Limits) -> AdapterInfo {
    let unusable = if !BACKENDS.contains(wgpu::Backends::from(info.backend)) {
        Some(format!("the {} interface is not supported; use the adapter's Vulkan driver", info.backend))
    } else if limits.max_storage_buffers_per_shader_stage < 8 {
        Some(format!(
            "{} storage buffers per shader; 8 are needed",
            limits.max_storage_buffers_per_shader_stage
        ))
    } else {
        None
    };
    AdapterInfo {
        name: info.name.clone(),
        interface: info.backend.to_string(),
        driver: [&info.driver[..], &info.driver_info].join(" ").trim().to_owned(),
        software: info.device_type == wgpu::DeviceType::Cpu,
        subgroup_sizes: (info.subgroup_min_size, info.subgroup_max_size),
        subgroups: features.contains(wgpu::Features::SUBGROUP),
        shader_f16: features.contains(wgpu::Features::SHADER_F16),
        max_binding: limits.max_storage_buffer_binding_size,
        unusable,
    }
}

/// Every adapter of this machine, also those that cannot be used, with the reason.
pub fn adapters() -> Vec<AdapterInfo> {
    let found = pollster::block_on(instance(wgpu::Backends::all()).enumerate_adapters(wgpu::Backends::all()));
    found.iter().map(|a| describe(&a.get_info(), a.features(), &a.limits())).collect()
}

/// Hardware first, discrete before integrated.
fn rank(info: &wgpu::AdapterInfo) -> u8 {
    match info.device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

impl WgpuDevice {
    /// A device on the best adapter of this machine: real hardware if there is any, else a software adapter.
    pub fn new() -> Result<Self> {
        WgpuDevice::with_options(&Options::default())
    }

    /// A device that uses no more than `options` allow.
    pub fn with_options(options: &Options) -> Result<Self> {
        let no_device = |reason: String| Error::NoDevice { backend: BACKEND, reason };
        let wanted = options.adapter.as_ref().map(|name| name.to_lowercase());
        let mut found = pollster::block_on(instance(BACKENDS).enumerate_adapters(BACKENDS));
        found.retain(|a| describe(&a.get_info(), a.features(), &a.limits()).unusable.is_none());
        found.retain(|a| wanted.as_ref().is_none_or(|name| a.get_info().name.to_lowercase().contains(name)));
        let adapter = found.into_iter().min_by_key(|a| rank(&a.get_info()));
        let adapter = adapter.ok_or_else(|| no_device(format!("no adapter found; {HINT}")))?;
        let mut features = wgpu::Features::empty();
        features.set(wgpu::Features::SUBGROUP, options.subgroups);
        features.set(wgpu::Features::SHADER_F16, options.shader_f16);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("normkit"),
            required_features: features & adapter.features(),
            required_limits: adapter.limits(),
            ..Default::default()
        };
        let (device, queue) =
            pollster::block_on(adapter.request_device(&descriptor)).map_err(|e| no_device(e.to_string()))?;
        let lost = Arc::new(OnceLock::new());
        let note = lost.clone();
        device.set_device_lost_callback(move |reason, message| {
            // Only the first report is kept; dropping the device at the end is one as well, which nobody reads.
            let _ = note.set(format!("{reason:?}: {message}"));
        });
        let device = WgpuDevice::assemble(device, queue, lost, options);
        tracing::info!(adapter = %device.info().name, subgroup = ?device.subgroup(), "wgpu device");
        Ok(device)
    }

    /// A caller's device. Its error handlers and callbacks stay as they are.
    pub fn from_existing(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        WgpuDevice::assemble(device, queue, Arc::new(OnceLock::new()), &Options::default())
    }

    pub(super) fn assemble(
        device: wgpu::Device,
        queue: wgpu::Queue,
        lost: Arc<OnceLock<String>>,
        options: &Options,
    ) -> Self {
        let info = device.adapter_info();
        let subgroups = device.features().contains(wgpu::Features::SUBGROUP);
        let size = info.subgroup_min_size;
        let one_size = size == info.subgroup_max_size && size.is_power_of_two() && (4..=128).contains(&size);
        let mut limits = device.limits();
        if let Some(most) = options.max_binding {
            limits.max_storage_buffer_binding_size = limits.max_storage_buffer_binding_size.min(most);
        }
        let buffers = &mut limits.max_storage_buffers_per_shader_stage;
        *buffers = options.max_buffers.unwrap_or(*buffers).min(*buffers);
        WgpuDevice {
            inner: Arc::new(Inner {
                subgroup: (subgroups && one_size && options.subgroups).then_some(size),
                software: info.device_type == wgpu::DeviceType::Cpu,
                limits,
                pipelines: Pipelines::default(),
                lost,
                #[cfg(feature = "check")]
                recorder: OnceLock::new(),
                device,
                queue,
            }),
        }
    }

    /// What the adapter is, and what this device may use of it.
    pub fn info(&self) -> AdapterInfo {
        describe(&self.raw().adapter_info(), self.raw().features(), self.limits())
    }

    /// The wgpu device.
    pub fn raw(&self) -> &wgpu::Device {
        &self.inner.device
    }

    /// The wgpu queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.inner.queue
    }

    /// The queue as a stream: every launch is submitted at once, without waiting for it.
    pub fn stream(&self) -> WgpuStream<'static> {
        WgpuStream::on_queue(self)
    }

    /// A stream that records launches into `encoder` and leaves the submission to the caller. The launches run in the
    /// order of the calls.
    pub fn encode_into<'a>(&self, encoder: &'a mut wgpu::CommandEncoder) -> WgpuStream<'a> {
        WgpuStream::on_encoder(self, encoder)
    }

    /// Records what `body` launches and submits it at once; nothing if it fails.
    pub(crate) fn submit(&self, body: impl FnOnce(WgpuStream<'_>) -> Result<()>) -> Result<()> {
        let mut encoder = self.raw().create_command_encoder(&Default::default());
        body(self.encode_into(&mut encoder))?;
        scoped(self, "a submission", || {
            self.queue().submit([encoder.finish()]);
        })
    }

    /// A new row-major tensor filled with zeros.
    pub fn zeros(&self, shape: &[usize], dtype: DType) -> Result<WgpuTensor> {
        WgpuTensor::zeros(self, shape, dtype)
    }

    /// A copy of `tensor` in this device's memory.
    pub fn upload(&self, tensor: &HostTensor) -> Result<WgpuTensor> {
        WgpuTensor::upload(self, tensor)
    }

    /// At least `bytes` of scratch on this device.
    pub(crate) fn scratch<'w>(&self, workspace: &'w mut Workspace, bytes: usize) -> Result<View<'w>> {
        use crate::tensor::Tensor;
        let words = bytes.div_ceil(4).max(1);
        let enough = workspace.buffer.as_ref().is_some_and(|t| t.owner() == self && t.len() >= words);
        if !enough {
            // The old buffer goes first, so that both need not fit at once.
            workspace.buffer = None;
            workspace.buffer = Some(self.zeros(&[words], DType::F32)?);
        }
        match &workspace.buffer {
            Some(tensor) => tensor.view(),
            None => Err(refused("workspace", "no buffer")),
        }
    }

    pub(super) fn limits(&self) -> &wgpu::Limits {
        &self.inner.limits
    }

    pub(super) fn subgroup(&self) -> Option<u32> {
        self.inner.subgroup
    }

    pub(super) fn is_software(&self) -> bool {
        self.inner.software
    }

    /// Where this device's launches are written down, once it is a recording one.
    #[cfg(feature = "check")]
    pub(super) fn recorder(&self) -> &OnceLock<super::record::Recorder> {
        &self.inner.recorder
    }

    pub(super) fn pipelines(&self) -> &Pipelines {
        &self.inner.pipelines
    }

    /// An error once the driver has reported the device lost.
    pub(super) fn check_alive(&self) -> Result<()> {
        match self.inner.lost.get() {
            Some(reason) => Err(super::fault::lost(reason)),
            None => Ok(()),
        }
    }

    /// Waits until everything submitted so far has run.
    pub fn wait(&self) -> Result<()> {
        scoped(self, "waiting", || self.raw().poll(wgpu::PollType::wait_indefinitely()))?
            .map(|_| ())
            .map_err(|e| refused("waiting", e))
    }
}

impl PartialEq for WgpuDevice {
    fn eq(&self, other: &Self) -> bool {
        self.inner.device == other.inner.device
    }
}

impl std::fmt::Debug for WgpuDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WgpuDevice").field("adapter", &self.info().name).finish_non_exhaustive()
    }
}
