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
}

impl Grid {
    /// Element offset of the first column of `row` in the tensor that `walk` walks.
    pub fn row_offset(&self, walk: &Walk, row: usize) -> isize {
        offset_along(&self.outer, &walk.outer, row) + walk.offset as isize
    }

    /// Offset of column `col` from its row's first column.
    pub fn col_offset(&self, walk: &Walk, col: usize) -> isize {
        offset_along(&self.inner, &walk.inner, col)
    }
}

fn offset_along(sizes: &[usize], strides: &[isize], mut index: usize) -> isize {
    let mut at = 0;
    for (&size, &stride) in sizes.iter().zip(strides).rev() {
        at += (index % size) as isize * stride;
        index /= size;
    }
    at
}

impl Walk {
    /// Whether a row's columns lie side by side.
    pub fn is_contiguous_row(&self) -> bool {
        self.inner.len() == 1 && self.inner[0] == 1
    }
}

/// Folds `shape`, whose last `axes` axes make a row, for tensors of that shape (`full`) and tensors of the row's
/// shape alone (`params`). Neighbouring axes merge where every tensor steps through them evenly. Returns the walks of
/// `full`, then those of `params`.
pub fn fold(
    shape: &[usize],
    axes: usize,
    full: &[&Layout],
    params: &[&Layout],
) -> (Grid, SmallVec<[Walk; 8]>) {
    let split = shape.len() - axes;
    let strides_of = |layout: &Layout, from: usize| SmallVec::from_slice(&layout.strides()[from..]);
    let mut outer_strides: SmallVec<[Dims<isize>; 8]> =
        full.iter().map(|l| SmallVec::from_slice(&l.strides()[..split])).collect();
    let mut inner_strides: SmallVec<[Dims<isize>; 8]> =
        full.iter().map(|l| strides_of(l, split)).chain(params.iter().map(|l| strides_of(l, 0))).collect();
    let outer = merge(&shape[..split], &mut outer_strides);
    let mut inner = merge(&shape[split..], &mut inner_strides);
    if inner.is_empty() {
        // One column: its stride is never taken, and 1 lets it count as contiguous.
        inner.push(1);
        inner_strides.iter_mut().for_each(|s| s.push(1));
    }
    let offsets = full.iter().chain(params).map(|l| l.offset());
    let outers = outer_strides.into_iter().chain(params.iter().map(|_| SmallVec::new()));
    let walks = (outers.zip(inner_strides).zip(offsets))
        .map(|((outer, inner), offset)| Walk { outer, inner, offset })
        .collect();
    (Grid { rows: outer.iter().product(), cols: inner.iter().product(), outer, inner }, walks)
}

/// Drops axes of size 1 and merges neighbours wherever each tensor's strides allow; rewrites `strides` to match.
fn merge(shape: &[usize], strides: &mut [Dims<isize>]) -> Dims {
    let mut sizes = Dims::new();
    let mut merged: SmallVec<[Dims<isize>; 8]> = strides.iter().map(|_| SmallVec::new()).collect();
    for (axis, &size) in shape.iter().enumerate() {
        if size == 1 {
            continue;
        }
        let joins = !sizes.is_empty()
            && strides.iter().zip(&merged).all(|(from, to)| {
                to.last().is_some_and(|&slow| slow == from[axis].wrapping_mul(size as isize))
            });
        if joins {
            *sizes.last_mut().expect("checked above") *= size;
        } else {
            sizes.push(size);
        }
        for (from, to) in strides.iter().zip(&mut merged) {
            if joins {
                to.pop();
            }
            to.push(from[axis]);
        }
    }
    strides.iter_mut().zip(merged).for_each(|(to, from)| *to = from);
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contiguous_tensors_become_a_matrix() {
        let x = Layout::contiguous(&[2, 3, 4, 5]);
        let w = Layout::contiguous(&[4, 5]);
        let (grid, walks) = fold(x.shape(), 2, &[&x], &[&w]);
        assert_eq!((grid.rows, grid.cols), (6, 20));
        assert_eq!((&grid.outer[..], &grid.inner[..]), (&[6][..], &[20][..]));
        assert_eq!((&walks[0].outer[..], &walks[0].inner[..]), (&[20][..], &[1][..]));
        assert!(walks[1].outer.is_empty() && walks[1].is_contiguous_row());
    }

    #[test]
    fn offsets_agree_with_the_layout_for_any_strides() {
        let x = Layout::contiguous(&[4, 3, 5, 2]).transposed(0, 2).unwrap().sliced(1, 0..3, -1).unwrap();
        let y = Layout::contiguous(x.shape());
        let (grid, walks) = fold(x.shape(), 2, &[&x, &y], &[]);
        for (walk, layout) in walks.iter().zip([&x, &y]) {
            for i in 0..layout.len() {
                let (row, col) = (i / grid.cols, i % grid.cols);
                let at = grid.row_offset(walk, row) + grid.col_offset(walk, col);
                assert_eq!(at as usize, layout.offset_of(i));
            }
        }
    }

    #[test]
    fn single_columns_and_empty_outers() {
        let x = Layout::contiguous(&[1]);
        let (grid, walks) = fold(x.shape(), 1, &[&x], &[]);
        assert_eq!((grid.rows, grid.cols, grid.inner.len()), (1, 1, 1));
        assert!(walks[0].is_contiguous_row());
        let (grid, _) = fold(&[0, 3], 1, &[&Layout::contiguous(&[0, 3])], &[]);
        assert_eq!((grid.rows, grid.cols), (0, 3));
    }
}
