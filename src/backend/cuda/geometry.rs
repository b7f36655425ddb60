//! From a problem and a device to how threads share it: pure functions. No threshold here was measured on a GPU; each
//! has its reason beside it.

use super::device::Limits;
use super::variant::{ROWS_ACROSS, Shape, Style};
use crate::plan::{fold, tree};
use crate::tensor::{DType, Layout};
use crate::{Error, Result};

/// Blocks of a launch that every driver takes.
pub(super) const MOST_BLOCKS: usize = i32::MAX as usize;
/// Threads of a block that are not told otherwise: four warps, one for each scheduler of a multiprocessor.
const BLOCK: u32 = 128;
/// Threads of a block at most, on every device. Each then has 64 registers; float64 needs more, which half as many have.
const MOST_THREADS: u32 = 1024;
/// The most leaves that a block takes: as many as a warp merges, and as many warps as a block has.
const MOST_LEAVES: usize = 32;
/// The compute capability from which on blocks of a cluster read each other's shared memory.
const CLUSTERS_SINCE: (u32, u32) = (9, 0);
/// Blocks of a cluster that every such device takes.
const MOST_CLUSTER: u32 = 8;
/// Threads that share a leaf at most. Each then has 16 elements of it, fewer than which do not pay for the exchange.
const MOST_SHARING: u32 = 256;
/// Registers of a thread that hold elements. With those of the kernel itself (compiled for compute capability 9.0, forward
/// kernels that hold so many take about 140 and backward ones about 165) a multiprocessor of 65,536 registers runs 384
/// threads, each of which has 128 to 256 bytes on their way: more than the 20 KB that it takes to keep the memory busy.
const HELD_REGISTERS: u32 = 64;
/// Likewise where a row has a part of a warp only: twice as many threads then cost one shuffle more.
const HELD_IN_PART_OF_WARP: u32 = 32;
/// A multiprocessor's registers, of every device since compute capability 5.0, all of which one block may take.
const REGISTERS: u32 = 65_536;
/// Registers that a thread needs besides those that hold elements where a block has so many threads that they are scarce,
/// before a compiler spills some: of a kernel that reads one tensor, of one that reads two, and in float64.
const OWN_REGISTERS: [u32; 3] = [64, 96, 128];
/// The most columns that a thread works on at a time: 16 bytes of two each.
pub(super) const MOST_WIDTH: u32 = 8;
/// Bytes of one access: the most that there are.
const ACCESS_BYTES: u32 = 16;
/// The most columns that a thread sums over rows: two sums of three parameters, a leaf's and a chunk's, are then 24
/// registers in float32.
pub(super) const MOST_SUMMED: u32 = 4;
/// Neighbouring rows that make `column` worth its while. With fewer than a quarter of a warp's lanes busy, `row` has more
/// reads on their way, and the lines that it reads in part are in a cache when the next row wants them.
const ADJACENT_ROWS: usize = 8;
/// Groups of threads that share the rows of a chunk, or the chunks of a column, at most: they meet in shared memory.
const MOST_GROUPS: u32 = 8;
/// Chunks that one thread adds before a group for each part of them is worth the exchange: what it asks for together.
const CHUNKS_OF_THREAD: usize = 16;
/// Leaves that one warp merges, in eight steps, before a block does.
const LEAVES_OF_WARP: usize = 256;
/// Warps of such a block, each of whose threads may then have 128 registers.
const MERGING_WARPS: u32 = 16;
/// Threads that a multiprocessor runs at a time.
const RESIDENT_THREADS: usize = 2048;
/// Registers of a thread that hold elements, where it also has as many sums.
const HELD_BESIDE_SUMS: u32 = 32;
/// Likewise where a row has all of a warp; twice as many make compilers spill.
const HELD_BESIDE_SUMS_OF_WARP: u32 = 64;
/// Times that a device should be full before any thread of a pointwise kernel takes a second row.
const WAVES: usize = 4;
/// Rows that such a thread takes with one reading of the parameters; more would hardly read less.
const MOST_TURNS: usize = 16;

