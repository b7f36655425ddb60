//! What is done on numbers of rows between the passes over tensors.

use super::launch::{Dispatch, Launch, Problem, Scalars};
use super::norm::{flags, scalars};
use super::operand::Operand;
use super::variant::{Entry, Flags, Role};
use super::{WgpuDevice, WgpuStream, geometry};
use crate::Result;
use crate::backend::Between;
use crate::spec::{MOMENTS, Norm, STATISTICS, SUMS};
use crate::tensor::{Dims, View, ViewMut};

/// The launches of a kernel that does four rows a thread.
pub(super) fn launches(
    problem: &Problem<'_>,
    entry: Entry,
    flags: Flags,
    scalars: Scalars,
) -> Result<Vec<Dispatch>> {
    let shape = geometry::rows();
    let launch = |rows: std::ops::Range<usize>| {
        problem.prepare(Launch {
            entry,
            shape,
            flags,
            groups: geometry::groups(&shape, rows.len(), 1),
            rows,
            cols: 0..1,
            scalars,
        })
    };
    problem.split(0..problem.grid.rows, &(0..1), 4)?.into_iter().map(launch).collect()
}

/// `numbers` for each of `rows` rows.
fn numbers(
    name: &'static str,
    role: Role,
    view: Option<&View<'_>>,
    rows: usize,
    numbers: usize,
) -> Result<Option<Operand>> {
    Operand::per_row(name, role, view, &[rows], &[], [numbers, numbers])
}

/// Moments of rows and the statistics that follow, either of which may be absent, from the moments of their leaves.
pub(super) fn merge_moments(
    device: &WgpuDevice,
    spec: &Norm,
    rows: usize,
    leaves: usize,
    parts: &View<'_>,
    moments: Option<&View<'_>>,
    statistics: Option<&View<'_>>,
) -> Result<Vec<Dispatch>> {
    let operands = [
        numbers("leaves", Role::Number, Some(parts), rows, MOMENTS * leaves.max(1))?,
        numbers("moments", Role::SetNumber, moments, rows, MOMENTS)?,
        numbers("statistics", Role::SetNumber, statistics, rows, STATISTICS)?,
    ];
    let problem = Problem::new(device, &[rows], &[], operands)?;
    let scalars = Scalars { leaves: leaves as u32, ..scalars(spec) };
    launches(&problem, Entry::MergeMoments, of_rows(flags(spec)?), scalars)
}

/// What such a kernel has to know of a spec.
fn of_rows(flags: Flags) -> Flags {
    Flags { kind: flags.kind, outside: flags.outside, ..Flags::default() }
}

/// Sums of rows from those of their leaves.
pub(super) fn merge_sums(
    device: &WgpuDevice,
    rows: usize,
    leaves: usize,
    parts: &View<'_>,
    sums: &View<'_>,
) -> Result<Vec<Dispatch>> {
    let operands = [
        numbers("leaves", Role::Number, Some(parts), rows, SUMS * leaves.max(1))?,
        numbers("sums", Role::SetNumber, Some(sums), rows, SUMS)?,
    ];
    let problem = Problem::new(device, &[rows], &[], operands)?;
    let scalars = Scalars { leaves: leaves as u32, ..Scalars::default() };
    launches(&problem, Entry::MergeSums, Flags::default(), scalars)
}

