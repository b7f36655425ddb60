//! From a problem and a device to how threads share it.

use super::WgpuDevice;
use super::stream::Overrides;
use super::variant::{Reduction, Shape, Style};
use crate::plan::{Grid, Walk, tree};

/// Vectors of four that a thread keeps of a row; no GPU was measured.
const HELD_QUADS: u32 = 32;
/// Likewise on a software adapter, where RMSNorm of 1024 columns took 2.2 times a copy with its 32 vectors kept and 3.2
/// times reading them again. Its registers are memory: the limit is the time that longer shaders take to compile.
const SOFTWARE_HELD_QUADS: u32 = 64;
/// Invocations of a workgroup that works through workgroup memory, and of one whose threads do not meet.
const GROUP: u32 = 64;

/// Which four elements a thread works on: neighbours in the input's memory, where there are any.
pub(super) fn style(overrides: &Overrides, grid: &Grid, input: &Walk) -> Style {
    if let Some(style) = overrides.style {
        return style;
    }
    let along_rows = input.outer.last() == Some(&1) && grid.rows > 1;
    let single = grid.cols == 1 && grid.rows > 1;
    if single || along_rows && !input.contiguous { Style::Column } else { Style::Row }
}

/// Whether each leaf of a row is a task of its own.
pub(super) fn is_split(overrides: &Overrides, cols: usize) -> bool {
    overrides.split || cols == 0 || cols > tree::LEAF
}

/// How rows of `cols` columns are shared out. `vector` says whether all tensors are read four columns at a time: only
/// such rows are kept in registers, since unrolled loads of single elements make a shader several times as long.
pub(super) fn norm(
    device: &WgpuDevice,
    overrides: &Overrides,
    style: Style,
    cols: usize,
    vector: bool,
) -> Shape {
    let lanes = tree::lanes(cols) as u32;
    if style == Style::Column {
        return Shape { style, lanes, ..columns() };
    }
    let subgroup = device.subgroup().filter(|_| overrides.reduction != Some(Reduction::Workgroup));
    let (reduction, group) = match subgroup {
        Some(size) => (Reduction::Subgroup, size),
        None => (Reduction::Workgroup, overrides.group.unwrap_or(GROUP)),
    };
    let threads = group.min(lanes / 4);
    let steps = cols.div_ceil(lanes as usize) as u32;
    let quads = steps.saturating_mul(lanes / 4 / threads);
    let most = if device.is_software() { SOFTWARE_HELD_QUADS } else { HELD_QUADS };
    let fits = vector && cols <= tree::LEAF && quads <= overrides.held.unwrap_or(most);
    let exact = cols.is_multiple_of(lanes as usize) && cols > 0;
    Shape { style, reduction, group, threads, lanes, held: if fits { steps } else { 0 }, exact }
}

/// Whether a thread can keep `arrays` numbers for each element that it has of a row. A software adapter's registers are
/// memory in the first cache, so it keeps whatever it holds.
pub(super) fn keeps(device: &WgpuDevice, shape: &Shape, arrays: u32) -> bool {
    let registers = 4 * shape.held * (shape.lanes / 4 / shape.threads) * arrays;
    shape.style == Style::Row && shape.held > 0 && (device.is_software() || registers <= KEPT_REGISTERS)
}

/// Registers of a thread that a GPU has, less what the kernel itself needs; a choice, not a measurement.
const KEPT_REGISTERS: u32 = 160;

/// Workgroups for `tasks` rows or leaves of rows.
pub(super) fn groups(shape: &Shape, rows: usize, leaves: usize) -> usize {
    match shape.style {
        Style::Row => (rows * leaves).div_ceil((shape.group / shape.threads) as usize),
        Style::Column => (rows.div_ceil(4) * leaves).div_ceil(shape.group as usize),
    }
}

/// A kernel whose threads do not meet.
pub(super) fn columns() -> Shape {
    Shape {
        style: Style::Row,
        reduction: Reduction::Workgroup,
        group: GROUP,
        threads: 1,
        lanes: 4,
        held: 0,
        exact: false,
    }
}

/// A kernel of a workgroup a row, whose threads do not meet.
pub(super) fn sharing() -> Shape {
    Shape { threads: GROUP, lanes: 4 * GROUP, ..columns() }
}

/// A kernel that works on numbers of rows, four rows a thread.
pub(super) fn rows() -> Shape {
    Shape { style: Style::Column, ..columns() }
}

/// Rows that the threads of a pointwise workgroup take one after the other, with the parameters read once: several,
/// unless that would leave threads without work.
pub(super) fn turns(rows: usize, rows_at_once: usize) -> usize {
    (rows / rows_at_once.max(1) / TURN_GROUPS).clamp(1, MOST_TURNS)
}

/// Likewise for rows of a norm whose weight and bias are kept.
pub(super) fn kept_turns(rows: usize, rows_at_once: usize) -> usize {
    (rows / rows_at_once.max(1) / TURN_GROUPS).clamp(1, MOST_KEPT_TURNS)
}

/// Workgroups that every adapter should have before any takes a second turn.
const TURN_GROUPS: usize = 256;
/// Enough to read the parameters seldom; a choice, not a measurement.
const MOST_TURNS: usize = 16;
/// On the software adapter reading weight and bias anew took LayerNorm of 1024 columns 9 % of its time with 16 turns.
const MOST_KEPT_TURNS: usize = 64;
