//! Where kernels run. A backend knows specs and plans, and no method.

pub mod cpu;
#[cfg(feature = "wgpu")]
pub mod wgpu;

use crate::norm::{Gradients, Parameters};
use crate::plan::tree;
use crate::spec::Spec;
use crate::tensor::{DType, View, ViewMut};
use crate::{Result, Stream, Workspace};

/// The operands of a forward pass, checked.
pub(crate) struct Forward<'a> {
    pub(crate) input: &'a View<'a>,
    pub(crate) parameters: &'a Parameters<'a>,
    pub(crate) output: ViewMut<'a>,
    pub(crate) statistics: Option<ViewMut<'a>>,
}

/// The operands of a backward pass, checked.
pub(crate) struct Backward<'a> {
    pub(crate) grad_output: &'a View<'a>,
    pub(crate) input: &'a View<'a>,
    pub(crate) parameters: &'a Parameters<'a>,
    pub(crate) statistics: Option<&'a View<'a>>,
    pub(crate) grads: Gradients<'a>,
}

/// Runs or enqueues a forward pass.
pub(crate) fn forward(spec: &Spec, operands: Forward<'_>, stream: &Stream<'_>) -> Result<()> {
    match stream {
        Stream::Cpu(cpu) => cpu::forward(spec, operands, cpu),
        #[cfg(feature = "wgpu")]
        Stream::Wgpu(stream) => wgpu::forward(spec, operands, stream),
        #[cfg(not(feature = "wgpu"))]
        Stream::Never(never, _) => match *never {},
    }
}

/// Runs or enqueues a backward pass.
pub(crate) fn backward(
    spec: &Spec,
    operands: Backward<'_>,
    workspace: &mut Workspace,
    stream: &Stream<'_>,
) -> Result<()> {
    match stream {
        Stream::Cpu(cpu) => cpu::backward(spec, operands, workspace, cpu),
        #[cfg(feature = "wgpu")]
        Stream::Wgpu(stream) => wgpu::backward(spec, operands, workspace, stream),
        #[cfg(not(feature = "wgpu"))]
        Stream::Never(never, _) => match *never {},
    }
}

/// Numbers per column whose sums over rows a backward pass of `spec` may need.
pub(crate) fn params_per_column(spec: &Spec) -> usize {
    match spec {
        // weight, bias
        Spec::Row(_) => 2,
        // weight, bias, alpha
        Spec::Pointwise(_) => 3,
    }
}

/// Bytes of partial sums that a backward pass keeps.
pub(crate) fn workspace_size(spec: &Spec, shape: &[usize], dtype: DType) -> usize {
    let split = shape.len() - spec.axes();
    let (rows, cols): (usize, usize) = (shape[..split].iter().product(), shape[split..].iter().product());
    let (params, size) = (params_per_column(spec), dtype.compute().size());
    rows.div_ceil(tree::chunk_rows(rows, cols, params, size)) * cols * params * size
}
