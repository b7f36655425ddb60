//! From a problem and a device to how threads share it.

use super::WgpuDevice;
use super::stream::Overrides;
use super::variant::{Reduction, Shape};
use crate::plan::tree;

/// Vectors of four that a thread keeps of a row. On the software adapter RMSNorm of 1024 columns took 2.2
/// times a copy with its 32 vectors kept and 3.2 times reading them again; no GPU was measured.
const HELD_QUADS: u32 = 32;
/// Invocations of a workgroup that works through workgroup memory, and of one whose threads do not meet.
const GROUP: u32 = 64;

/// How a row of `cols` columns is shared out. `vector` says whether all tensors are read four columns at a time: only
/// such rows are kept in registers, since unrolled loads of single elements make a shader several times as long.
pub(super) fn row(device: &WgpuDevice, overrides: &Overrides, cols: usize, vector: bool) -> Shape {
    let lanes = tree::lanes(cols) as u32;
    let subgroup = device.subgroup().filter(|_| overrides.reduction != Some(Reduction::Workgroup));
    let (reduction, group) = match subgroup {
        Some(size) => (Reduction::Subgroup, size),
        None => (Reduction::Workgroup, overrides.group.unwrap_or(GROUP)),
    };
    let threads = group.min(lanes / 4);
    let steps = cols.div_ceil(lanes as usize) as u32;
    let quads = steps.saturating_mul(lanes / 4 / threads);
    let fits = vector && cols <= tree::LEAF && quads <= overrides.held.unwrap_or(HELD_QUADS);
    let exact = cols.is_multiple_of(lanes as usize);
    Shape { reduction, group, threads, lanes, held: if fits { steps } else { 0 }, exact }
}

/// A kernel whose threads do not meet.
pub(super) fn columns() -> Shape {
    Shape { reduction: Reduction::Workgroup, group: GROUP, threads: 1, lanes: 4, held: 0, exact: false }
}

/// Rows that the threads of a pointwise workgroup take one after the other, with the parameters read once: several,
/// unless that would leave threads without work.
pub(super) fn turns(rows: usize, rows_at_once: usize) -> usize {
    (rows / rows_at_once.max(1) / TURN_GROUPS).clamp(1, MOST_TURNS)
}

/// Workgroups that every adapter should have before any takes a second turn.
const TURN_GROUPS: usize = 256;
/// Enough to read the parameters seldom; a choice, not a measurement.
const MOST_TURNS: usize = 16;
