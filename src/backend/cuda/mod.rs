//! The CUDA backend: kernels from `kernels/`, compiled at run time for the GPU at hand, or for the CPU in its place.
//!
//! [`CudaDevice`] is a device, by one of two drivers behind one interface (`driver`). A call becomes one or several
//! launches: `norm`, `between` and `pointwise` say which, `mix` adds what a mix of two norms has of its own, `together` joins those of
//! several problems, `launch` reaches their operands, `geometry` says how threads share the work, and `render` writes their sources. Nothing waits: a [`CudaStream`] enqueues and returns.

mod between;
mod constants;
mod copy;
mod device;
mod driver;
mod fault;
mod functions;
mod fusion;
mod geometry;
mod inner;
mod kernel;
mod launch;
mod mix;
mod norm;
mod norm_backward;
mod params;
mod pointwise;
mod render;
mod schedule;
mod self_test;
mod stream;
mod sums;
mod tensor;
mod together;
mod variant;

pub use copy::copy;
pub use device::{CudaDevice, CudaInfo, CudaOptions, devices};
pub use driver::{Cache, HostOptions, Schedule};
pub use geometry::Overrides;
pub use kernel::{Compiled, Compiler, Kernel, Resources};
pub use stream::CudaStream;
pub use tensor::{CudaTensor, DeviceRange};
pub use variant::Style;

use super::{Backward, Between, Forward};
use crate::spec::Spec;
use crate::tensor::{DType, View, ViewMut};
use crate::{Result, Workspace};
use functions::Functions;

/// Enqueues a forward pass.
pub(crate) fn forward(spec: &Spec, operands: Forward<'_>, stream: &CudaStream<'_>) -> Result<()> {
    match spec {
        Spec::Norm(norm) if norm.fusion.mix.is_some() => mix::forward(norm, operands, stream),
        Spec::Norm(norm) => norm::forward(norm, &operands, stream),
        Spec::Pointwise(pointwise) => pointwise::forward(pointwise, &operands, stream),
    }
}

/// Enqueues forward passes of which none writes what another reads or writes.
pub(crate) fn forward_together(problems: &[(Spec, Forward<'_>)], stream: &CudaStream<'_>) -> Result<()> {
    together::forward(problems, stream)
}

/// Enqueues backward passes of which none writes what another reads or writes.
pub(crate) fn backward_together<const N: usize>(
    problems: [(Spec, Backward<'_>); N],
    workspace: &mut Workspace,
    stream: &CudaStream<'_>,
) -> Result<()> {
    together::backward(problems, workspace, stream)
}

/// Enqueues a backward pass.
pub(crate) fn backward(
    spec: &Spec,
    operands: Backward<'_>,
    workspace: &mut Workspace,
    stream: &CudaStream<'_>,
) -> Result<()> {
    match spec {
        Spec::Norm(norm) if norm.fusion.mix.is_some() => mix::backward(norm, operands, workspace, stream),
        Spec::Norm(norm) => inner::backward(norm, operands, workspace, stream),
        Spec::Pointwise(pointwise) => pointwise::backward(pointwise, &operands, workspace, stream),
    }
}

/// Enqueues the launch that makes codes in flagged columns 0.
pub(crate) fn zero_columns(
    codes: &ViewMut<'_>,
    flags: &View<'_>,
    kept: usize,
    stream: &CudaStream<'_>,
) -> Result<()> {
    between::zero_columns(codes, flags, kept, stream)
}

/// Enqueues a launch between passes; `dtype` is the compute dtype.
pub(crate) fn between(dtype: DType, launch: Between<'_>, stream: &CudaStream<'_>) -> Result<()> {
    between::between(dtype, launch, stream)
}