/// Geometry for experiments and tests, where the device's own choice is not wanted. It changes the speed, never the
/// numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overrides {
    /// How rows are given to threads.
    pub style: Option<Style>,
    /// Compute each leaf of a row as a task of its own, however short the row is.
    pub split: bool,
    /// The most neighbouring columns that a thread works on at a time: a power of two up to 8.
    pub width: Option<u32>,
    /// Threads that share a leaf, as far as its lanes go round: a power of two up to 256.
    pub threads: Option<u32>,
    /// The most steps of a leaf's lanes that threads keep in registers before they read the leaf again instead.
    pub steps: Option<u32>,
    /// The most leaves of a row that a block takes before more blocks, or a task for each leaf, share the row; at least one.
    pub leaves: Option<u32>,
    /// Whether the parameters' gradients are summed beside the input's, where one reading of a row can do for both.
    pub fused: Option<bool>,
    /// The most blocks that share a row, on devices that let blocks read each other's memory: a power of two up to 8.
    pub cluster: Option<u32>,
}

impl Overrides {
    /// Refuses what no kernel can do.
    pub(super) fn check(&self) -> Result<()> {
        let power = |name, value: Option<u32>, most: u32| match value {
            Some(n) if !n.is_power_of_two() || n > most => {
                Err(Error::argument(name, format!("a power of two up to {most}"), n))
            }
            _ => Ok(()),
        };
        power("overrides.width", self.width, MOST_WIDTH)?;
        power("overrides.threads", self.threads, MOST_SHARING)?;
        power("overrides.cluster", self.cluster, MOST_CLUSTER)?;
        match self.leaves {
            Some(0) => Err(Error::argument("overrides.leaves", "at least 1", 0)),
            _ => Ok(()),
        }
    }
}

/// What the geometry of a norm's rows depends on, besides the device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) style: Style,
    pub(super) compute: DType,
    pub(super) cols: usize,
    /// Each leaf is a task of its own.
    pub(super) split: bool,
    /// The most columns at a time that the operands allow.
    pub(super) width: u32,
    /// The tensors that are read more than once, unless they are kept.
    pub(super) read: &'a [DType],
}

