//! The `pointwise` schedule: `shaders/pointwise_forward.wgsl` and `shaders/pointwise_backward.wgsl`.

use super::WgpuStream;
use super::geometry;
use super::launch::{Extent, Launch, Operand, Problem, Scalars};
use super::variant::{Entry, Flags, Role};
use crate::backend::{Backward, Forward};
use crate::plan::{Walk, fold};
use crate::spec::Pointwise;
use crate::tensor::{Layout, View};
use crate::{Result, Workspace};
use smallvec::smallvec;

/// Alpha is the same element in every column.
fn repeated(alpha: Option<&View<'_>>, inner: usize) -> Walk {
    let offset = alpha.map_or(0, |view| view.layout().offset());
    Walk { outer: smallvec![], inner: smallvec![0; inner], offset }
}

pub(super) fn forward(spec: &Pointwise, operands: &Forward<'_>, stream: &WgpuStream<'_>) -> Result<()> {
    let Forward { input, parameters, output, .. } = operands;
    let output = output.as_view();
    let (weight, bias) = (parameters.weight.as_ref(), parameters.bias.as_ref());
    let given: Vec<&Layout> = [weight, bias].into_iter().flatten().map(|view| view.layout()).collect();
    let (grid, walks) = fold(input.shape(), spec.axes, &[input.layout(), output.layout()], &given);
    let alpha = repeated(parameters.alpha.as_ref(), grid.inner.len());
    let mut params = walks[2..].iter();
    let mut param = |present: bool| if present { params.next().map_or(Extent::Whole, Extent::Row) } else { Extent::Whole };
    let problem = Problem::new(
        stream.device(),
        &grid,
        [
            Operand::new("input", Role::Load, Some(input), Extent::Full(&walks[0]))?,
            Operand::new("output", Role::Store, Some(&output), Extent::Full(&walks[1]))?,
            Operand::new("weight", Role::Load, weight, param(weight.is_some()))?,
            Operand::new("bias", Role::Load, bias, param(bias.is_some()))?,
            Operand::new("alpha", Role::Load, parameters.alpha.as_ref(), Extent::Row(&alpha))?,
        ],
    )?;
    let shape = geometry::columns();
    let col_groups = grid.cols.div_ceil(4 * shape.group as usize);
    let mut dispatches = Vec::new();
    for rows in problem.split(0..grid.rows, &(0..grid.cols), 1)? {
        dispatches.push(problem.prepare(Launch {
            entry: Entry::PointwiseForward,
            shape,
            flags: Flags::default(),
            groups: rows.len().saturating_mul(col_groups),
            rows,
            cols: 0..grid.cols,
            scalars: Scalars { col_groups: col_groups as u32, ..Scalars::default() },
        })?);
    }
    stream.run("pointwise forward", &dispatches)
}

pub(super) fn backward(
    _spec: &Pointwise,
    _operands: &Backward<'_>,
    _workspace: &mut Workspace,
    _stream: &WgpuStream<'_>,
) -> Result<()> {
    Ok(())
}
