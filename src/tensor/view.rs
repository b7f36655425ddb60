//! Borrowed memory with a dtype and a layout.

use super::{DType, Element, Layout};
use crate::{Device, Error, Result};
use std::marker::PhantomData;

/// Memory that a [`View`] reads: where it is, not how it is laid out.
#[derive(Clone)]
pub(crate) enum Memory<'a> {
    /// The first byte of a block on the host, valid for reads during `'a`.
    Host(*const u8, PhantomData<&'a [u8]>),
    /// A range of a GPU buffer, in bytes.
    #[cfg(feature = "wgpu")]
    Wgpu(crate::backend::wgpu::BufferRange),
}

/// Memory that a [`ViewMut`] writes.
pub(crate) enum MemoryMut<'a> {
    /// The first byte of a block on the host, valid for reads and writes by nobody else during `'a`.
    Host(*mut u8, PhantomData<&'a mut [u8]>),
    /// A range of a GPU buffer, in bytes. The device orders accesses, so no exclusive borrow is needed.
    #[cfg(feature = "wgpu")]
    Wgpu(crate::backend::wgpu::BufferRange),
}

// SAFETY: a view is a shared borrow of plain numbers, as `&[T]` is; wgpu's handles are Send and Sync themselves.
unsafe impl Send for Memory<'_> {}
// SAFETY: as above; nothing behind the pointer is written through a `Memory`.
unsafe impl Sync for Memory<'_> {}
// SAFETY: a `MemoryMut` is an exclusive borrow of plain numbers, as `&mut [T]` is.
unsafe impl Send for MemoryMut<'_> {}
// SAFETY: writing through a `MemoryMut` takes `&mut` or a launch that has checked that its operands are apart.
unsafe impl Sync for MemoryMut<'_> {}

/// A tensor to read: memory on some device, a dtype and a layout. Every index of the layout is inside the memory.
#[derive(Clone)]
pub struct View<'a> {
    pub(crate) memory: Memory<'a>,
    dtype: DType,
    layout: Layout,
}

/// A tensor to write.
pub struct ViewMut<'a> {
    pub(crate) memory: MemoryMut<'a>,
    dtype: DType,
    layout: Layout,
}

/// Refuses a layout that reaches past `elements` elements.
fn check_bounds(layout: &Layout, elements: usize) -> Result<()> {
    match layout.checked_span()? {
        Some((_, last)) if last >= elements => Err(Error::argument(
            "memory",
            format!(
                "at least {} elements for shape {:?}, strides {:?}, offset {}",
                last + 1,
                layout.shape(),
                layout.strides(),
                layout.offset()
            ),
            format!("{elements} elements"),
        )),
        _ => Ok(()),
    }
}

/// Refuses a slice that is not exactly as long as the shape says.
fn check_exact(shape: &[usize], elements: usize) -> Result<Layout> {
    let layout = Layout::contiguous(shape);
    layout.checked_span()?;
    if layout.len() != elements {
        return Err(Error::argument(
            "shape",
            format!("a shape of {elements} elements, as the slice has"),
            format!("{shape:?}"),
        ));
    }
    Ok(layout)
}

impl<'a> View<'a> {
    /// A row-major tensor over all of `data`.
    pub fn from_slice<T: Element>(data: &'a [T], shape: &[usize]) -> Result<Self> {
        check_exact(shape, data.len()).and_then(|layout| View::strided(data, layout))
    }

    /// Any layout over `data`.
    pub fn strided<T: Element>(data: &'a [T], layout: Layout) -> Result<Self> {
        check_bounds(&layout, data.len())?;
        Ok(View { memory: Memory::Host(data.as_ptr().cast(), PhantomData), dtype: T::DTYPE, layout })
    }

    /// An ndarray view, with its strides.
    #[cfg(feature = "ndarray")]
    pub fn from_ndarray<T: Element, D: ndarray::Dimension>(
        array: ndarray::ArrayView<'a, T, D>,
    ) -> Result<Self> {
        let (low, layout) = ndarray_layout(array.shape(), array.strides())?;
        let low = if array.is_empty() { 0 } else { low };
        // SAFETY: `as_ptr` names the element with index zero and `low` is how far the strides reach below it, so the
        // block starts at an element of the array; where there is none, nothing is subtracted.
        let first = unsafe { array.as_ptr().sub(low) };
        Ok(View { memory: Memory::Host(first.cast(), PhantomData), dtype: T::DTYPE, layout })
    }

