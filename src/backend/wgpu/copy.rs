//! A copy with the threads, loads and stores of the `row` kernels: the floor of the benchmarks.

use super::WgpuStream;
use super::geometry;
use super::launch::{Extent, Launch, Operand, Problem, Scalars};
use super::variant::{Entry, Flags, Role};
use crate::plan::{fold, tree};
use crate::tensor::{View, ViewMut};
use crate::{Error, Result};

/// Copies `input` to `output`, of the same shape and dtype, with the workgroups and the accesses of a row norm over
/// the last axis. What the norm takes longer than this is its arithmetic.
pub fn copy(input: &View<'_>, output: &mut ViewMut<'_>, stream: &WgpuStream<'_>) -> Result<()> {
    let output = output.as_view();
    if output.shape() != input.shape() || output.dtype() != input.dtype() {
        let name = |view: &View<'_>| format!("shape {:?} and dtype {}", view.shape(), view.dtype());
        return Err(Error::argument("output", name(input), name(&output)));
    }
    if input.shape().is_empty() || input.layout().is_empty() {
        return Err(Error::argument(
            "input",
            "at least one axis and one element",
            format!("{:?}", input.shape()),
        ));
    }
    let (grid, walks) = fold(input.shape(), &[input.shape().len() - 1], &[input.layout(), output.layout()]);
    let problem = Problem::new(
        stream.device(),
        &grid,
        [
            Operand::new("input", Role::Load, Some(input), Extent::Full(&walks[0]))?,
            Operand::new("output", Role::Store, Some(&output), Extent::Full(&walks[1]))?,
        ],
    )?;
    let shape = geometry::row(stream.device(), &stream.overrides(), grid.cols, problem.is_vector());
    let mut dispatches = Vec::new();
    let at_once = (shape.group / shape.threads) as usize;
    for rows in problem.split(0..grid.rows, &(0..grid.cols), 1)? {
        dispatches.push(problem.prepare(Launch {
            entry: Entry::Copy,
            shape,
            flags: Flags::default(),
            groups: rows.len().div_ceil(at_once),
            rows,
            cols: 0..grid.cols,
            scalars: Scalars { leaves: grid.cols.div_ceil(tree::LEAF) as u32, ..Scalars::default() },
        })?);
    }
    stream.run("copy", &dispatches)
}
