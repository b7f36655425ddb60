//! Shapes and strides.

use crate::{Error, Result};
use smallvec::SmallVec;

/// A short list of sizes or strides; up to six live without a heap allocation.
pub type Dims<T = usize> = SmallVec<[T; 6]>;

/// Which element of a memory block each index of a tensor names.
///
/// Element `(i, j, …)` lies at `offset + i * strides[0] + j * strides[1] + …`, in elements. Strides may be zero
/// (expanded axes) or negative.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    shape: Dims,
    strides: Dims<isize>,
    offset: usize,
}

impl Clone for Layout {
    // A copy of numbers, where `SmallVec` would clone them one by one.
    fn clone(&self) -> Self {
        Layout::of_some(&self.shape, &self.strides, self.offset)
    }
}

impl Layout {
    /// Row-major, without gaps, from element 0.
    pub fn contiguous(shape: &[usize]) -> Self {
        let mut strides: Dims<isize> = SmallVec::from_elem(1, shape.len());
        for axis in (1..shape.len()).rev() {
            // A shape that overflows has no memory behind it and is refused where a view is made.
            strides[axis - 1] = strides[axis].wrapping_mul(shape[axis].max(1) as isize);
        }
        Layout { shape: SmallVec::from_slice(shape), strides, offset: 0 }
    }

    /// Any strides, in elements. `offset` is where the element with index zero lies.
    pub fn strided(shape: &[usize], strides: &[isize], offset: usize) -> Result<Self> {
        if shape.len() != strides.len() {
            return Err(Error::argument(
                "strides",
                format!("one per axis of shape {shape:?}"),
                format!("{strides:?}"),
            ));
        }
        let layout =
            Layout { shape: SmallVec::from_slice(shape), strides: SmallVec::from_slice(strides), offset };
        layout.checked_span().map(|_| layout)
    }

    /// Sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Strides of the axes, in elements.
    pub fn strides(&self) -> &[isize] {
        &self.strides
    }

    /// Where the element with index zero lies, in elements.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// The same elements with axes `a` and `b` exchanged.
    pub fn transposed(mut self, a: usize, b: usize) -> Result<Self> {
        for axis in [a, b] {
            self.check_axis(axis)?;
        }
        self.shape.swap(a, b);
        self.strides.swap(a, b);
        Ok(self)
    }

    /// Every `step`-th element of `range` along `axis`; a negative step walks the range backwards.
    pub fn sliced(mut self, axis: usize, range: std::ops::Range<usize>, step: isize) -> Result<Self> {
        self.check_axis(axis)?;
        if range.start > range.end || range.end > self.shape[axis] || step == 0 {
            return Err(Error::argument(
                "range",
                format!("a range within 0..{} and a step other than 0", self.shape[axis]),
                format!("{range:?} by {step}"),
            ));
        }
        let stride = self.strides[axis];
        let first = if step < 0 && !range.is_empty() { range.end - 1 } else { range.start };
        if !range.is_empty() {
            self.offset = (self.offset as isize + stride * first as isize) as usize;
        }
        self.shape[axis] = range.len().div_ceil(step.unsigned_abs());
        self.strides[axis] = stride.saturating_mul(step);
        self.checked_span().map(|_| self)
    }

    /// An axis of size 1 repeated `size` times without memory behind it.
    pub fn expanded(mut self, axis: usize, size: usize) -> Result<Self> {
        self.check_axis(axis)?;
        if self.shape[axis] != 1 {
            return Err(Error::argument("axis", "an axis of size 1", format!("size {}", self.shape[axis])));
        }
        self.shape[axis] = size;
        self.strides[axis] = 0;
        Ok(self)
    }