/// How rows of `shape`, made of the axes `reduced`, are given to threads: so that neighbours in the input's memory go to
/// neighbouring threads.
pub(super) fn style(overrides: &Overrides, shape: &[usize], reduced: &[usize], input: &Layout) -> Style {
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
pub(super) fn is_split(
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
pub(super) fn norm(limits: &Limits, overrides: &Overrides, pass: &Rows<'_>) -> Option<Shape> {
    match pass.style {
        Style::Row => row(limits, overrides, pass),
        Style::Column => Some(column(overrides, pass)),
    }
}

/// Steps of `lanes` columns that a leaf of the pass has at most, in few sizes, so that few kernels are compiled.
fn steps(pass: &Rows<'_>, lanes: u32) -> u32 {
    (pass.cols.clamp(1, tree::LEAF) as u32).div_ceil(lanes).next_power_of_two()
}

/// Registers of a thread that keeps its part of a leaf: compilers give elements of two bytes one each, too.
fn held_registers(pass: &Rows<'_>, shape: &Shape) -> u32 {
    let of_tensor = |dtype: &DType| (dtype.size() as u32).div_ceil(4) * shape.width;
    let runs = shape.steps * (shape.lanes / (shape.threads * shape.width));
    runs * pass.read.iter().map(of_tensor).sum::<u32>()
}

fn row(limits: &Limits, overrides: &Overrides, pass: &Rows<'_>) -> Option<Shape> {
    let leaves = if pass.split { 1 } else { pass.cols.div_ceil(tree::LEAF).next_power_of_two() };
    let most_leaves = overrides.leaves.map_or(MOST_LEAVES, |most| MOST_LEAVES.min(most as usize));
    let has_clusters = limits.is_host || limits.capability >= CLUSTERS_SINCE;
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
    let fits = held <= HELD_REGISTERS && (held + own) * shape.threads * shape.leaves <= REGISTERS;
    (fits && has_memory(limits, pass, &shape)).then_some(shape)
}

/// Threads that may share a leaf where a block has so many of them.
fn most_threads(pass: &Rows<'_>, lanes: u32, leaves: u32) -> u32 {
    lanes.min(MOST_SHARING).min(most_of_block(pass.compute) / leaves)
}

/// Threads of a block that work in this type.
fn most_of_block(compute: DType) -> u32 {
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
    while held_registers(pass, &shape) > room(shape.threads) && 2 * shape.threads <= most {
        if shape.threads * shape.width == shape.lanes {
            shape.width /= 2;
        }
        shape.threads *= 2;
    }
    with_teams(shape)
}

fn column(overrides: &Overrides, pass: &Rows<'_>) -> Shape {
    let lanes = tree::lanes(pass.cols) as u32;
    // 32 lanes a thread would take 64 registers for its sums, and twice as many in float64.
    let usual = if lanes > 128 { 16 } else { 8 };
    let threads = overrides.threads.unwrap_or(usual).min(most_of_block(pass.compute) / ROWS_ACROSS);
    let steps = steps(pass, lanes);
    let kept =
        Shape { style: Style::Column, lanes, threads, width: 1, steps, leaves: 1, cluster: 1, teams: 1 };
    let is_kept = !pass.read.is_empty()
        && held_registers(pass, &kept) <= HELD_REGISTERS
        && overrides.steps.is_none_or(|most| steps <= most);
    if is_kept { kept } else { Shape { steps: 0, ..kept } }
}

/// How rows are shared out whose parameters' gradients are summed beside the input's, in blocks that take one of `chunks`
/// chunks of rows each: where these occupy the device, and a thread has registers for its part of a row and the sums.
pub(super) fn fused(limits: &Limits, overrides: &Overrides, pass: &Rows<'_>, chunks: usize) -> Option<Shape> {
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
    // Of an element and its gradient, in whatever dtype they come.
    let held = |threads: u32| steps * lanes / threads * 2 * pass.compute.size() as u32 / 4;
    // A warp meets without barriers, for which it may have more of them.
    let room = |threads| if threads == 32 { HELD_BESIDE_SUMS_OF_WARP } else { HELD_BESIDE_SUMS };
    let all = [4, 8, 16, 32, 64, 128, 256].into_iter().filter(|&threads| threads <= most);
    let threads = all.into_iter().find(|&threads| held(threads) <= room(threads))?;
    let width = pass.width.min(lanes / threads);
    let shape = Shape { style: Style::Row, lanes, threads, width, steps, leaves: 1, cluster: 1, teams: 1 };
    Some(with_teams(shape))
}

/// A kernel whose threads do not meet, each with `width` columns or, in kernels of one column, a row.
pub(super) fn apart(width: u32) -> Shape {
    Shape {
        style: Style::Row,
        lanes: width,
        threads: 1,
        width,
        steps: 0,
        leaves: 1,
        cluster: 1,
        teams: BLOCK,
    }
}

/// The most columns of a tensor of `dtype` that one access reaches, and `most`.
pub(super) fn most_width(overrides: &Overrides, dtype: DType, most: u32) -> u32 {
    overrides.width.unwrap_or(most).min(ACCESS_BYTES / dtype.size() as u32).min(most)
}

/// Blocks for `rows` rows in so many tasks each.
pub(super) fn blocks(shape: &Shape, rows: usize, leaves: usize) -> usize {
    match shape.style {
        Style::Row => {
            rows.saturating_mul(leaves).div_ceil(shape.teams as usize).saturating_mul(shape.cluster as usize)
        }
        Style::Column => rows.div_ceil(ROWS_ACROSS as usize).saturating_mul(leaves),
    }
}

/// Rows that one launch takes.
pub(super) fn rows_at_once(shape: &Shape, leaves: usize) -> usize {
    match shape.style {
        Style::Row => MOST_BLOCKS / shape.cluster as usize * shape.teams as usize / leaves,
        Style::Column => MOST_BLOCKS / leaves * ROWS_ACROSS as usize,
    }
}

/// Rows that the threads of a pointwise kernel take one after the other, with the parameters read once: several, unless
/// that would leave multiprocessors without work. `runs` is how many threads a row has.
pub(super) fn turns(limits: &Limits, rows: usize, runs: usize) -> usize {
    let threads = limits.multiprocessors as usize * RESIDENT_THREADS * WAVES;
    (rows.saturating_mul(runs) / threads.max(1)).clamp(1, MOST_TURNS)
}

/// Threads with `width` columns of a chunk of rows each, `runs` of them for all chunks. Where they are too few to fill the
/// device, the row leaves of a chunk go to several groups of a block, as many as its exchange is short for.
pub(super) fn columns(limits: &Limits, width: u32, runs: usize, chunk_rows: usize) -> Shape {
    let full = limits.multiprocessors as usize * RESIDENT_THREADS;
    let most = (chunk_rows / tree::ROW_LEAF).clamp(1, MOST_GROUPS as usize);
    let mut leaves = 1;
    while 2 * leaves <= most && runs.saturating_mul(leaves) < full {
        leaves *= 2;
    }
    grouped(leaves as u32, width)
}

/// Threads with a column each, which groups of a block share where it has many chunks.
pub(super) fn chunks(chunks: usize) -> Shape {
    grouped(if chunks > CHUNKS_OF_THREAD { MOST_GROUPS } else { 1 }, 1)
}

/// `leaves` groups of whole warps.
fn grouped(leaves: u32, width: u32) -> Shape {
    Shape { leaves, teams: (BLOCK / leaves).max(32), ..apart(width) }
}

/// A block with a thread for each lane of a row of `cols` columns.
pub(super) fn lanes(cols: usize) -> Shape {
    let lanes = tree::lanes(cols) as u32;
    Shape { lanes, threads: lanes, teams: 1, ..apart(1) }
}

/// A thread for each row of one leaf, a warp for each of several or none, and a block where they are many.
pub(super) fn merging(leaves: usize) -> Shape {
    if leaves == 1 {
        apart(1)
    } else {
        Shape { teams: if leaves > LEAVES_OF_WARP { 1 } else { BLOCK / 32 }, ..adding(leaves) }
    }
}

/// One block that adds so many leaves.
pub(super) fn adding(leaves: usize) -> Shape {
    let warps = if leaves > LEAVES_OF_WARP { MERGING_WARPS } else { 1 };
    Shape { lanes: 32, threads: 32, leaves: warps, teams: 1, ..apart(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        multiprocessors: 132,
        l2_bytes: 50 << 20,
        shared_bytes: 227 << 10,
        capability: (9, 0),
        is_host: false,
    };

    fn rows(dtype: DType, read: &[DType], cols: usize) -> Rows<'_> {
        let most = most_width(&Overrides::default(), dtype, MOST_WIDTH);
        let width = (0..=most.ilog2()).rev().map(|bits| 1 << bits).find(|&width| cols.is_multiple_of(width));
        let width = width.unwrap_or(1) as u32;
        Rows { style: Style::Row, compute: dtype.compute(), cols, split: false, width, read }
    }

    /// `[lanes, threads, width, steps, leaves, teams]` of a pass that keeps `tensors` tensors.
    fn chosen(dtype: DType, tensors: usize, cols: usize) -> [u32; 6] {
        let read = [dtype; 2];
        let shape = norm(&LIMITS, &Overrides::default(), &rows(dtype, &read[..tensors], cols)).unwrap();
        [shape.lanes, shape.threads, shape.width, shape.steps, shape.leaves, shape.teams]
    }

    #[test]
    fn rows_are_shared_by_as_many_threads_as_their_length_asks_for() {
        use DType::{BF16, F32, F64};
        // Forward, 16 bytes at a time where that leaves each thread few enough elements.
        assert_eq!(chosen(BF16, 1, 64), [32, 4, 8, 2, 1, 32]);
        assert_eq!(chosen(F32, 1, 64), [32, 8, 4, 2, 1, 16]);
        assert_eq!(chosen(BF16, 1, 512), [128, 16, 8, 4, 1, 8]);
        assert_eq!(chosen(BF16, 1, 1024), [128, 32, 4, 8, 1, 4]);
        assert_eq!(chosen(F32, 1, 1024), [128, 32, 4, 8, 1, 4]);
        assert_eq!(chosen(BF16, 1, 4096), [256, 64, 4, 16, 1, 1]);
        assert_eq!(chosen(F32, 1, 4096), [256, 64, 4, 16, 1, 1]);
        assert_eq!(chosen(F64, 1, 4096), [256, 128, 2, 16, 1, 1]);
        // Backward keeps two tensors.
        assert_eq!(chosen(BF16, 2, 1024), [128, 32, 4, 8, 1, 4]);
        assert_eq!(chosen(F32, 2, 2048), [128, 64, 2, 16, 1, 1]);
        assert_eq!(chosen(F64, 2, 4096), [256, 256, 1, 16, 1, 1]);
        // Single elements.
        assert_eq!(chosen(BF16, 1, 1023), [128, 32, 1, 8, 1, 4]);
        assert_eq!(chosen(F32, 1, 7), [32, 32, 1, 1, 1, 4]);
        // Leaves side by side, in one block while its registers last.
        assert_eq!(chosen(BF16, 1, 32_768), [256, 64, 4, 16, 8, 1]);
    }

    #[test]
    fn rows_that_no_block_holds_go_to_several_or_are_read_twice() {
        use DType::{BF16, F32};
        let of = |capability, dtype, cols| {
            let limits = Limits { capability, ..LIMITS };
            let read = [dtype];
            let shape = norm(&limits, &Overrides::default(), &rows(dtype, &read, cols));
            shape.map(|shape| (shape.leaves, shape.cluster, shape.steps))
        };
        assert_eq!(of((9, 0), F32, 65_536), Some((8, 2, 16)));
        assert_eq!(of((9, 0), BF16, 262_144), Some((8, 8, 16)));
        assert_eq!(of((9, 0), BF16, 262_145), None);
        assert_eq!(of((8, 6), F32, 65_536), Some((16, 1, 0)));
        assert_eq!(of((8, 6), F32, 131_073), None);
    }

    #[test]
    fn every_geometry_can_be_launched() {
        let forced = [None, Some(1), Some(4), Some(64), Some(256)];
        for (dtype, threads) in
            DType::ALL.into_iter().flat_map(|dtype| forced.map(|threads| (dtype, threads)))
        {
            for (cols, tensors) in
                (0..=20).flat_map(|bits| [1usize << bits, (1 << bits) + 1].map(|cols| (cols, bits % 3)))
            {
                for (style, split) in [(Style::Row, false), (Style::Row, true), (Style::Column, true)] {
                    let read = [dtype; 2];
                    let overrides = Overrides { threads, ..Overrides::default() };
                    let rows = Rows { style, split, ..rows(dtype, &read[..tensors], cols) };
                    for shared_bytes in [64 << 10, 227 << 10] {
                        let limits = Limits { shared_bytes, ..LIMITS };
                        let Some(shape) = norm(&limits, &overrides, &rows) else {
                            assert!(!split && cols > tree::LEAF * MOST_LEAVES, "{dtype} x {cols}");
                            continue;
                        };
                        let what = format!("{dtype} x {cols}: {shape:?}");
                        assert!(
                            shape.block() <= most_of_block(rows.compute) && shape.block() % 32 == 0,
                            "{what}"
                        );
                        assert!(shape.lanes % (shape.threads * shape.width) == 0, "{what}");
                        assert!(shape.shared_bytes(dtype.compute().size() as u32) <= shared_bytes, "{what}");
                        let columns = cols.min(tree::LEAF) as u32;
                        assert!(shape.steps == 0 || shape.steps * shape.lanes >= columns, "{what}");
                        let leaves = (shape.leaves * shape.cluster) as usize;
                        assert!(split || leaves * tree::LEAF >= cols, "{what}");
                        assert!(
                            shape.steps == 0 || held_registers(&rows, &shape) <= HELD_REGISTERS,
                            "{what}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn rows_are_split_where_there_are_few() {
        let split = |rows, cols, style| is_split(&LIMITS, &Overrides::default(), style, [rows, cols]);
        assert!(!split(1, 4096, Style::Row) && split(1, 4097, Style::Row) && !split(66, 4097, Style::Row));
        assert!(split(1000, 4097, Style::Column) && split(7, 0, Style::Row));
    }

    #[test]
    fn neighbours_in_memory_go_to_neighbouring_threads() {
        let of = |shape: &[usize], reduced: &[usize], input: &Layout| {
            style(&Overrides::default(), shape, reduced, input)
        };
        let matrix = Layout::contiguous(&[64, 100]);
        assert_eq!(of(&[64, 100], &[1], &matrix), Style::Row);
        assert_eq!(of(&[64, 100], &[0], &matrix), Style::Column);
        // A row of three neighbours is too narrow for a warp.
        assert_eq!(of(&[64, 3], &[0], &Layout::contiguous(&[64, 3])), Style::Row);
        assert_eq!(of(&[64, 1], &[1], &Layout::contiguous(&[64, 1])), Style::Column);
        assert_eq!(of(&[2, 8, 9, 9], &[0, 2, 3], &Layout::contiguous(&[2, 8, 9, 9])), Style::Row);
    }

    #[test]
    fn sums_over_rows_fill_the_device() {
        // Few columns and many rows: the row leaves of a chunk go to several groups.
        let shape = columns(&LIMITS, 4, 256 * 64, 256);
        assert_eq!((shape.leaves, shape.teams, shape.block()), (8, 32, 256));
        let shape = columns(&LIMITS, 4, 1 << 20, 256);
        assert_eq!((shape.leaves, shape.teams, shape.block()), (1, 128, 128));
        assert_eq!(columns(&LIMITS, 1, 1, 16).leaves, 1);
    }

    #[test]
    fn overrides_are_checked() {
        let wrong = [
            Overrides { width: Some(3), ..Overrides::default() },
            Overrides { threads: Some(512), ..Overrides::default() },
            Overrides { threads: Some(0), ..Overrides::default() },
            Overrides { leaves: Some(0), ..Overrides::default() },
        ];
        assert!(wrong.iter().all(|overrides| overrides.check().is_err()));
        assert!(
            Overrides { width: Some(8), threads: Some(256), leaves: Some(1), ..Overrides::default() }
                .check()
                .is_ok()
        );
    }
}
