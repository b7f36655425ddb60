//! Where the columns of a row lie in memory: in runs of elements that are evenly apart.

use crate::plan::{Grid, Walk};
use std::ops::Range;

/// Columns from `col` on, `count` of them, `stride` apart from element `at` of the memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) col: usize,
    pub(super) count: usize,
    pub(super) at: isize,
    pub(super) stride: isize,
}

/// Where columns of a row lie side by side, if they do.
pub(super) fn place(grid: &Grid, walk: &Walk, row: usize, col: usize, len: usize) -> Option<isize> {
    if walk.contiguous {
        return Some(grid.row_offset(walk, row) + col as isize);
    }
    let is_run = walk.inner.last() == Some(&1) && len <= run_length(grid, col);
    is_run.then(|| grid.row_offset(walk, row) + grid.col_offset(walk, col))
}

/// Up to which column those from `col` on lie side by side.
pub(super) fn run_end(grid: &Grid, walk: &Walk, col: usize) -> usize {
    if !walk.contiguous && walk.inner.last() == Some(&1) { col + run_length(grid, col) } else { grid.cols }
}

/// The runs that some columns of a row are made of.
pub(super) fn runs<'a>(
    grid: &'a Grid,
    walk: &'a Walk,
    row: usize,
    cols: Range<usize>,
) -> impl Iterator<Item = Run> + use<'a> {
    let first = grid.row_offset(walk, row);
    let stride = walk.inner[walk.inner.len() - 1];
    let mut next = cols.start;
    std::iter::from_fn(move || {
        let col = next;
        let count = run_length(grid, col).min(cols.end - col);
        next += count;
        (count > 0).then(|| Run { col, count, at: first + grid.col_offset(walk, col), stride })
    })
}

/// Columns from `col` on that lie along the fastest axis.
#[inline(always)]
pub(super) fn run_length(grid: &Grid, col: usize) -> usize {
    let fastest = grid.inner[grid.inner.len() - 1];
    fastest - col % fastest
}
