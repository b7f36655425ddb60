//! Kernels that work on the rows of a norm.

use super::super::device::Limits;
use super::super::variant::{ROWS_ACROSS, Shape, Style};
use super::{BLOCK, MOST_CLUSTER, MOST_SHARING, Overrides};
use crate::plan::{fold, tree};
use crate::tensor::{DType, Layout};

/// Threads of a block at most, on every device. Each then has 64 registers; float64 needs more, which half as many have.
const MOST_THREADS: u32 = 1024;
/// The most leaves that a block takes: as many as a warp merges, and as many warps as a block has.
pub(super) const MOST_LEAVES: usize = 32;
/// The compute capability from which on blocks of a cluster read each other's shared memory.
const CLUSTERS_SINCE: (u32, u32) = (9, 0);
/// Registers of a thread that hold elements. With those of the kernel itself, forward kernels that hold so many take up to
/// 228 and backward ones up to 185 (the table in docs/cuda.md). A multiprocessor of 65,536 registers then runs 256 threads or
/// more, each of which has 128 to 256 bytes on their way: more than the 20 KB that it takes to keep the memory busy.
pub(super) const HELD_REGISTERS: u32 = 64;
/// Likewise where a row has a part of a warp only: twice as many threads then cost one shuffle more.
const HELD_IN_PART_OF_WARP: u32 = 32;
/// Runs of neighbouring columns that a thread keeps, of all tensors. Each has an address of its own, in the weight and the mask
/// as well, and compilers ask for all of them together: backward kernels with 64 single columns took up to 255 registers,
/// and some spilled; with 32 they take up to 168, in float64 196.
const HELD_RUNS: u32 = 32;
/// A multiprocessor's registers, of every device since compute capability 5.0, all of which one block may take.
const REGISTERS: u32 = 65_536;
/// Registers that a thread needs besides those that hold elements where a block has so many threads that they are scarce,
/// before a compiler spills some: of a kernel that reads one tensor, of one that reads two, and in float64.
const OWN_REGISTERS: [u32; 3] = [64, 96, 128];
/// And those in which elements of two bytes are taken apart, where the instruction set has nothing better.
const UNPACKING_REGISTERS: u32 = 16;
const UNPACKED_BEFORE: (u32, u32) = (9, 0);
/// Neighbouring rows that make `column` worth its while. With fewer than a quarter of a warp's lanes busy, `row` has more
/// reads on their way, and the lines that it reads in part are in a cache when the next row wants them.
const ADJACENT_ROWS: usize = 8;
/// Registers of a thread that hold elements, where it also has as many sums.
const HELD_BESIDE_SUMS: u32 = 32;
/// Likewise of more tensors than two, of which the others have no sums; beside the work of an epilogue, compilers spilled some.
const HELD_OF_MANY_BESIDE_SUMS: u32 = 48;
/// Likewise where a row has all of a warp; twice as many make compilers spill.
const HELD_BESIDE_SUMS_OF_WARP: u32 = 64;
/// Runs of a thread where it also has sums, of either tensor. With 16 single columns, kernels with a mask spilled where a row
/// has a part of a warp, and took 240 registers where it has more; with 32, all spilled. With 8, 177 was the most.
const HELD_RUNS_BESIDE_SUMS: u32 = 8;

/// What the geometry of a norm's rows depends on, besides the device.
#[derive(Debug, Clone, Copy)]
pub(in crate::backend::cuda) struct Rows<'a> {
    pub(in crate::backend::cuda) style: Style,
    pub(in crate::backend::cuda) compute: DType,
    pub(in crate::backend::cuda) cols: usize,
    /// Each leaf is a task of its own.
    pub(in crate::backend::cuda) split: bool,
    /// The most columns at a time that the operands allow.
    pub(in crate::backend::cuda) width: u32,
    /// The tensors that are read more than once, unless they are kept, or what is made of them is: a thread asks for its part
    /// of all of them together.
    pub(in crate::backend::cuda) read: &'a [DType],
    /// An epilogue changes the output's gradient, which takes registers of its own.
    pub(in crate::backend::cuda) bends: bool,
    /// A row's elements are made of several operands, which takes registers of its own.
    pub(in crate::backend::cuda) joins: bool,
}

