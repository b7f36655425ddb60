//! Launches written down instead of run, so that another WebGPU implementation can repeat them: see
//! [`WgpuDevice::recording`].

use super::WgpuDevice;
use super::device::Options;
use super::fault::{BACKEND, refused};
use super::launch::Dispatch;
use super::variant::{Target, Variant};
use crate::{Error, Result};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Dispatches in the order in which they were enqueued.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Recording {
    /// Every buffer that is bound, each once.
    pub buffers: Vec<wgpu::Buffer>,
    /// The dispatches.
    pub dispatches: Vec<RecordedDispatch>,
}

/// A dispatch and all that it depends on. Its bindings are in group 0: the uniform buffer first, then the storage
/// buffers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RecordedDispatch {
    /// The entry point.
    pub entry: &'static str,
    /// The whole WGSL module, with the directives that browsers want.
    pub source: String,
    /// The words of the uniform buffer.
    pub params: Vec<u32>,
    /// The storage buffers.
    pub storage: Vec<RecordedBinding>,
    /// Workgroups along x and y.
    pub groups: (u32, u32),
}

/// A range of a storage buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordedBinding {
    /// Which of the recording's buffers.
    pub buffer: usize,
    /// The first byte.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// Whether the shader declares it as `read_write`, else as `read`.
    pub writable: bool,
}

/// What is noted of a dispatch when its operands are bound. The number of workgroups is the dispatch's own.
pub(super) struct Note {
    dispatch: RecordedDispatch,
    buffers: Vec<wgpu::Buffer>,
}

impl Note {
    /// `bound` is the buffer, offset and size of each storage binding.
    pub(super) fn new<'a>(
        variant: &Variant,
        params: Vec<u8>,
        bound: impl Iterator<Item = (&'a wgpu::Buffer, u64, u64)>,
    ) -> Self {
        let (mut storage, mut buffers) = (Vec::new(), Vec::new());
        let bound = bound.enumerate().filter(|&(index, _)| variant.slots[index].host.is_none());
        for (index, (buffer, offset, size)) in bound {
            storage.push(RecordedBinding {
                buffer: buffers.len(),
                offset,
                size,
                writable: variant.is_writable(index),
            });
            buffers.push(buffer.clone());
        }
        let dispatch = RecordedDispatch {
            entry: variant.entry.name(),
            source: variant.render(Target::Browser),
            params: params.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect(),
            storage,
            groups: (0, 0),
        };
        Note { dispatch, buffers }
    }
}

/// Where a device writes its launches down.
#[derive(Default)]
pub(super) struct Recorder(Mutex<Recording>);

impl Recorder {
    pub(super) fn add(&self, dispatches: &[Dispatch]) {
        let mut recording = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (groups, note) in dispatches.iter().filter_map(|d| Some((d.groups, d.note.as_ref()?))) {
            let mut dispatch = RecordedDispatch { groups, ..note.dispatch.clone() };
            for (binding, buffer) in dispatch.storage.iter_mut().zip(&note.buffers) {
                let known = recording.buffers.iter().position(|b| b == buffer);
                binding.buffer = known.unwrap_or(recording.buffers.len());
                if known.is_none() {
                    recording.buffers.push(buffer.clone());
                }
            }
            recording.dispatches.push(dispatch);
        }
    }
}

impl WgpuDevice {
    /// A device that writes down what it is to launch and runs nothing; it needs no adapter and no driver. It has the
    /// limits that every WebGPU implementation has at least, and subgroups of `subgroup` invocations if any, so that
    /// its launches are valid wherever subgroups are of that size.
    pub fn recording(subgroup: Option<u32>) -> Result<Self> {
        if subgroup.is_some_and(|n| !n.is_power_of_two() || !(4..=128).contains(&n)) {
            let found = format!("{subgroup:?}");
            return Err(Error::argument("subgroup", "a power of two from 4 to 128", found));
        }
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::NOOP;
        descriptor.backend_options.noop = wgpu::NoopBackendOptions {
            enable: true,
            subgroup_min_size: subgroup,
            subgroup_max_size: subgroup,
            ..Default::default()
        };
        let no_device = |reason: String| Error::NoDevice { backend: BACKEND, reason };
        let found =
            pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(wgpu::Backends::NOOP));
        let adapter = found.into_iter().next().ok_or_else(|| no_device("no recording adapter".into()))?;
        let mut features = wgpu::Features::empty();
        features.set(wgpu::Features::SUBGROUP, subgroup.is_some());
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("normkit recording"),
            required_features: features,
            required_limits: wgpu::Limits::default(),
            ..Default::default()
        };
        let (device, queue) =
            pollster::block_on(adapter.request_device(&descriptor)).map_err(|e| no_device(e.to_string()))?;
        let device = WgpuDevice::assemble(device, queue, Arc::new(OnceLock::new()), &Options::default());
        match device.recorder().set(Recorder::default()) {
            Ok(()) => Ok(device),
            Err(_) => Err(refused("a recording device", "it is one already")),
        }
    }

    /// What was launched since the last call, or since this [`recording`](WgpuDevice::recording) device was made;
    /// nothing on other devices.
    pub fn take_recording(&self) -> Recording {
        let take = |recorder: &Recorder| {
            std::mem::take(&mut *recorder.0.lock().unwrap_or_else(PoisonError::into_inner))
        };
        self.recorder().get().map(take).unwrap_or_default()
    }
}
