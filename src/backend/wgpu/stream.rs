//! Where launches go: the queue at once, or a caller's encoder.

use super::WgpuDevice;
use super::fault::scoped;
use super::launch::Dispatch;
use super::variant::{Reduction, Style};
use crate::{Error, Result};
use std::cell::RefCell;

/// Where launches are enqueued: see [`WgpuDevice::stream`] and [`WgpuDevice::encode_into`].
pub struct WgpuStream<'a> {
    device: WgpuDevice,
    target: RefCell<Target<'a>>,
    overrides: Overrides,
}

enum Target<'a> {
    Queue,
    Encoder(&'a mut wgpu::CommandEncoder),
}

/// Geometry for experiments, where the device's own choice is not wanted. It changes the speed, never the numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overrides {
    /// How the threads of a row combine their sums.
    pub reduction: Option<Reduction>,
    /// Invocations of a workgroup that reduces through workgroup memory: a power of two from 4 to 256.
    pub group: Option<u32>,
    /// The most vectors of four that a thread keeps of a row before it reads the row again instead.
    pub held: Option<u32>,
    /// Which four elements a thread works on at a time.
    pub style: Option<Style>,
    /// Compute each leaf of a row as a task of its own, however short the row is.
    pub split: bool,
}

impl<'a> WgpuStream<'a> {
    pub(super) fn on_queue(device: &WgpuDevice) -> Self {
        WgpuStream {
            device: device.clone(),
            target: RefCell::new(Target::Queue),
            overrides: Overrides::default(),
        }
    }

    pub(super) fn on_encoder(device: &WgpuDevice, encoder: &'a mut wgpu::CommandEncoder) -> Self {
        let target = RefCell::new(Target::Encoder(encoder));
        WgpuStream { device: device.clone(), target, overrides: Overrides::default() }
    }

    /// The same stream with some of its geometry given.
    pub fn with_overrides(mut self, overrides: Overrides) -> Result<Self> {
        if overrides.reduction == Some(Reduction::Subgroup) && self.device.subgroup().is_none() {
            let found = "a device without subgroups of one size";
            return Err(Error::argument("overrides.reduction", "Workgroup", found));
        }
        let most = self.device.limits().max_compute_invocations_per_workgroup.min(256);
        if overrides.group.is_some_and(|n| !n.is_power_of_two() || n < 4 || n > most) {
            let expected = format!("a power of two from 4 to {most}");
            return Err(Error::argument("overrides.group", expected, format!("{:?}", overrides.group)));
        }
        self.overrides = overrides;
        Ok(self)
    }

    /// The stream's device.
    pub fn device(&self) -> &WgpuDevice {
        &self.device
    }

    pub(super) fn overrides(&self) -> Overrides {
        self.overrides
    }

    /// Enqueues `dispatches` in their order, in one pass.
    pub(super) fn run(&self, what: &str, dispatches: &[Dispatch]) -> Result<()> {
        if dispatches.is_empty() {
            return Ok(());
        }
        #[cfg(feature = "check")]
        if let Some(recorder) = self.device.recorder().get() {
            recorder.add(dispatches);
            return Ok(());
        }
        scoped(&self.device, what, || match &mut *self.target.borrow_mut() {
            Target::Encoder(encoder) => record(encoder, what, dispatches),
            Target::Queue => {
                let mut encoder = self.device.raw().create_command_encoder(&Default::default());
                record(&mut encoder, what, dispatches);
                self.device.queue().submit([encoder.finish()]);
            }
        })
    }
}

fn record(encoder: &mut wgpu::CommandEncoder, what: &str, dispatches: &[Dispatch]) {
    let descriptor = wgpu::ComputePassDescriptor { label: Some(what), timestamp_writes: None };
    let mut pass = encoder.begin_compute_pass(&descriptor);
    for dispatch in dispatches {
        pass.set_pipeline(&dispatch.pipeline.pipeline);
        pass.set_bind_group(0, &dispatch.bind_group, &[]);
        pass.dispatch_workgroups(dispatch.groups.0, dispatch.groups.1, 1);
    }
}
