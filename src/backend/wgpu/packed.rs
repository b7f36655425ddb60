//! Parameters, copied to lie side by side where a device has so few bindings that a pass needs them to be bound as one.

use super::launch::Dispatch;
use super::{WgpuStream, WgpuTensor, copy};
use crate::Result;
use crate::backend::Backward;
use crate::spec::Norm;
use crate::tensor::{DType, Dims, Layout, Tensor, View};

/// Bindings of the backward pass that has most of them, a choice on the safe side.
const MOST: u32 = 16;

/// Whether it may be of use for a backward pass with a branch's parameters or its norm.
pub(super) fn is_wanted(spec: &Norm, stream: &WgpuStream<'_>) -> bool {
    let limits = stream.device().limits();
    let has_more = !spec.fusion.branch.is_none() || spec.fusion.inner.is_some();
    has_more && limits.max_storage_buffers_per_shader_stage < MOST
}

/// Those of `N` parameters that are there, one after the other, each seen in the spec's shape.
pub(super) struct Parameters<const N: usize> {
    tensor: WgpuTensor,
    layouts: [Option<Layout>; N],
}

impl Parameters<2> {
    /// A branch's bias and scale, if both are there and of one dtype.
    pub(super) fn of_branch(
        spec: &Norm,
        operands: &Backward<'_>,
        stream: &WgpuStream<'_>,
    ) -> Result<Option<(Self, Vec<Dispatch>)>> {
        let (Some(bias), Some(scale)) = (&operands.branch_bias, &operands.branch_scale) else {
            return Ok(None);
        };
        if bias.dtype() != scale.dtype() {
            return Ok(None);
        }
        Parameters::new(spec, [Some(bias), Some(scale)], bias.dtype(), stream)
    }
}

impl<const N: usize> Parameters<N> {
    /// With the launches that copy them, if there are two or more. The dtype holds all of their numbers.
    pub(super) fn new(
        spec: &Norm,
        parameters: [Option<&View<'_>>; N],
        dtype: DType,
        stream: &WgpuStream<'_>,
    ) -> Result<Option<(Self, Vec<Dispatch>)>> {
        let present = parameters.iter().flatten().count();
        if present < 2 || spec.shape.contains(&0) {
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
        // Four elements begin at a multiple of four in all.
        let step = count.next_multiple_of(4);
        let tensor = stream.device().zeros(&[present * step], dtype)?;
        let mut dispatches = Vec::new();
        if sizes.is_empty() {
            sizes.push(1);
        }
        let mut layouts = [const { None }; N];
        let mut offset = 0;
        for (from, seen) in parameters.into_iter().zip(&mut layouts) {
            let Some(from) = from else { continue };
            let of_copy: Dims<isize> = match axes {
                [] => Dims::from_elem(1, 1),
                _ => axes.iter().map(|&axis| from.layout().strides()[axis]).collect(),
            };
            let layout = Layout::strided(&sizes, &of_copy, from.layout().offset())?;
            let from = from.clone().with_own_layout(layout);
            let to = tensor.view()?.with_layout(Layout::strided(&sizes, &own, offset)?)?;
            dispatches.extend(copy::launches(&from, &to, stream)?);
            *seen = Some(Layout::strided(shape, &strides, offset)?);
            offset += step;
        }
        Ok(Some((Parameters { tensor, layouts }, dispatches)))
    }

    /// The parameters that are there.
    pub(super) fn views(&self) -> Result<[Option<View<'_>>; N]> {
        let mut views = [const { None }; N];
        for (view, layout) in views.iter_mut().zip(&self.layouts) {
            let Some(layout) = layout else { continue };
            *view = Some(self.tensor.view()?.with_own_layout(layout.clone()));
        }
        Ok(views)
    }
}
