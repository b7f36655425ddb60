//! A copy with the threads, loads and stores of the `row` kernels: the floor of the benchmarks.

use super::WgpuStream;
use super::geometry;
use super::launch::{Dispatch, Launch, Problem, Scalars};
use super::operand::Operand;
use super::variant::{Entry, Flags, Role, Shape, Style};
use crate::backend::copy::check_alike;
use crate::plan::tree;
use crate::tensor::{Dims, View, ViewMut};
use crate::{Error, Result};

/// Copies `input` to `output`, of the same shape and dtype, with the workgroups and the accesses of a row norm over
/// the last axis. What the norm takes longer than this is its arithmetic.
pub fn copy(input: &View<'_>, output: &mut ViewMut<'_>, stream: &WgpuStream<'_>) -> Result<()> {
    let output = output.as_view();
    check_alike(input, &output)?;
    if input.shape().is_empty() || input.layout().is_empty() {
        return Err(Error::argument(
            "input",
            "at least one axis and one element",
            format!("{:?}", input.shape()),
        ));
    }
    stream.run("copy", &launches(input, &output, stream)?)
}

/// The launches of a copy between tensors of one shape, not of rank zero, and dtype.
pub(super) fn launches(
    input: &View<'_>,
    output: &View<'_>,
    stream: &WgpuStream<'_>,
) -> Result<Vec<Dispatch>> {
    let axes: Dims = (0..input.shape().len()).collect();
    let operands =
        [Operand::new("input", Role::Load, Some(input))?, Operand::new("output", Role::Store, Some(output))?];
    let problem = Problem::new(stream.device(), input.shape(), &axes[axes.len() - 1..], operands)?;
    let cols = problem.grid.cols;
    let split = geometry::is_split(&stream.overrides(), cols);
    let leaves = if split { cols.div_ceil(tree::LEAF) } else { 1 };
    let shape = geometry::norm(stream.device(), &stream.overrides(), Style::Row, cols, problem.is_vector());
    let shape = Shape { held: 0, ..shape };
    let mut dispatches = Vec::new();
    for rows in problem.split(0..problem.grid.rows, &(0..cols), 1)? {
        dispatches.push(problem.prepare(Launch {
            entry: Entry::Copy,
            shape,
            flags: Flags { split, ..Flags::default() },
            groups: geometry::groups(&shape, rows.len(), leaves),
            rows,
            cols: 0..cols,
            scalars: Scalars { leaves: leaves as u32, turns: 1, ..Scalars::default() },
        })?);
    }
    Ok(dispatches)
}