    /// A range of a GPU buffer. `range` is in bytes and starts at a multiple of the dtype's size.
    #[cfg(feature = "wgpu")]
    pub fn from_buffer(
        device: &crate::backend::wgpu::WgpuDevice,
        buffer: &'a wgpu::Buffer,
        range: std::ops::Range<u64>,
        dtype: DType,
        layout: Layout,
    ) -> Result<Self> {
        let memory = crate::backend::wgpu::BufferRange::new(device, buffer, range, dtype)?;
        check_bounds(&layout, memory.size() as usize / dtype.size())?;
        Ok(View { memory: Memory::Wgpu(memory), dtype, layout })
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Shape and strides.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        self.layout.shape()
    }

    /// The device that owns the memory.
    pub fn device(&self) -> Device {
        match &self.memory {
            Memory::Host(..) => Device::Cpu,
            #[cfg(feature = "wgpu")]
            Memory::Wgpu(range) => Device::Wgpu(range.device().clone()),
        }
    }

    /// The same memory under another layout, which must stay within the old one's reach.
    pub fn with_layout(mut self, layout: Layout) -> Result<Self> {
        check_bounds(&layout, self.layout.span().map_or(0, |(_, last)| last + 1))?;
        self.layout = layout;
        Ok(self)
    }

    /// The same memory under a layout that the caller knows to be inside it: that of the parameter which this view repeats
    /// over an input. Where the input has no elements the view names none, and cannot tell.
    #[cfg(feature = "wgpu")]
    pub(crate) fn with_own_layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }
}

impl<'a> ViewMut<'a> {
    /// A row-major tensor over all of `data`.
    pub fn from_slice<T: Element>(data: &'a mut [T], shape: &[usize]) -> Result<Self> {
        check_exact(shape, data.len()).and_then(|layout| ViewMut::strided(data, layout))
    }

    /// Any layout over `data`.
    pub fn strided<T: Element>(data: &'a mut [T], layout: Layout) -> Result<Self> {
        check_bounds(&layout, data.len())?;
        Ok(ViewMut {
            memory: MemoryMut::Host(data.as_mut_ptr().cast(), PhantomData),
            dtype: T::DTYPE,
            layout,
        })
    }

    /// An ndarray view, with its strides.
    #[cfg(feature = "ndarray")]
    pub fn from_ndarray<T: Element, D: ndarray::Dimension>(
        mut array: ndarray::ArrayViewMut<'a, T, D>,
    ) -> Result<Self> {
        let (low, layout) = ndarray_layout(array.shape(), array.strides())?;
        let low = if array.is_empty() { 0 } else { low };
        // SAFETY: as in `View::from_ndarray`.
        let first = unsafe { array.as_mut_ptr().sub(low) };
        Ok(ViewMut { memory: MemoryMut::Host(first.cast(), PhantomData), dtype: T::DTYPE, layout })
    }

    /// A range of a GPU buffer. `range` is in bytes and starts at a multiple of the dtype's size.
    #[cfg(feature = "wgpu")]
    pub fn from_buffer(
        device: &crate::backend::wgpu::WgpuDevice,
        buffer: &'a wgpu::Buffer,
        range: std::ops::Range<u64>,
        dtype: DType,
        layout: Layout,
    ) -> Result<Self> {
        let memory = crate::backend::wgpu::BufferRange::new(device, buffer, range, dtype)?;
        check_bounds(&layout, memory.size() as usize / dtype.size())?;
        Ok(ViewMut { memory: MemoryMut::Wgpu(memory), dtype, layout })
    }

    /// Two views of the same memory, to compute in place: the input to read and the output to write.
    ///
    /// Methods that list "in place" accept exactly this pair; every other overlap is an error.
    pub fn in_place(&mut self) -> (View<'_>, ViewMut<'_>) {
        let (memory, memory_mut) = match &self.memory {
            MemoryMut::Host(at, _) => {
                (Memory::Host(at.cast_const(), PhantomData), MemoryMut::Host(*at, PhantomData))
            }
            #[cfg(feature = "wgpu")]
            MemoryMut::Wgpu(range) => (Memory::Wgpu(range.clone()), MemoryMut::Wgpu(range.clone())),
        };
        let layout = self.layout.clone();
        (
            View { memory, dtype: self.dtype, layout: layout.clone() },
            ViewMut { memory: memory_mut, dtype: self.dtype, layout },
        )
    }