/// How rows of `shape`, made of the axes `reduced`, are given to threads: so that neighbours in the input's memory go to
/// neighbouring threads.
pub(in crate::backend::cuda) fn style(
    overrides: &Overrides,
    shape: &[usize],
    reduced: &[usize],
    input: &Layout,
) -> Style {
    if let Some(style) = overrides.style {
        return style;
    }
    let (grid, walks) = fold(shape, reduced, &[input]);
    let is_along_rows = walks[0].outer.last() == Some(&1) && !walks[0].contiguous;
    let is_single = grid.cols == 1 && grid.rows > 1;
    let adjacent = grid.outer.last().copied().unwrap_or(1);
    if is_single || is_along_rows && adjacent >= ADJACENT_ROWS { Style::Column } else { Style::Row }
}

/// Whether each leaf of a row is a task of its own, whatever a block could take: where threads have a row each of many
/// leaves, and where there are so few rows that a block for each would leave half of the device idle.
pub(in crate::backend::cuda) fn is_split(
    limits: &Limits,
    overrides: &Overrides,
    style: Style,
    [rows, cols]: [usize; 2],
) -> bool {
    let is_long = cols > tree::LEAF;
    let are_few = overrides.leaves.is_none() && rows < limits.multiprocessors as usize / 2;
    overrides.split || cols == 0 || is_long && (style == Style::Column || are_few)
}

/// How the rows of a norm's pass are shared out; `None` where they are too long for a block, or for several that meet.
pub(in crate::backend::cuda) fn norm(
    limits: &Limits,
    overrides: &Overrides,
    pass: &Rows<'_>,
) -> Option<Shape> {
    match pass.style {
        Style::Row => row(limits, overrides, pass),
        Style::Column => Some(column(overrides, pass)),
    }
}

/// Steps of `lanes` columns that a leaf of the pass has at most, in few sizes, so that few kernels are compiled.
fn steps(pass: &Rows<'_>, lanes: u32) -> u32 {
    (pass.cols.clamp(1, tree::LEAF) as u32).div_ceil(lanes).next_power_of_two()
}

/// Runs of neighbouring columns that a thread keeps of each tensor.
fn held_runs(shape: &Shape) -> u32 {
    shape.steps * (shape.lanes / (shape.threads * shape.width))
}

/// Registers of a thread that keeps its part of a leaf: compilers give elements of two bytes one each, too.
pub(super) fn held_registers(pass: &Rows<'_>, shape: &Shape) -> u32 {
    let of_tensor = |dtype: &DType| (dtype.size() as u32).div_ceil(4) * shape.width;
    held_runs(shape) * pass.read.iter().map(of_tensor).sum::<u32>()
}

/// Whether a thread has room for its part of a leaf, `registers` being there for the elements.
fn has_room(pass: &Rows<'_>, shape: &Shape, registers: u32) -> bool {
    held_registers(pass, shape) <= registers && held_runs(shape) * pass.read.len() as u32 <= HELD_RUNS
}

fn row(limits: &Limits, overrides: &Overrides, pass: &Rows<'_>) -> Option<Shape> {
    let leaves = if pass.split { 1 } else { pass.cols.div_ceil(tree::LEAF).next_power_of_two() };
    let most_leaves = overrides.leaves.map_or(MOST_LEAVES, |most| MOST_LEAVES.min(most as usize));
    let has_clusters = limits.capability >= CLUSTERS_SINCE;
    let most_blocks = if has_clusters { overrides.cluster.unwrap_or(MOST_CLUSTER) } else { 1 };
    let usual = |cluster: u32| {
        let leaves = leaves / cluster as usize;
        let is_possible = leaves <= most_leaves && (cluster == 1 || leaves > 1);
        is_possible.then(|| usual(limits, overrides, pass, leaves as u32, cluster))
    };
    let mut forms = [1, 2, 4, 8].into_iter().filter(|&cluster| cluster <= most_blocks).filter_map(usual);
    // One reading, if several blocks have to meet for it; else two by one block.
    forms.find_map(|form| kept(limits, overrides, pass, form)).or_else(|| usual(1))
}

