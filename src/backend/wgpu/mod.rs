//! The WebGPU backend: WGSL kernels from `shaders/`, on any Vulkan, Metal or DX12 adapter.
//!
//! [`WgpuDevice`] is a device, normkit's own or a caller's. A launch becomes one or several `Dispatch`es: `row` and
//! `pointwise` say which, `launch` binds their operands, `variant` renders their shaders, and `geometry` says how
//! threads share the work. Nothing waits: a [`WgpuStream`] submits or records and returns.

mod catalog;
mod copy;
mod device;
mod fault;
mod geometry;
mod launch;
mod pipeline;
mod pointwise;
#[cfg(feature = "check")]
mod record;
mod row;
mod stream;
mod sums;
mod tensor;
mod unroll;
mod variant;

pub use catalog::{Shader, shaders};
pub use copy::copy;
pub use device::{AdapterInfo, Options, WgpuDevice, adapters};
#[cfg(feature = "check")]
pub use record::{RecordedBinding, RecordedDispatch, Recording};
pub use stream::{Overrides, WgpuStream};
pub use tensor::{BufferRange, WgpuTensor};
pub use variant::Reduction;

use super::{Backward, Forward};
use crate::spec::Spec;
use crate::{Result, Workspace};

/// Enqueues a forward pass.
pub(crate) fn forward(spec: &Spec, operands: Forward<'_>, stream: &WgpuStream<'_>) -> Result<()> {
    match spec {
        Spec::Row(spec) => row::forward(spec, &operands, stream),
        Spec::Pointwise(spec) => pointwise::forward(spec, &operands, stream),
    }
}

/// Enqueues a backward pass.
pub(crate) fn backward(
    spec: &Spec,
    operands: Backward<'_>,
    workspace: &mut Workspace,
    stream: &WgpuStream<'_>,
) -> Result<()> {
    match spec {
        Spec::Row(spec) => row::backward(spec, &operands, workspace, stream),
        Spec::Pointwise(spec) => pointwise::backward(spec, &operands, workspace, stream),
    }
}
