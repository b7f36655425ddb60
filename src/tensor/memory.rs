//! Memory that is borrowed for tensors, and whether it holds what a layout names.

use super::{DType, Layout};
use crate::{Error, Result};
use std::marker::PhantomData;

/// Memory that a [`View`](super::View) reads: where it is, not how it is laid out.
#[derive(Clone)]
pub(crate) enum Memory<'a> {
    /// The first byte of a block on the host, valid for reads during `'a`.
    Host(*const u8, PhantomData<&'a [u8]>),
    /// A range of a GPU buffer, in bytes.
    #[cfg(feature = "wgpu")]
    Wgpu(crate::backend::wgpu::BufferRange),
    /// A range of a CUDA device's memory.
    #[cfg(feature = "cuda")]
    Cuda(crate::backend::cuda::DeviceRange),
}

/// Memory that a [`ViewMut`](super::ViewMut) writes.
pub(crate) enum MemoryMut<'a> {
    /// The first byte of a block on the host, valid for reads and writes by nobody else during `'a`.
    Host(*mut u8, PhantomData<&'a mut [u8]>),
    /// A range of a GPU buffer, in bytes. The device orders accesses, so no exclusive borrow is needed.
    #[cfg(feature = "wgpu")]
    Wgpu(crate::backend::wgpu::BufferRange),
    /// A range of a CUDA device's memory. A stream orders accesses.
    #[cfg(feature = "cuda")]
    Cuda(crate::backend::cuda::DeviceRange),
}

// SAFETY: a view is a shared borrow of plain numbers, as `&[T]` is; the GPU backends' handles are Send and Sync
// themselves.
unsafe impl Send for Memory<'_> {}
// SAFETY: as above; nothing behind the pointer is written through a `Memory`.
unsafe impl Sync for Memory<'_> {}
// SAFETY: a `MemoryMut` is an exclusive borrow of plain numbers, as `&mut [T]` is.
unsafe impl Send for MemoryMut<'_> {}
// SAFETY: writing through a `MemoryMut` takes `&mut` or a launch that has checked that its operands are apart.
unsafe impl Sync for MemoryMut<'_> {}

/// Refuses a layout that reaches past `elements` elements.
pub(super) fn check_bounds(layout: &Layout, elements: usize) -> Result<()> {
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
pub(super) fn check_exact(shape: &[usize], elements: usize) -> Result<Layout> {
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

/// Refuses memory that cannot hold the layout's elements, or cannot hold elements at all.
pub(super) fn check_host(first: *const u8, bytes: usize, dtype: DType, layout: &Layout) -> Result<()> {
    let size = dtype.size();
    if !first.addr().is_multiple_of(size) {
        let expected = format!("an address that is a multiple of {size}, the size of {dtype}");
        return Err(Error::argument("memory", expected, format!("{first:p}")));
    }
    if first.is_null() && bytes > 0 {
        return Err(Error::argument("memory", "an address", "null"));
    }
    check_bounds(layout, bytes / size)
}

/// How far an array's strides reach below its first element, and its layout counted from there.
#[cfg(feature = "ndarray")]
pub(super) fn ndarray_layout(shape: &[usize], strides: &[isize]) -> Result<(usize, Layout)> {
    let low: isize = (shape.iter().zip(strides))
        .map(|(&size, &stride)| (size.saturating_sub(1) as isize * stride).min(0))
        .sum();
    let low = if shape.contains(&0) { 0 } else { low.unsigned_abs() };
    Ok((low, Layout::strided(shape, strides, low)?))
}