    /// The same elements in the same row-major order under another shape of as many, without a copy; `None` where the
    /// strides do not allow it. Splitting an axis, and adding or dropping axes of size 1, always works.
    pub fn reshaped(&self, shape: &[usize]) -> Option<Self> {
        if shape == self.shape() {
            return Some(self.clone());
        }
        if shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size))? != self.len() {
            return None;
        }
        if self.is_empty() {
            return Some(Layout { offset: self.offset, ..Layout::contiguous(shape) });
        }
        // Runs of axes that are walked evenly, slowest first: how many elements, and the stride of the last.
        let mut runs: Dims<(usize, isize)> = SmallVec::new();
        for (&size, &stride) in self.shape.iter().zip(&self.strides).filter(|&(&size, _)| size > 1) {
            match runs.last_mut() {
                Some((count, slow)) if *slow == stride.wrapping_mul(size as isize) => {
                    (*count, *slow) = (*count * size, stride);
                }
                _ => runs.push((size, stride)),
            }
        }
        let mut strides: Dims<isize> = SmallVec::from_elem(1, shape.len());
        let (mut left, mut stride) = (1, 1);
        for (axis, &size) in shape.iter().enumerate().rev().filter(|&(_, &size)| size > 1) {
            if left == 1 {
                (left, stride) = runs.pop()?;
            }
            if left % size != 0 {
                return None;
            }
            strides[axis] = stride;
            stride = stride.wrapping_mul(size as isize);
            left /= size;
        }
        Some(Layout { shape: SmallVec::from_slice(shape), strides, offset: self.offset })
    }

    /// Any strides over a shape of which only those indices are used that the caller knows to be inside memory.
    pub(crate) fn of_some(shape: &[usize], strides: &[isize], offset: usize) -> Self {
        Layout { shape: SmallVec::from_slice(shape), strides: SmallVec::from_slice(strides), offset }
    }

    fn check_axis(&self, axis: usize) -> Result<()> {
        if axis < self.rank() {
            return Ok(());
        }
        Err(Error::argument("axis", format!("less than the rank {}", self.rank()), axis))
    }

    /// First and last element offset that an index can name; `None` when there is no element.
    pub(crate) fn checked_span(&self) -> Result<Option<(usize, usize)>> {
        let too_large = || {
            Error::argument(
                "layout",
                "offsets that fit the address space and are not below zero",
                format!("shape {:?}, strides {:?}, offset {}", self.shape, self.strides, self.offset),
            )
        };
        let count = self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)));
        if count.is_none_or(|n| n > isize::MAX as usize / 8) {
            return Err(too_large());
        }
        if self.is_empty() {
            return Ok(None);
        }
        let span = || {
            let (mut low, mut high) = (self.offset, self.offset);
            for (&size, &stride) in self.shape.iter().zip(&self.strides) {
                let reach = stride.unsigned_abs().checked_mul(size - 1)?;
                if stride < 0 {
                    low = low.checked_sub(reach)?;
                } else {
                    high = high.checked_add(reach)?;
                }
            }
            (high <= isize::MAX as usize / 8).then_some((low, high))
        };
        span().map(Some).ok_or_else(too_large)
    }

    /// First and last element offset; only for layouts that a constructor has checked.
    pub(crate) fn span(&self) -> Option<(usize, usize)> {
        self.checked_span().ok().flatten()
    }

    /// Whether no two indices name the same element. Conservative: an answer of `true` is certain.
    pub(crate) fn is_injective(&self) -> bool {
        if self.is_empty() {
            return true;
        }
        let mut axes: Dims<(usize, usize)> = (self.shape.iter().zip(&self.strides))
            .filter(|&(&size, _)| size > 1)
            .map(|(&size, &stride)| (stride.unsigned_abs(), size))
            .collect();
        axes.sort_unstable();
        let mut reach = 0usize;
        for (stride, size) in axes {
            if stride <= reach {
                return false;
            }
            reach += stride * (size - 1);
        }
        true
    }

    /// Offset of the `index`-th element in row-major order.
    pub fn offset_of(&self, mut index: usize) -> usize {
        let mut at = self.offset as isize;
        for (&size, &stride) in self.shape.iter().zip(&self.strides).rev() {
            at += (index % size.max(1)) as isize * stride;
            index /= size.max(1);
        }
        at as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contiguous_and_slices() {
        let l = Layout::contiguous(&[2, 3, 4]);
        assert_eq!(l.strides(), [12, 4, 1]);
        assert_eq!(l.offset_of(23), 23);
        let s = l.clone().sliced(2, 1..4, -1).unwrap();
        assert_eq!((s.shape(), s.strides(), s.offset()), (&[2, 3, 3][..], &[12, 4, -1][..], 3));
        assert_eq!(s.span(), Some((1, 23)));
        assert_eq!(l.clone().transposed(0, 2).unwrap().strides(), [1, 4, 12]);
        assert!(l.clone().sliced(2, 0..5, 1).is_err());
        assert!(l.transposed(0, 3).is_err());
    }

    #[test]
    fn refuses_what_reaches_below_zero_or_overflows() {
        assert!(Layout::strided(&[3], &[-1], 1).is_err());
        assert!(Layout::strided(&[3], &[-1], 2).is_ok());
        assert!(Layout::strided(&[usize::MAX, 2], &[1, 1], 0).is_err());
        assert!(Layout::strided(&[2], &[isize::MAX], 0).is_err());
        assert!(Layout::strided(&[2, 2], &[1], 0).is_err());
    }

    #[test]
    fn reshapes_without_a_copy_where_strides_allow() {
        let l = Layout::contiguous(&[2, 6, 5]);
        assert_eq!(l.reshaped(&[2, 2, 3, 5]).unwrap().strides(), [30, 15, 5, 1]);
        assert_eq!(l.reshaped(&[60]).unwrap().strides(), [1]);
        assert_eq!(l.reshaped(&[4, 15]).unwrap().strides(), [15, 1]);
        assert!(l.reshaped(&[7]).is_none());
        let t = l.transposed(0, 2).unwrap();
        assert_eq!(t.reshaped(&[5, 3, 2, 1, 2]).unwrap().strides(), [1, 10, 5, 1, 30]);
        assert!(t.reshaped(&[30, 2]).is_none());
        let expanded = Layout::strided(&[4, 6], &[0, 1], 2).unwrap().reshaped(&[2, 2, 6]).unwrap();
        assert_eq!((expanded.strides(), expanded.offset()), (&[0, 0, 1][..], 2));
        assert_eq!(Layout::contiguous(&[1, 1]).reshaped(&[]).unwrap().len(), 1);
        assert!(Layout::contiguous(&[0, 3]).reshaped(&[3, 0, 2]).is_some());
    }

    #[test]
    fn injectivity() {
        assert!(Layout::contiguous(&[2, 3]).is_injective());
        assert!(!Layout::contiguous(&[1, 3]).expanded(0, 2).unwrap().is_injective());
        assert!(!Layout::strided(&[3, 3], &[2, 1], 0).unwrap().is_injective());
        assert!(Layout::strided(&[3, 3], &[1, 3], 0).unwrap().is_injective());
    }
}
