//! Any tensor as rows and columns.

use crate::tensor::{Dims, Layout};
use smallvec::SmallVec;

/// The index space of a problem: `rows` rows of `cols` columns, each made of as few axes as the strides allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grid {
    /// Number of rows: the product of `outer`.
    pub rows: usize,
    /// Number of columns: the product of `inner`.
    pub cols: usize,
    /// Sizes of the axes that count rows, slowest first. Empty for a single row.
    pub outer: Dims,
    /// Sizes of the axes that make a row, slowest first. At least one.
    pub inner: Dims,
}

/// How one tensor is walked over a [`Grid`]: strides in elements, and where index zero lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk {
    /// Strides along [`Grid::outer`].
    pub outer: Dims<isize>,
    /// Strides along [`Grid::inner`].
    pub inner: Dims<isize>,
    /// Offset of the first element, in elements.
    pub offset: usize,
    /// Whether a row's columns lie side by side, even where `inner` has several axes for the sake of other tensors.
    pub contiguous: bool,
}

impl Grid {
    /// Rows that follow each other along the fastest axis that counts rows.
    pub fn adjacent(&self) -> usize {
        self.outer.last().copied().unwrap_or(1)
    }

    /// Element offset of the first column of `row` in the tensor that `walk` walks.
    pub fn row_offset(&self, walk: &Walk, row: usize) -> isize {
        offset_along(&self.outer, &walk.outer, row) + walk.offset as isize
    }

    /// Offset of column `col` from its row's first column.
    pub fn col_offset(&self, walk: &Walk, col: usize) -> isize {
        offset_along(&self.inner, &walk.inner, col)
    }
}

#[inline(always)]
fn offset_along(sizes: &[usize], strides: &[isize], mut index: usize) -> isize {
    // Most tensors fold to one axis, and a division costs as much as some ten elements.
    if let ([_], [stride]) = (sizes, strides) {
        return index as isize * stride;
    }
    let mut at = 0;
    for (&size, &stride) in sizes.iter().zip(strides).rev() {
        at += (index % size) as isize * stride;
        index /= size;
    }
    at
}

/// The offsets of rows, most of which follow each other: what a division would give each time is then an addition.
#[derive(Debug, Clone)]
pub(crate) struct RowOffsets<'a> {
    sizes: &'a [usize],
    strides: &'a [isize],
    first: isize,
    /// Of the row that was asked for last: its number, its index along each axis, and its offset.
    row: usize,
    index: Dims,
    at: isize,
}

impl<'a> RowOffsets<'a> {
    pub(crate) fn new(grid: &'a Grid, walk: &'a Walk) -> Self {
        let first = walk.offset as isize;
        let index = Dims::from_elem(0, grid.outer.len());
        RowOffsets { sizes: &grid.outer, strides: &walk.outer, first, row: 0, index, at: first }
    }

    /// The element offset of the first column of `row`.
    #[inline(always)]
    pub(crate) fn of(&mut self, row: usize) -> isize {
        if let [stride] = self.strides {
            return self.first + row as isize * stride;
        }
        if row != self.row {
            self.go(row);
        }
        self.at
    }

    fn go(&mut self, row: usize) {
        let is_next = row == self.row + 1;
        self.row = row;
        if !is_next {
            let mut rest = row;
            for (index, &size) in self.index.iter_mut().zip(self.sizes).rev() {
                (*index, rest) = (rest % size, rest / size);
            }
            let steps = self.index.iter().zip(self.strides).map(|(&index, stride)| index as isize * stride);
            self.at = self.first + steps.sum::<isize>();
            return;
        }
        for ((index, &size), &stride) in self.index.iter_mut().zip(self.sizes).zip(self.strides).rev() {
            *index += 1;
            self.at += stride;
            if *index < size {
                return;
            }
            *index = 0;
            self.at -= size as isize * stride;
        }
    }
}

impl Walk {
    /// Whether every row has the same elements.
    pub fn is_shared_by_rows(&self) -> bool {
        self.outer.iter().all(|&stride| stride == 0)
    }

    /// Whether a row is one element over and over.
    pub fn is_constant_in_row(&self) -> bool {
        self.inner.iter().all(|&stride| stride == 0)
    }
}

/// Folds `shape`, whose axes `reduced` (ascending) make a row, for tensors of that shape. Neighbouring axes merge where
/// every tensor steps through them evenly.
pub fn fold(shape: &[usize], reduced: &[usize], tensors: &[&Layout]) -> (Grid, SmallVec<[Walk; 8]>) {
    let (row, kept): (Dims, Dims) = (0..shape.len()).partition(|axis| reduced.contains(axis));
    fold_in_order(shape, (&kept, &row), tensors)
}

/// The same for axes in any order: those that count rows, and those that make a row.
pub(crate) fn fold_in_order(
    shape: &[usize],
    (kept, row): (&[usize], &[usize]),
    tensors: &[&Layout],
) -> (Grid, SmallVec<[Walk; 8]>) {
    let walk = |tensor: &&Layout| Walk {
        outer: Dims::new(),
        inner: Dims::new(),
        offset: tensor.offset(),
        contiguous: false,
    };
    let mut walks: SmallVec<[Walk; 8]> = tensors.iter().map(walk).collect();
    let outer = merge(shape, kept, tensors, &mut walks, |walk| &mut walk.outer);
    let mut inner = merge(shape, row, tensors, &mut walks, |walk| &mut walk.inner);
    if inner.is_empty() {
        // One column: its stride is never taken, and 1 lets it count as contiguous.
        inner.push(1);
        walks.iter_mut().for_each(|walk| walk.inner.push(1));
    }
    for walk in &mut walks {
        walk.contiguous = lies_side_by_side(&inner, &walk.inner);
    }
    (Grid { rows: outer.iter().product(), cols: inner.iter().product(), outer, inner }, walks)
}

