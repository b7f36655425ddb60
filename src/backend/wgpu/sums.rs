//! Gradients of parameters: sums over rows, in chunks whose partial sums live in the workspace.

use super::launch::{Dispatch, Extent, Launch, Operand, Problem, Scalars};
use super::variant::{Entry, Flags, Reduction, Role, Shape};
use super::{WgpuDevice, geometry};
use crate::Result;
use crate::plan::{Grid, Walk, tree};
use crate::tensor::View;
use smallvec::smallvec;
use std::ops::Range;

/// How the sums over rows are cut. Partial sums are laid out as [parameter][chunk][column], then the leaves' sums of a
/// parameter that columns share.
pub(super) struct Sums {
    wanted: [bool; 3],
    chunk_rows: usize,
    chunks: usize,
    /// Columns that are summed at a time: all, unless a single chunk of them exceeds the workspace.
    block: usize,
    leaves: usize,
}

impl Sums {
    /// `params` is the number of sums per column that the chunks are planned for.
    pub(super) fn new(wanted: [bool; 3], params: usize, grid: &Grid) -> Self {
        let chunk_rows = tree::chunk_rows(grid.rows, grid.cols, params, 4);
        let chunks = grid.rows.div_ceil(chunk_rows);
        let most = tree::PARTIALS_LIMIT / (4 * params) / tree::LEAF * tree::LEAF;
        let block = if chunks <= 1 { grid.cols.min(most) } else { grid.cols };
        let leaves = if wanted[2] { grid.cols.div_ceil(tree::LEAF) } else { 0 };
        Sums { wanted, chunk_rows, chunks, block, leaves }
    }

    /// Whether there is any sum to take.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.contains(&true)
    }

    fn count(&self) -> usize {
        self.wanted.iter().filter(|&&wanted| wanted).count()
    }

    fn leaf_base(&self) -> usize {
        self.count() * self.chunks.max(1) * self.block
    }

    /// Bytes of workspace.
    pub(super) fn bytes(&self) -> usize {
        4 * (self.leaf_base() + self.leaves)
    }

    /// The ranges of columns that are summed one after the other.
    pub(super) fn blocks(&self, cols: usize) -> Vec<Range<usize>> {
        (0..cols).step_by(self.block.max(1)).map(|at| at..cols.min(at + self.block)).collect()
    }

    /// `base` with the numbers of a block.
    pub(super) fn scalars(&self, cols: &Range<usize>, base: Scalars) -> Scalars {
        let col_groups = cols.len().div_ceil(4 * geometry::columns().group as usize);
        Scalars {
            first_col: cols.start as u32,
            end_col: cols.end as u32,
            chunk_rows: self.chunk_rows as u32,
            chunks: self.chunks as u32,
            partial_cols: self.block as u32,
            col_groups: col_groups as u32,
            leaf_base: self.leaf_base() as u32,
            first_leaf: (cols.start / tree::LEAF) as u32,
            turns: 1,
            ..base
        }
    }

    /// The launches that write a block's partial sums.
    pub(super) fn partials(
        &self,
        problem: &Problem<'_>,
        entry: Entry,
        flags: Flags,
        cols: &Range<usize>,
        scalars: Scalars,
    ) -> Result<Vec<Dispatch>> {
        let flags = Flags { sums: self.wanted, ..flags };
        let parts = problem.split(0..problem.grid.rows, cols, tree::ROW_LEAF)?;
        (parts.into_iter())
            .map(|rows| {
                let first_chunk = rows.start / self.chunk_rows;
                let chunks = rows.end.div_ceil(self.chunk_rows) - first_chunk;
                problem.prepare(Launch {
                    entry,
                    shape: geometry::columns(),
                    flags,
                    groups: chunks * scalars.col_groups as usize,
                    rows,
                    cols: cols.clone(),
                    scalars: Scalars { first_chunk: first_chunk as u32, ..scalars },
                })
            })
            .collect()
    }

    /// The launch that adds the chunks of the `index`-th parameter and writes its gradient, or the columns' sums where
    /// there is no gradient to write.
    pub(super) fn finish(
        &self,
        device: &WgpuDevice,
        grid: &Grid,
        scratch: &View<'_>,
        gradient: Option<Operand<'_>>,
        index: usize,
        cols: &Range<usize>,
    ) -> Result<Dispatch> {
        let partials = Operand::new("partials", Role::Set, Some(scratch), Extent::Whole)?;
        let problem = Problem::new(device, grid, [partials, gradient])?;
        let scalars = Scalars { parameter: self.position(index), ..self.scalars(cols, Scalars::default()) };
        problem.prepare(Launch {
            entry: Entry::Finish,
            shape: geometry::columns(),
            flags: Flags { sums: self.wanted, ..Flags::default() },
            rows: 0..1,
            cols: cols.clone(),
            scalars,
            groups: scalars.col_groups as usize,
        })
    }

    /// The launch that sums a block's column sums of the `index`-th parameter to leaves.
    pub(super) fn leaves(
        &self,
        device: &WgpuDevice,
        row: Shape,
        scratch: &View<'_>,
        index: usize,
        cols: &Range<usize>,
    ) -> Result<Dispatch> {
        let leaves = cols.len().div_ceil(tree::LEAF);
        let grid = plain_grid(leaves, cols.len());
        let partials = Operand::new("partials", Role::Set, Some(scratch), Extent::Whole)?;
        let problem = Problem::new(device, &grid, [partials])?;
        let scalars = Scalars { parameter: self.position(index), ..self.scalars(cols, Scalars::default()) };
        problem.prepare(Launch {
            entry: Entry::Leaves,
            shape: Shape { held: 0, exact: false, ..row },
            flags: Flags::default(),
            rows: 0..leaves,
            cols: 0..cols.len(),
            groups: leaves.div_ceil((row.group / row.threads) as usize),
            scalars,
        })
    }

    /// The launch that adds all leaves and writes the gradient, one element.
    pub(super) fn total(
        &self,
        device: &WgpuDevice,
        scratch: &View<'_>,
        gradient: &View<'_>,
    ) -> Result<Dispatch> {
        let grid = plain_grid(1, 1);
        let walk = Walk {
            outer: smallvec![],
            inner: smallvec![1],
            offset: gradient.layout().offset(),
            contiguous: true,
        };
        let problem = Problem::new(
            device,
            &grid,
            [
                Operand::new("partials", Role::Get, Some(scratch), Extent::Whole)?,
                Operand::new("gradient", Role::Store, Some(gradient), Extent::Row(&walk))?,
            ],
        )?;
        problem.prepare(Launch {
            entry: Entry::Total,
            shape: Shape { reduction: Reduction::Workgroup, group: 1, ..geometry::columns() },
            flags: Flags::default(),
            rows: 0..1,
            cols: 0..1,
            scalars: Scalars {
                leaves: self.leaves as u32,
                leaf_base: self.leaf_base() as u32,
                ..Scalars::default()
            },
            groups: 1,
        })
    }

    /// Where the `index`-th parameter is among those that are summed.
    fn position(&self, index: usize) -> u32 {
        self.wanted[..index].iter().filter(|&&wanted| wanted).count() as u32
    }
}

fn plain_grid(rows: usize, cols: usize) -> Grid {
    Grid { rows, cols, outer: smallvec![rows], inner: smallvec![cols] }
}
