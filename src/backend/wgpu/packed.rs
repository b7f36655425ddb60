//! Operands of a residual's branch, copied to lie side by side where a device has so few bindings that a backward pass needs them
//! to be bound as one.

use super::launch::Dispatch;
use super::{WgpuStream, WgpuTensor, copy};
use crate::Result;
use crate::backend::Backward;
use crate::spec::Norm;
use crate::tensor::{Dims, Layout, Tensor, View};

/// Bindings of the backward pass that has most of them, a choice on the safe side.
const MOST: u32 = 16;

/// Whether it may be of use.
pub(super) fn is_wanted(spec: &Norm, stream: &WgpuStream<'_>) -> bool {
    let limits = stream.device().limits();
    !spec.fusion.branch.is_none() && limits.max_storage_buffers_per_shader_stage < MOST
}

/// A branch's bias and scale, one after the other, each seen in the spec's shape.
pub(super) struct Parameters {
    tensor: WgpuTensor,
    layouts: [Layout; 2],
}

impl Parameters {
    /// With the launches that copy them, if both are there and of one dtype.
    pub(super) fn new(
        spec: &Norm,
        operands: &Backward<'_>,
        stream: &WgpuStream<'_>,
    ) -> Result<Option<(Self, Vec<Dispatch>)>> {
        let (Some(bias), Some(scale)) = (&operands.branch_bias, &operands.branch_scale) else {
            return Ok(None);
        };
        if bias.dtype() != scale.dtype() || spec.shape.contains(&0) {
            return Ok(None);
        }
        let (shape, axes) = (&spec.shape[..], &spec.affine.axes[..]);
        // A copy has at least one axis.
        let mut sizes: Dims = axes.iter().map(|&axis| shape[axis]).collect();
        let (mut strides, mut own) =
            (Dims::<isize>::from_elem(0, shape.len()), Dims::<isize>::from_elem(1, sizes.len().max(1)));
        let mut count = 1;
        for (at, &axis) in axes.iter().enumerate().rev() {
            (strides[axis], own[at]) = (count as isize, count as isize);
            count *= shape[axis].max(1);
        }
        // Four elements begin at a multiple of four in both.
        let offsets = [0, count.next_multiple_of(4)];
        let tensor = stream.device().zeros(&[2 * offsets[1]], bias.dtype())?;
        let mut dispatches = Vec::new();
        if sizes.is_empty() {
            sizes.push(1);
        }
        for (from, offset) in [bias, scale].into_iter().zip(offsets) {
            let strides: Dims<isize> = match axes {
                [] => Dims::from_elem(1, 1),
                _ => axes.iter().map(|&axis| from.layout().strides()[axis]).collect(),
            };
            let layout = Layout::strided(&sizes, &strides, from.layout().offset())?;
            let from = from.clone().with_own_layout(layout);
            let to = tensor.view()?.with_layout(Layout::strided(&sizes, &own, offset)?)?;
            dispatches.extend(copy::launches(&from, &to, stream)?);
        }
        let [bias, scale] = offsets.map(|offset| Layout::strided(shape, &strides, offset));
        Ok(Some((Parameters { tensor, layouts: [bias?, scale?] }, dispatches)))
    }

    /// The bias and the scale.
    pub(super) fn views(&self) -> Result<[View<'_>; 2]> {
        let [bias, scale] = self.layouts.clone();
        Ok([self.tensor.view()?.with_own_layout(bias), self.tensor.view()?.with_own_layout(scale)])
    }
}
