//! The WebGPU backend: WGSL kernels from `shaders/`, on any Vulkan, Metal or DX12 adapter.
//!
//! [`WgpuDevice`] is a device, normkit's own or a caller's. A launch becomes one or several `Dispatch`es: `norm`, `between` and
//! `pointwise` say which, `mix` adds what a mix of two norms has of its own, `launch` binds their operands, `render` writes their
//! shaders, and `geometry` says how threads share the work. Nothing waits: a [`WgpuStream`] submits or records and returns.

#[macro_use]
mod text;

mod axes;
mod between;
mod bindings;
mod catalog;
mod catalog_fused;
mod copy;
mod device;
mod fault;
mod fusion;
mod geometry;
mod inner;
mod launch;
mod mix;
mod norm;
mod norm_backward;
mod operand;
mod packed;
mod parts;
mod pipeline;
mod pointwise;
#[cfg(feature = "check")]
mod record;
mod render;
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
pub use variant::{Reduction, Style};

use super::{Backward, Between, Forward};
use crate::spec::Spec;
use crate::tensor::{DType, View, ViewMut};
use crate::{Result, Workspace};

/// Enqueues a forward pass.
pub(crate) fn forward(spec: &Spec, operands: Forward<'_>, stream: &WgpuStream<'_>) -> Result<()> {
    match spec {
        Spec::Norm(norm) if norm.fusion.mix.is_some() => mix::forward(norm, operands, stream),
        Spec::Norm(norm) => inner::forward(norm, operands, stream),
        Spec::Pointwise(pointwise) => pointwise::forward(pointwise, &operands, stream),
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
        Spec::Norm(norm) if norm.fusion.mix.is_some() => mix::backward(norm, operands, workspace, stream),
        Spec::Norm(norm) => inner::backward(norm, operands, workspace, stream),
        Spec::Pointwise(pointwise) => pointwise::backward(pointwise, &operands, workspace, stream),
    }
}

/// Enqueues the launches that make codes in flagged columns 0.
pub(crate) fn zero_columns(
    codes: &ViewMut<'_>,
    flags: &View<'_>,
    kept: usize,
    stream: &WgpuStream<'_>,
) -> Result<()> {
    between::zero_columns(codes, flags, kept, stream)
}

/// Enqueues a launch between passes.
pub(crate) fn between(_: DType, launch: Between<'_>, stream: &WgpuStream<'_>) -> Result<()> {
    between::between(launch, stream)
}