/// Whether consecutive indices name consecutive elements.
fn lies_side_by_side(sizes: &[usize], strides: &[isize]) -> bool {
    let mut step = 1isize;
    sizes.iter().zip(strides).rev().all(|(&size, &stride)| {
        let fits = stride == step || size == 1;
        step = step.wrapping_mul(size as isize);
        fits
    })
}

/// Drops those of `axes` that have size 1 and merges neighbours wherever each tensor's strides allow. Returns the sizes, and
/// puts the strides where `part` says.
fn merge(
    shape: &[usize],
    axes: &[usize],
    tensors: &[&Layout],
    walks: &mut [Walk],
    part: impl Fn(&mut Walk) -> &mut Dims<isize>,
) -> Dims {
    let mut sizes = Dims::new();
    for &axis in axes {
        let size = shape[axis];
        if size == 1 {
            continue;
        }
        let joins = !sizes.is_empty()
            && tensors.iter().zip(&mut *walks).all(|(tensor, walk)| {
                let slow = tensor.strides()[axis].wrapping_mul(size as isize);
                part(walk).last() == Some(&slow)
            });
        if joins {
            *sizes.last_mut().expect("checked above") *= size;
        } else {
            sizes.push(size);
        }
        for (tensor, walk) in tensors.iter().zip(&mut *walks) {
            let strides = part(walk);
            if joins {
                strides.pop();
            }
            strides.push(tensor.strides()[axis]);
        }
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contiguous_tensors_become_a_matrix() {
        let x = Layout::contiguous(&[2, 3, 4, 5]);
        let w = Layout::strided(&[2, 3, 4, 5], &[0, 0, 5, 1], 0).unwrap();
        let (grid, walks) = fold(x.shape(), &[2, 3], &[&x, &w]);
        assert_eq!((grid.rows, grid.cols), (6, 20));
        assert_eq!((&grid.outer[..], &grid.inner[..]), (&[6][..], &[20][..]));
        assert_eq!((&walks[0].outer[..], &walks[0].inner[..]), (&[20][..], &[1][..]));
        assert!(walks[1].is_shared_by_rows() && walks[1].contiguous);
    }

    #[test]
    fn a_weight_per_channel_splits_the_row_but_not_its_contiguity() {
        // [N, groups, channels of a group, positions], statistics per group, a weight per channel.
        let x = Layout::contiguous(&[2, 3, 4, 5]);
        let w = Layout::strided(&[2, 3, 4, 5], &[0, 4, 1, 0], 0).unwrap();
        let (grid, walks) = fold(x.shape(), &[2, 3], &[&x, &w]);
        assert_eq!((&grid.outer[..], &grid.inner[..]), (&[2, 3][..], &[4, 5][..]));
        assert!(walks[0].contiguous && !walks[1].contiguous && !walks[1].is_shared_by_rows());
    }

    #[test]
    fn offsets_agree_with_the_layout_for_any_axes_and_strides() {
        let x = Layout::contiguous(&[4, 3, 5, 2]).transposed(0, 2).unwrap().sliced(1, 0..3, -1).unwrap();
        let y = Layout::contiguous(x.shape());
        let shape = x.shape();
        for reduced in [&[2, 3][..], &[0, 2], &[1], &[], &[0, 1, 2, 3]] {
            let (grid, walks) = fold(shape, reduced, &[&x, &y]);
            for (walk, layout) in walks.iter().zip([&x, &y]) {
                let mut seen: Vec<usize> = (0..grid.rows * grid.cols)
                    .map(|i| grid.row_offset(walk, i / grid.cols) + grid.col_offset(walk, i % grid.cols))
                    .map(|at| at as usize)
                    .collect();
                if reduced == [2, 3] {
                    assert!(seen.iter().enumerate().all(|(i, &at)| at == layout.offset_of(i)));
                }
                let mut offsets = RowOffsets::new(&grid, walk);
                for row in (0..grid.rows).chain((0..grid.rows).rev().step_by(3)).chain(0..grid.rows) {
                    assert_eq!(offsets.of(row), grid.row_offset(walk, row), "row {row}");
                }
                seen.sort_unstable();
                let mut all: Vec<usize> = (0..layout.len()).map(|i| layout.offset_of(i)).collect();
                all.sort_unstable();
                assert_eq!(seen, all);
            }
        }
    }

    #[test]
    fn single_columns_and_empty_outers() {
        let x = Layout::contiguous(&[1]);
        let (grid, walks) = fold(x.shape(), &[0], &[&x]);
        assert_eq!((grid.rows, grid.cols, grid.inner.len()), (1, 1, 1));
        assert!(walks[0].contiguous);
        let (grid, _) = fold(&[0, 3], &[1], &[&Layout::contiguous(&[0, 3])]);
        assert_eq!((grid.rows, grid.cols), (0, 3));
    }
}
