//! Whether two views share memory.

use super::memory::Memory;
use super::{Layout, View};

/// Where two tensors stand to each other in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overlap {
    /// No element is shared.
    None,
    /// Exactly the same elements at the same indices.
    Same,
    /// Some elements are shared, or it cannot be told.
    Some,
}

/// First byte of the view's memory and the identity of the block it is in.
fn place(view: &View<'_>) -> (usize, i128) {
    match &view.memory {
        Memory::Host(at, _) => (0, *at as i128),
        #[cfg(feature = "wgpu")]
        Memory::Wgpu(range) => range.place(),
        #[cfg(feature = "cuda")]
        Memory::Cuda(range) => range.place(),
    }
}

/// How `a` and `b` overlap.
pub(crate) fn overlap(a: &View<'_>, b: &View<'_>) -> Overlap {
    let (Some(span_a), Some(span_b)) = (a.layout().span(), b.layout().span()) else { return Overlap::None };
    let ((block_a, start_a), (block_b, start_b)) = (place(a), place(b));
    let bytes = |start: i128, (low, high): (usize, usize), size: usize| {
        (start + (low * size) as i128, start + ((high + 1) * size) as i128)
    };
    let (size_a, size_b) = (a.dtype().size(), b.dtype().size());
    let (low_a, high_a) = bytes(start_a, span_a, size_a);
    let (low_b, high_b) = bytes(start_b, span_b, size_b);
    if block_a != block_b || high_a <= low_b || high_b <= low_a {
        return Overlap::None;
    }
    let first = |start: i128, layout: &Layout, size: usize| start + (layout.offset() * size) as i128;
    let same = a.dtype() == b.dtype()
        && a.shape() == b.shape()
        && a.layout().strides() == b.layout().strides()
        && first(start_a, a.layout(), size_a) == first(start_b, b.layout(), size_b);
    if same {
        return Overlap::Same;
    }
    if interleaved(a, low_a, b, low_b) { Overlap::None } else { Overlap::Some }
}

/// Whether the two lie side by side within some common period, as the columns of one matrix do, or the queries and keys
/// of a packed tensor. Seen from their lowest bytes, the elements of a view lie within a lane that its strides below the
/// period span, repeated by those that are multiples of it.
fn interleaved(a: &View<'_>, low_a: i128, b: &View<'_>, low_b: i128) -> bool {
    let strides = |view: &View<'_>| -> Vec<(i128, i128)> {
        let size = view.dtype().size() as i128;
        let axes = view.shape().iter().zip(view.layout().strides());
        axes.filter(|&(&n, _)| n > 1)
            .map(|(&n, s)| (n as i128 - 1, s.unsigned_abs() as i128 * size))
            .collect()
    };
    let (strides_a, strides_b) = (strides(a), strides(b));
    let lane = |strides: &[(i128, i128)], period: i128, size: usize| -> Option<i128> {
        let (within, across): (Vec<_>, Vec<_>) = strides.iter().partition(|(_, stride)| *stride < period);
        let repeats = across.iter().all(|(_, stride)| stride % period == 0);
        repeats.then(|| within.iter().map(|(steps, stride)| steps * stride).sum::<i128>() + size as i128)
    };
    strides_a.iter().map(|&(_, stride)| stride).filter(|&period| period > 0).any(|period| {
        let lanes = (lane(&strides_a, period, a.dtype().size()), lane(&strides_b, period, b.dtype().size()));
        let (Some(width_a), Some(width_b)) = lanes else { return false };
        // Distance from a's lane to b's, around the period: both lanes must fit without touching.
        let ahead = (low_b - low_a).rem_euclid(period);
        ahead >= width_a && ahead + width_b <= period
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_are_told_apart() {
        let data = [0f32; 24];
        let at = |shape: &[usize], strides: &[isize], offset| {
            View::strided(&data, Layout::strided(shape, strides, offset).unwrap()).unwrap()
        };
        let left = at(&[4, 3], &[6, 1], 0);
        assert_eq!(overlap(&left, &at(&[4, 3], &[6, 1], 3)), Overlap::None);
        assert_eq!(overlap(&left, &at(&[4, 3], &[6, 1], 0)), Overlap::Same);
        assert_eq!(overlap(&left, &at(&[4, 3], &[6, 1], 2)), Overlap::Some);
        assert_eq!(overlap(&left, &at(&[3, 4], &[4, 1], 0)), Overlap::Some);
        assert_eq!(overlap(&at(&[2, 3], &[3, 1], 0), &at(&[2, 3], &[3, 1], 6)), Overlap::None);
        // Two and one of three heads of two numbers, in a packed tensor of two by two.
        let (two, one) =
            (at(&[2, 2, 2, 2], &[12, 6, 2, 1], 0), |offset| at(&[2, 2, 1, 2], &[12, 6, 2, 1], offset));
        assert_eq!((overlap(&two, &one(4)), overlap(&one(4), &two)), (Overlap::None, Overlap::None));
        assert_eq!((overlap(&two, &one(3)), overlap(&one(2), &two)), (Overlap::Some, Overlap::Some));
    }
}
