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

use super::{Backward, Between, Forward};
use crate::spec::Spec;
use crate::tensor::DType;
use crate::{Result, Workspace};

/// Enqueues a forward pass.
pub(crate) fn forward(spec: &Spec, operands: Forward<'_>, stream: &WgpuStream<'_>) -> Result<()> {
    match spec {
        Spec::Norm(norm) => row::forward(spec, norm, &operands, stream),
        Spec::Pointwise(_) => pointwise::forward(spec, &operands, stream),
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
        Spec::Norm(norm) => row::backward(spec, norm, &operands, workspace, stream),
        Spec::Pointwise(_) => pointwise::backward(spec, &operands, workspace, stream),
    }
}

/// Enqueues a launch between passes.
pub(crate) fn between(_: DType, _: Between<'_>, _: &WgpuStream<'_>) -> Result<()> {
    todo!("TEMPORARY")
}
