//! Ways for a tensor to lie in memory.

use crate::Result;
use crate::tensor::Layout;

/// How the operands of a case lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Row-major and aligned to 64 bytes.
    Contiguous,
    /// Row-major, this many elements off that alignment.
    Offset(usize),
    /// Rows are contiguous but three elements apart, at an odd offset.
    Padded,
    /// Column-major: the axes lie in reverse order.
    Transposed,
    /// Every second element of the last axis, every row but the first and last of a larger tensor, at an odd offset.
    Sliced,
    /// Axis 1 innermost, the others in their order: channels-last images, at an odd offset.
    ChannelsLast,
    /// Every axis backwards.
    Reversed,
    /// The first axis of input and output gradient, and all axes of the parameters, are repeated without memory
    /// behind them. What is written lies as in `Padded`.
    Expanded,
}

impl Placement {
    /// One of each.
    pub const ALL: [Placement; 9] = [
        Placement::Contiguous,
        Placement::Offset(1),
        Placement::Offset(7),
        Placement::Padded,
        Placement::Transposed,
        Placement::Sliced,
        Placement::ChannelsLast,
        Placement::Reversed,
        Placement::Expanded,
    ];

    /// A layout of `shape` that begins some elements into its memory, and how many elements that memory has.
    /// `written` says that no element may be named twice; `parameter` that the tensor is a parameter.
    pub(super) fn layout(self, shape: &[usize], written: bool, parameter: bool) -> Result<(Layout, usize)> {
        let rank = shape.len();
        let mut strides = Layout::contiguous(shape).strides().to_vec();
        let mut guard = 3;
        match self {
            Placement::Contiguous => guard = 32,
            Placement::Offset(offset) => guard = 32 + offset,
            Placement::Expanded if !written => {
                let repeated = if parameter { rank } else { rank.min(1) };
                strides[..repeated].fill(0);
                pad(shape, &mut strides[repeated..], repeated);
            }
            Placement::Padded | Placement::Expanded => pad(shape, &mut strides, 0),
            Placement::Transposed => {
                let reversed: Vec<usize> = shape.iter().rev().copied().collect();
                strides = Layout::contiguous(&reversed).strides().iter().rev().copied().collect();
            }
            Placement::ChannelsLast if rank > 1 => {
                let mut order: Vec<usize> = (0..rank).filter(|&axis| axis != 1).collect();
                order.push(1);
                let sizes: Vec<usize> = order.iter().map(|&axis| shape[axis]).collect();
                let inner = Layout::contiguous(&sizes);
                order.iter().zip(inner.strides()).for_each(|(&axis, &stride)| strides[axis] = stride);
            }
            Placement::ChannelsLast => {}
            Placement::Sliced => {
                let larger: Vec<usize> = (shape.iter().enumerate())
                    .map(|(axis, &size)| if axis + 1 == rank { 2 * size + 1 } else { size + 2 })
                    .collect();
                strides = Layout::contiguous(&larger).strides().to_vec();
                if let Some(last) = strides.last_mut() {
                    *last = 2;
                }
            }
            Placement::Reversed => strides.iter_mut().for_each(|stride| *stride = -*stride),
        }
        let reach = |wanted: fn(isize) -> bool| -> usize {
            (shape.iter().zip(&strides))
                .filter(|&(_, &stride)| wanted(stride))
                .map(|(&size, &stride)| size.saturating_sub(1) * stride.unsigned_abs())
                .sum()
        };
        let (below, above) = (reach(|stride| stride < 0), reach(|stride| stride > 0));
        let layout = Layout::strided(shape, &strides, guard + below)?;
        Ok((layout, guard + below + above + 1 + guard))
    }
}

/// Strides of the axes of `shape` from `first` on, with three elements between rows.
fn pad(shape: &[usize], strides: &mut [isize], first: usize) {
    let mut step = 1;
    for axis in (first..shape.len()).rev() {
        strides[axis - first] = step as isize;
        step = step * shape[axis].max(1) + if axis + 1 == shape.len() { 3 } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_inside_and_outputs_are_injective() {
        for placement in Placement::ALL {
            for shape in [&[2, 3, 4][..], &[1, 5], &[7], &[0, 3], &[2, 1, 1, 3], &[]] {
                for (written, parameter) in [(true, false), (true, true), (false, false), (false, true)] {
                    let (layout, elements) = placement.layout(shape, written, parameter).unwrap();
                    assert_eq!(layout.shape(), shape);
                    assert!((0..layout.len()).all(|i| (1..elements).contains(&layout.offset_of(i))));
                    assert!(!written || layout.is_injective(), "{placement:?} {shape:?}");
                }
            }
        }
    }

    #[test]
    fn names_are_kept() {
        let strides = |p: Placement| p.layout(&[4, 5], true, false).unwrap().0.strides().to_vec();
        assert_eq!(strides(Placement::Padded), [8, 1]);
        assert_eq!(strides(Placement::Transposed), [1, 4]);
        assert_eq!(strides(Placement::Sliced), [11, 2]);
        let image = Placement::ChannelsLast.layout(&[2, 3, 4, 5], true, false).unwrap().0;
        assert_eq!(image.strides(), [60, 1, 15, 3]);
        assert_eq!(strides(Placement::Reversed), [-5, -1]);
        assert_eq!(Placement::Expanded.layout(&[4, 5], false, false).unwrap().0.strides(), [0, 1]);
    }
}