    /// The same memory under another layout, which must stay within the old one's reach.
    pub fn with_layout(mut self, layout: Layout) -> Result<Self> {
        check_bounds(&layout, self.layout.span().map_or(0, |(_, last)| last + 1))?;
        self.layout = layout;
        Ok(self)
    }

    /// The same tensor for a shorter time.
    pub fn reborrow(&mut self) -> ViewMut<'_> {
        self.in_place().1
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Shape and strides.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        self.layout.shape()
    }

    /// The device that owns the memory.
    pub fn device(&self) -> Device {
        self.as_view().device()
    }

    /// The same tensor, to read. Stays inside the crate: it would let safe code read what is being written.
    pub(crate) fn as_view(&self) -> View<'_> {
        let memory = match &self.memory {
            MemoryMut::Host(at, _) => Memory::Host(at.cast_const(), PhantomData),
            #[cfg(feature = "wgpu")]
            MemoryMut::Wgpu(range) => Memory::Wgpu(range.clone()),
        };
        View { memory, dtype: self.dtype, layout: self.layout.clone() }
    }
}

/// How far an array's strides reach below its first element, and its layout counted from there.
#[cfg(feature = "ndarray")]
fn ndarray_layout(shape: &[usize], strides: &[isize]) -> Result<(usize, Layout)> {
    let low: isize = (shape.iter().zip(strides))
        .map(|(&size, &stride)| (size.saturating_sub(1) as isize * stride).min(0))
        .sum();
    let low = if shape.contains(&0) { 0 } else { low.unsigned_abs() };
    Ok((low, Layout::strided(shape, strides, low)?))
}

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
    }
}

/// How `a` and `b` overlap.
pub(crate) fn overlap(a: &View<'_>, b: &View<'_>) -> Overlap {
    let (Some(span_a), Some(span_b)) = (a.layout.span(), b.layout.span()) else { return Overlap::None };
    let ((block_a, start_a), (block_b, start_b)) = (place(a), place(b));
    let bytes = |start: i128, (low, high): (usize, usize), size: usize| {
        (start + (low * size) as i128, start + ((high + 1) * size) as i128)
    };
    let (size_a, size_b) = (a.dtype.size(), b.dtype.size());
    let (low_a, high_a) = bytes(start_a, span_a, size_a);
    let (low_b, high_b) = bytes(start_b, span_b, size_b);
    if block_a != block_b || high_a <= low_b || high_b <= low_a {
        return Overlap::None;
    }
    let first = |start: i128, layout: &Layout, size: usize| start + (layout.offset() * size) as i128;
    let same = a.dtype == b.dtype
        && a.shape() == b.shape()
        && a.layout.strides() == b.layout.strides()
        && first(start_a, &a.layout, size_a) == first(start_b, &b.layout, size_b);
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
        let size = view.dtype.size() as i128;
        let axes = view.shape().iter().zip(view.layout.strides());
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
        let lanes = (lane(&strides_a, period, a.dtype.size()), lane(&strides_b, period, b.dtype.size()));
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
    fn bounds_are_checked() {
        let data = [0f32; 6];
        assert!(View::from_slice(&data, &[2, 3]).is_ok());
        assert!(View::from_slice(&data, &[2, 2]).is_err());
        assert!(View::strided(&data, Layout::strided(&[2, 3], &[3, 1], 1).unwrap()).is_err());
        assert!(View::strided(&data, Layout::strided(&[2, 3], &[3, -1], 2).unwrap()).is_ok());
        let view = View::from_slice(&data, &[6]).unwrap();
        assert!(view.clone().with_layout(Layout::contiguous(&[3, 2])).is_ok());
        assert!(view.with_layout(Layout::contiguous(&[7])).is_err());
    }

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

    #[cfg(feature = "ndarray")]
    #[test]
    fn ndarray_views_keep_their_strides() {
        let array = ndarray::Array2::from_shape_fn((2, 3), |(i, j)| (10 * i + j) as f32);
        let view = View::from_ndarray(array.slice(ndarray::s![.., ..;-1])).unwrap();
        assert_eq!(view.layout().strides(), [3, -1]);
        #[allow(irrefutable_let_patterns, reason = "without wgpu there is no other memory")]
        let Memory::Host(at, _) = view.memory else { panic!("host memory") };
        assert_eq!(at.cast::<f32>(), array.as_ptr());
        assert_eq!(view.layout().offset(), 2);
    }
}
