//! What is done on numbers of rows between the passes over tensors.

use super::constants::{flags, scalars};
use super::launch::{Operand, Planned, Problem, Role, Task, enqueue};
use super::params::Scalars;
use super::variant::{Entry, Flags, Shape};
use super::{CudaStream, geometry};
use crate::Result;
use crate::backend::Between;
use crate::spec::{MOMENTS, Norm, STATISTICS, SUMS};
use crate::tensor::{DType, Dims, View, ViewMut};

/// The launch of a kernel over numbers of rows.
pub(super) fn launch(
    problem: &Problem,
    entry: Entry,
    shape: Shape,
    flags: Flags,
    scalars: Scalars,
) -> Result<Planned> {
    let rows = problem.grid.rows;
    let blocks = geometry::blocks(&shape, rows, 1);
    problem.plan(Task { entry, shape, flags, rows: 0..rows, scalars, blocks })
}

/// `numbers` for each of `rows` rows.
fn numbers(
    name: &'static str,
    view: Option<&View<'_>>,
    rows: usize,
    numbers: usize,
) -> Result<Option<Operand>> {
    Operand::per_row(name, view, &[rows], &[], numbers)
}

/// Moments of rows and the statistics that follow, either of which may be absent, from the moments of their leaves.
pub(super) fn merge_moments(
    spec: &Norm,
    compute: DType,
    [rows, leaves]: [usize; 2],
    parts: &View<'_>,
    moments: Option<&View<'_>>,
    statistics: Option<&View<'_>>,
) -> Result<Planned> {
    let operands = [
        numbers("leaves", Some(parts), rows, MOMENTS * leaves)?,
        numbers("moments", moments, rows, MOMENTS)?,
        numbers("statistics", statistics, rows, STATISTICS)?,
    ];
    let problem = Problem::new(compute, &[rows], &[], operands);
    let Flags { kind, outside, .. } = flags(spec)?;
    let flags = Flags { kind, outside: outside && statistics.is_some(), ..Flags::default() };
    let scalars = Scalars { leaves: leaves as i64, ..scalars(spec, compute) };
    launch(&problem, Entry::MergeMoments, geometry::merging(leaves), flags, scalars)
}

/// Sums of rows from those of their leaves.
pub(super) fn merge_sums(
    compute: DType,
    [rows, leaves]: [usize; 2],
    parts: &View<'_>,
    sums: &View<'_>,
) -> Result<Planned> {
    let operands =
        [numbers("leaves", Some(parts), rows, SUMS * leaves)?, numbers("sums", Some(sums), rows, SUMS)?];
    let problem = Problem::new(compute, &[rows], &[], operands);
    let scalars = Scalars { leaves: leaves as i64, ..Scalars::default() };
    launch(&problem, Entry::MergeSums, geometry::merging(leaves), Flags::default(), scalars)
}

/// The numbers of a part, merged with those that are there.
fn accumulate(
    entry: Entry,
    compute: DType,
    part: &View<'_>,
    (name, output, of_row): (&'static str, &View<'_>, usize),
    flags: Flags,
    scalars: Scalars,
) -> Result<Planned> {
    let rows = output.shape()[0];
    let operands = [numbers("leaves", Some(part), rows, of_row)?, numbers(name, Some(output), rows, of_row)?];
    let problem = Problem::new(compute, &[rows], &[], operands);
    let flags = Flags { accumulate: true, ..flags };
    launch(&problem, entry, geometry::merging(1), flags, Scalars { leaves: 1, ..scalars })
}

pub(super) fn between(compute: DType, of: Between<'_>, stream: &CudaStream<'_>) -> Result<()> {
    let planned = match of {
        Between::MergeMoments { norm, parts, output } => {
            let output = output.as_view();
            let rows = output.shape()[0];
            let flags = Flags { kind: flags(norm)?.kind, ..Flags::default() };
            let merge = |(index, part): (usize, &View<'_>)| match index {
                0 => merge_moments(norm, compute, [rows, 1], part, Some(&output), None),
                _ => {
                    let target = ("moments", &output, MOMENTS);
                    accumulate(Entry::MergeMoments, compute, part, target, flags, scalars(norm, compute))
                }
            };
            parts.iter().enumerate().map(merge).collect::<Result<Vec<_>>>()?
        }
        Between::MergeSums { parts, output } => {
            let output = output.as_view();
            let rows = output.shape()[0];
            let merge = |(index, part): (usize, &View<'_>)| match index {
                0 => merge_sums(compute, [rows, 1], part, &output),
                _ => {
                    let target = ("sums", &output, SUMS);
                    accumulate(Entry::MergeSums, compute, part, target, Flags::default(), Scalars::default())
                }
            };
            parts.iter().enumerate().map(merge).collect::<Result<Vec<_>>>()?
        }
        Between::Finish { norm, moments, output } => {
            let rows = output.shape()[0];
            vec![merge_moments(norm, compute, [rows, 1], &moments, None, Some(&output.as_view()))?]
        }
        Between::FromRunning { norm, mean, var, output } => {
            let rows = output.shape()[0];
            let operands = [
                Operand::new("running_mean", Role::Number, Some(&mean))?,
                Operand::new("running_var", Role::Number, Some(&var))?,
                numbers("statistics", Some(&output.as_view()), rows, STATISTICS)?,
            ];
            let problem = Problem::new(compute, &[rows], &[], operands);
            let (shape, flags) = (geometry::apart(1), Flags::default());
            vec![launch(&problem, Entry::FromRunning, shape, flags, scalars(norm, compute))?]
        }
        Between::UpdateRunning { moments, mean, var, factor } => {
            let rows = moments.shape()[0];
            let operands = [
                numbers("moments", Some(&moments), rows, MOMENTS)?,
                Operand::new("running_mean", Role::Number, Some(&mean.as_view()))?,
                Operand::new("running_var", Role::Number, Some(&var.as_view()))?,
            ];
            let problem = Problem::new(compute, &[rows], &[], operands);
            let rounded = |x: f64| if compute == DType::F64 { x } else { f64::from(x as f32) };
            let (factor, rest) = (rounded(factor), rounded(1.0 - factor));
            let scalars = Scalars { factor, rest, ..Scalars::default() };
            vec![launch(&problem, Entry::UpdateRunning, geometry::apart(1), Flags::default(), scalars)?]
        }
    };
    enqueue(stream, "between", planned)
}

/// Codes in flagged columns, the axes from `kept` on, become 0.
pub(super) fn zero_columns(
    codes: &ViewMut<'_>,
    flags: &View<'_>,
    kept: usize,
    stream: &CudaStream<'_>,
) -> Result<()> {
    let codes = codes.as_view();
    let shape = codes.shape();
    // A column's elements are a row of the problem.
    let axes: Dims = (0..kept).collect();
    let operands = [
        Operand::new("output", Role::Number, Some(&codes))?,
        Operand::per_row("flags", Some(flags), shape, &axes, 1)?,
    ];
    let problem = Problem::new(DType::F32, shape, &axes, operands);
    let columns = problem.grid.rows;
    let (entry, shape, flags) = (Entry::ZeroColumns, geometry::apart(1), Flags::default());
    let scalars = Scalars::default();
    let planned = problem.plan(Task { entry, shape, flags, rows: 0..columns, scalars, blocks: columns })?;
    enqueue(stream, "zero columns", vec![planned])
}