/// A form in which nothing is kept: all threads of a block for `leaves` leaves of a row, or as many rows as it has room for.
fn usual(limits: &Limits, overrides: &Overrides, pass: &Rows<'_>, leaves: u32, cluster: u32) -> Shape {
    let lanes = tree::lanes(pass.cols) as u32;
    let width = pass.width;
    // A warp reads whole lines of single elements, and its threads meet without a barrier.
    let usual = if width == 1 { lanes.min(32) } else { lanes / width };
    // Leaves merge in full warps.
    let least = if leaves > 1 { 32u32.div_ceil(leaves) } else { 1 };
    let most = most_threads(pass, lanes, leaves);
    let threads = overrides.threads.unwrap_or(usual).min(lanes / width).min(most).max(least);
    let mut shape = Shape { style: Style::Row, lanes, threads, width, steps: 0, leaves, cluster, teams: 1 };
    while !has_memory(limits, pass, &shape) && shape.threads > least {
        shape.threads /= 2;
    }
    with_teams(shape)
}

/// The same with each leaf in registers, if it has room there.
fn kept(limits: &Limits, overrides: &Overrides, pass: &Rows<'_>, usual: Shape) -> Option<Shape> {
    let steps = steps(pass, usual.lanes);
    if pass.read.is_empty() || overrides.steps.is_some_and(|most| steps > most) {
        return None;
    }
    let most = match overrides.threads {
        Some(_) => usual.threads,
        None => most_threads(pass, usual.lanes, usual.leaves),
    };
    let shape = narrowed(pass, Shape { steps, ..usual }, most);
    let held = held_registers(pass, &shape);
    let own = match (pass.compute, pass.read.len()) {
        (DType::F64, _) => OWN_REGISTERS[2],
        (_, tensors) => OWN_REGISTERS[tensors.min(2) - 1],
    };
    let unpacks = pass.read[0].size() == 2 && limits.capability < UNPACKED_BEFORE;
    let own = own + if unpacks { UNPACKING_REGISTERS } else { 0 };
    let fits =
        has_room(pass, &shape, HELD_REGISTERS) && (held + own) * shape.threads * shape.leaves <= REGISTERS;
    (fits && has_memory(limits, pass, &shape)).then_some(shape)
}

/// Threads that may share a leaf where a block has so many of them.
fn most_threads(pass: &Rows<'_>, lanes: u32, leaves: u32) -> u32 {
    lanes.min(MOST_SHARING).min(most_of_block(pass.compute) / leaves)
}

/// Threads of a block that work in this type.
pub(super) fn most_of_block(compute: DType) -> u32 {
    MOST_THREADS * 4 / compute.size() as u32
}

fn has_memory(limits: &Limits, pass: &Rows<'_>, shape: &Shape) -> bool {
    shape.shared_bytes(pass.compute.size() as u32) <= limits.shared_bytes
}

/// Several rows side by side where each takes a part of a warp; rows of several warps would wait for each other.
fn with_teams(shape: Shape) -> Shape {
    let is_alone = shape.leaves > 1 || shape.threads > 32;
    Shape { teams: if is_alone { 1 } else { BLOCK / shape.threads }, ..shape }
}

