//! From a problem and a device to how threads share it: pure functions. No threshold here was measured on a GPU; each
//! has its reason beside it.

mod apart;
mod norm;
mod overrides;

pub(super) use apart::{adding, apart, chunks, columns, lanes, merging, turns};
pub(super) use norm::{Rows, fused, is_split, norm, style};
pub use overrides::Overrides;

use super::variant::{ROWS_ACROSS, Shape, Style};
use crate::tensor::DType;

/// Blocks of a launch that every driver takes.
pub(super) const MOST_BLOCKS: usize = i32::MAX as usize;
/// Threads of a block that are not told otherwise: four warps, one for each scheduler of a multiprocessor.
const BLOCK: u32 = 128;
/// Threads that share a leaf at most. Each then has 16 elements of it, fewer than which do not pay for the exchange.
const MOST_SHARING: u32 = 256;
/// Blocks of a cluster that every such device takes.
const MOST_CLUSTER: u32 = 8;
/// The most columns that a thread works on at a time: 16 bytes of two each.
pub(super) const MOST_WIDTH: u32 = 8;
/// Bytes of one access: the most that there are.
const ACCESS_BYTES: u32 = 16;
/// The most columns that a thread sums over rows: two sums of three parameters, a leaf's and a chunk's, are then 24
/// registers in float32.
pub(super) const MOST_SUMMED: u32 = 4;

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

#[cfg(test)]
mod tests;
