//! Where the elements of a spec's rows lie, and which parameter each has.

use crate::spec::Spec;

/// A number for each element of a grid of rows and columns: the sum of one number of its row and one of its column,
/// as every index that is linear in the axes is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    of_row: Vec<usize>,
    of_col: Vec<usize>,
}

impl Index {
    /// The element's place in a row-major tensor of the spec's shape.
    pub fn of_elements(spec: &Spec) -> Self {
        let axes: Vec<usize> = (0..spec.shape().len()).collect();
        Index::along(spec, &axes)
    }

    /// Which of the elements of weight and bias, in row-major order, belongs to it.
    pub fn of_parameters(spec: &Spec) -> Self {
        Index::along(spec, &spec.affine().axes)
    }

    /// The row-major index of the coordinates along `axes`.
    fn along(spec: &Spec, axes: &[usize]) -> Self {
        let shape = spec.shape();
        let mut strides = vec![0; shape.len()];
        axes.iter().rev().fold(1, |stride, &axis| {
            strides[axis] = stride;
            stride * shape[axis]
        });
        let offsets = |axes: &[usize]| {
            axes.iter().fold(vec![0], |so_far, &axis| {
                let steps = |at: usize| (0..shape[axis]).map(move |step| (at, step));
                so_far.into_iter().flat_map(steps).map(|(at, step)| at + step * strides[axis]).collect()
            })
        };
        let is_kept = |axis: &usize| !spec.row_axes().contains(axis);
        let kept: Vec<usize> = (0..shape.len()).filter(is_kept).collect();
        Index { of_row: offsets(&kept), of_col: offsets(spec.row_axes()) }
    }

    /// The number of the element in row `row` and column `col`.
    pub fn at(&self, (row, col): (usize, usize)) -> usize {
        self.of_row[row] + self.of_col[col]
    }

    /// All rows and columns, row by row.
    pub fn grid(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (rows, cols) = self.dim();
        (0..rows).flat_map(move |row| (0..cols).map(move |col| (row, col)))
    }

    /// Each number there is, with the first row and column of an element that has it.
    pub fn firsts(&self) -> Vec<(usize, (usize, usize))> {
        let distinct = |of: &[usize]| {
            let mut seen = std::collections::HashSet::new();
            let first = |&(_, number): &(usize, usize)| seen.insert(number);
            of.iter().copied().enumerate().filter(first).collect::<Vec<_>>()
        };
        let (rows, cols) = (distinct(&self.of_row), distinct(&self.of_col));
        let at = |&(row, of_row): &(usize, usize)| {
            cols.iter().map(move |&(col, of_col)| (of_row + of_col, (row, col))).collect::<Vec<_>>()
        };
        rows.iter().flat_map(at).collect()
    }

    /// Number of rows and of columns.
    pub fn dim(&self) -> (usize, usize) {
        (self.of_row.len(), self.of_col.len())
    }
}

/// Number of different elements that a weight or bias of the spec has.
pub fn parameters(spec: &Spec) -> usize {
    spec.affine().axes.iter().map(|&axis| spec.shape()[axis]).product()
}

#[cfg(test)]
mod tests {
    use super::super::tests::moments;
    use super::*;

    #[test]
    fn batch_norms_rows_are_channels() {
        // [N, C, L] with statistics over samples and positions, a weight per channel.
        let spec = moments(&[2, 3, 4], &[0, 2], &[1]);
        let (elements, weights) = (Index::of_elements(&spec), Index::of_parameters(&spec));
        assert_eq!((elements.dim(), parameters(&spec)), ((3, 8), 3));
        // Channel 1: positions 0 to 3 of the first sample, then those of the second.
        let row: Vec<usize> = (0..8).map(|col| elements.at((1, col))).collect();
        assert_eq!(row, [4, 5, 6, 7, 16, 17, 18, 19]);
        assert!((0..8).all(|col| weights.at((1, col)) == 1));
    }

    #[test]
    fn a_weight_may_vary_along_rows_and_columns() {
        let spec = moments(&[2, 3, 4], &[2], &[0, 2]);
        let weights = Index::of_parameters(&spec);
        // Row 4 is sample 1, channel 1; row 3 is that sample's first.
        assert_eq!(weights.at((4, 3)), 4 + 3);
        let firsts = weights.firsts();
        assert_eq!((firsts.len(), firsts[7]), (8, (7, (3, 3))));
        assert_eq!(parameters(&moments(&[2, 3], &[1], &[])), 1);
    }

    #[test]
    fn empty_axes_have_no_elements() {
        assert_eq!(Index::of_elements(&moments(&[0, 3], &[1], &[1])).dim(), (0, 3));
    }
}