pub(super) fn between(launch: Between<'_>, stream: &WgpuStream<'_>) -> Result<()> {
    let device = stream.device();
    let dispatches = match launch {
        Between::MergeMoments { norm, parts, output } => {
            let output = output.as_view();
            let rows = output.shape()[0];
            let mut dispatches = Vec::new();
            for (index, part) in parts.iter().enumerate() {
                if index == 0 {
                    dispatches.extend(merge_moments(device, norm, rows, 1, part, Some(&output), None)?);
                    continue;
                }
                let operands = [
                    numbers("leaves", Role::Number, Some(part), rows, MOMENTS)?,
                    numbers("moments", Role::SetNumber, Some(&output), rows, MOMENTS)?,
                ];
                let problem = Problem::new(device, &[rows], &[], operands)?;
                let flags = Flags { accumulate: true, ..of_rows(flags(norm)?) };
                dispatches.extend(launches(&problem, Entry::MergeMoments, flags, scalars(norm))?);
            }
            dispatches
        }
        Between::MergeSums { parts, output } => {
            let output = output.as_view();
            let rows = output.shape()[0];
            let mut dispatches = Vec::new();
            for (index, part) in parts.iter().enumerate() {
                if index == 0 {
                    dispatches.extend(merge_sums(device, rows, 1, part, &output)?);
                    continue;
                }
                let operands = [
                    numbers("leaves", Role::Number, Some(part), rows, SUMS)?,
                    numbers("sums", Role::SetNumber, Some(&output), rows, SUMS)?,
                ];
                let problem = Problem::new(device, &[rows], &[], operands)?;
                let flags = Flags { accumulate: true, ..Flags::default() };
                dispatches.extend(launches(&problem, Entry::MergeSums, flags, Scalars::default())?);
            }
            dispatches
        }
        Between::Finish { norm, moments, output } => {
            let rows = output.shape()[0];
            merge_moments(device, norm, rows, 1, &moments, None, Some(&output.as_view()))?
        }
        Between::FromRunning { norm, mean, var, output } => {
            let rows = output.shape()[0];
            let operands = [
                Operand::new("running_mean", Role::Load, Some(&mean))?,
                Operand::new("running_var", Role::Load, Some(&var))?,
                numbers("statistics", Role::SetNumber, Some(&output.as_view()), rows, STATISTICS)?,
            ];
            let problem = Problem::new(device, &[rows], &[], operands)?;
            launches(&problem, Entry::FromRunning, Flags::default(), scalars(norm))?
        }
        Between::UpdateRunning { moments, mean, var, factor } => {
            let rows = moments.shape()[0];
            let operands = [
                numbers("moments", Role::Number, Some(&moments), rows, MOMENTS)?,
                Operand::new("running_mean", Role::Update, Some(&mean.as_view()))?,
                Operand::new("running_var", Role::Update, Some(&var.as_view()))?,
            ];
            let problem = Problem::new(device, &[rows], &[], operands)?;
            let (factor, rest) = (factor as f32, (1.0 - factor) as f32);
            let scalars = Scalars { factor, rest, ..Scalars::default() };
            launches(&problem, Entry::UpdateRunning, Flags::default(), scalars)?
        }
    };
    stream.run("between", &dispatches)
}

/// Codes in flagged columns, the axes from `kept` on, become 0.
pub(super) fn zero_columns(
    codes: &ViewMut<'_>,
    flags: &View<'_>,
    kept: usize,
    stream: &WgpuStream<'_>,
) -> Result<()> {
    let codes = codes.as_view();
    let axes: Dims = (0..kept).collect();
    // A column's elements are a row of the problem.
    let operands = [
        Operand::new("output", Role::Store, Some(&codes))?,
        Operand::per_row("flags", Role::Position, Some(flags), codes.shape(), &axes, [1, 1])?,
    ];
    let problem = Problem::new(stream.device(), codes.shape(), &axes, operands)?;
    let (shape, cols) = (geometry::sharing(), 0..problem.grid.cols);
    let launch = |rows: std::ops::Range<usize>| {
        problem.prepare(Launch {
            entry: Entry::ZeroColumns,
            shape,
            flags: Flags::default(),
            groups: geometry::groups(&shape, rows.len(), 1),
            rows,
            cols: cols.clone(),
            scalars: Scalars { leaves: 1, turns: 1, ..Scalars::default() },
        })
    };
    let parts = problem.split(0..problem.grid.rows, &cols, 1)?;
    stream.run("zero columns", &parts.into_iter().map(launch).collect::<Result<Vec<_>>>()?)
}
