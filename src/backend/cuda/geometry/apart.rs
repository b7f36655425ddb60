//! Kernels that work on columns, chunks and leaves, and not on the rows of a norm.

use super::super::device::Limits;
use super::super::variant::{Shape, Style};
use super::BLOCK;
use crate::plan::tree;

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
/// Times that a device should be full before any thread of a pointwise kernel takes a second row.
const WAVES: usize = 4;
/// Rows that such a thread takes with one reading of the parameters; more would hardly read less.
const MOST_TURNS: usize = 16;

/// A kernel whose threads do not meet, each with `width` columns or, in kernels of one column, a row.
pub(in crate::backend::cuda) fn apart(width: u32) -> Shape {
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

/// Rows that the threads of a pointwise kernel take one after the other, with the parameters read once: several, unless
/// that would leave multiprocessors without work. `runs` is how many threads a row has.
pub(in crate::backend::cuda) fn turns(limits: &Limits, rows: usize, runs: usize) -> usize {
    let threads = limits.multiprocessors as usize * RESIDENT_THREADS * WAVES;
    (rows.saturating_mul(runs) / threads.max(1)).clamp(1, MOST_TURNS)
}

/// Threads with `width` columns of a chunk of rows each, `runs` of them for all chunks. Where they are too few to fill the
/// device, the row leaves of a chunk go to several groups of a block, as many as its exchange is short for.
pub(in crate::backend::cuda) fn columns(
    limits: &Limits,
    width: u32,
    runs: usize,
    chunk_rows: usize,
) -> Shape {
    let full = limits.multiprocessors as usize * RESIDENT_THREADS;
    let most = (chunk_rows / tree::ROW_LEAF).clamp(1, MOST_GROUPS as usize);
    let mut leaves = 1;
    while 2 * leaves <= most && runs.saturating_mul(leaves) < full {
        leaves *= 2;
    }
    grouped(leaves as u32, width)
}

/// Threads with a column each, which groups of a block share where it has many chunks.
pub(in crate::backend::cuda) fn chunks(chunks: usize) -> Shape {
    grouped(if chunks > CHUNKS_OF_THREAD { MOST_GROUPS } else { 1 }, 1)
}

/// `leaves` groups of whole warps.
fn grouped(leaves: u32, width: u32) -> Shape {
    Shape { leaves, teams: (BLOCK / leaves).max(32), ..apart(width) }
}

/// A block with a thread for each lane of a row of `cols` columns.
pub(in crate::backend::cuda) fn lanes(cols: usize) -> Shape {
    let lanes = tree::lanes(cols) as u32;
    Shape { lanes, threads: lanes, teams: 1, ..apart(1) }
}

/// A thread for each row of one leaf, a warp for each of several or none, and a block where they are many.
pub(in crate::backend::cuda) fn merging(leaves: usize) -> Shape {
    if leaves == 1 {
        apart(1)
    } else {
        Shape { teams: if leaves > LEAVES_OF_WARP { 1 } else { BLOCK / 32 }, ..adding(leaves) }
    }
}

/// One block that adds so many leaves.
pub(in crate::backend::cuda) fn adding(leaves: usize) -> Shape {
    let warps = if leaves > LEAVES_OF_WARP { MERGING_WARPS } else { 1 };
    Shape { lanes: 32, threads: 32, leaves: warps, teams: 1, ..apart(1) }
}