/// The form with more threads for a leaf, up to `most`, and as many fewer columns at a time as that takes, until a thread's
/// part fits its registers.
fn narrowed(pass: &Rows<'_>, mut shape: Shape, most: u32) -> Shape {
    let room = |threads| if threads < 32 { HELD_IN_PART_OF_WARP } else { HELD_REGISTERS };
    while !has_room(pass, &shape, room(shape.threads)) && 2 * shape.threads <= most {
        if shape.threads * shape.width == shape.lanes {
            shape.width /= 2;
        }
        shape.threads *= 2;
    }
    with_teams(shape)
}

fn column(overrides: &Overrides, pass: &Rows<'_>) -> Shape {
    let lanes = tree::lanes(pass.cols) as u32;
    // 8 lanes a thread from 128 lanes on. With 16 a thread has 32 sums, and compilers spilled some. Of elements that are made of
    // several operands they spilled more, up to 220 bytes, with the 64 registers that each of 1024 threads has.
    let usual = (lanes / 8).max(8);
    let most = most_of_block(pass.compute) / if pass.joins { 2 } else { 1 };
    let threads = overrides.threads.unwrap_or(usual).min(most / ROWS_ACROSS);
    let steps = steps(pass, lanes);
    let kept =
        Shape { style: Style::Column, lanes, threads, width: 1, steps, leaves: 1, cluster: 1, teams: 1 };
    // With more threads a block has 128 registers for each, or 64. Compilers spilled some where 32 held elements, and with 255
    // where 64 held what is made of several operands.
    let held = if pass.joins { HELD_REGISTERS / 2 } else { HELD_REGISTERS };
    let is_kept = threads <= 8
        && !pass.read.is_empty()
        && held_registers(pass, &kept) <= held
        && overrides.steps.is_none_or(|most| steps <= most);
    if is_kept { kept } else { Shape { steps: 0, ..kept } }
}

/// How rows are shared out whose parameters' gradients are summed beside the input's, in blocks that take one of `chunks`
/// chunks of rows each: where these occupy the device, and a thread has registers for its part of a row and the sums.
pub(in crate::backend::cuda) fn fused(
    limits: &Limits,
    overrides: &Overrides,
    pass: &Rows<'_>,
    chunks: usize,
) -> Option<Shape> {
    let is_wanted = overrides.fused.unwrap_or(chunks >= limits.multiprocessors as usize);
    let fits = pass.style == Style::Row && !pass.split && (1..=tree::LEAF).contains(&pass.cols);
    if !is_wanted || !fits {
        return None;
    }
    let lanes = tree::lanes(pass.cols) as u32;
    let (steps, most) = (steps(pass, lanes), lanes.min(MOST_SHARING));
    if pass.read.is_empty() || overrides.steps.is_some_and(|most| steps > most) {
        return None;
    }
    // Of an element and its gradient, and what a fusion makes them of, in whatever dtype they come.
    let tensors = pass.read.len() as u32;
    let held = |threads: u32| steps * lanes / threads * tensors * pass.compute.size() as u32 / 4;
    // A warp meets without barriers, for which it may have more of them.
    let room = |threads| match threads {
        32 => HELD_BESIDE_SUMS_OF_WARP,
        _ if tensors > 2 && !pass.bends => HELD_OF_MANY_BESIDE_SUMS,
        _ => HELD_BESIDE_SUMS,
    };
    let shape = |threads: u32| {
        let width = pass.width.min(lanes / threads);
        Shape { style: Style::Row, lanes, threads, width, steps, leaves: 1, cluster: 1, teams: 1 }
    };
    // Where no more threads can share a row, they keep what there is.
    let are_few = |threads| threads == most || held_runs(&shape(threads)) <= HELD_RUNS_BESIDE_SUMS;
    let all = [4, 8, 16, 32, 64, 128, 256].into_iter().filter(|&threads| threads <= most);
    let threads = all.into_iter().find(|&threads| held(threads) <= room(threads) && are_few(threads))?;
    Some(with_teams(shape(threads)))
}
