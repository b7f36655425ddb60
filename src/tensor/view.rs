//! Borrowed memory with a dtype and a layout.

#[cfg(feature = "ndarray")]
use super::memory::ndarray_layout;
use super::memory::{Memory, MemoryMut, check_bounds, check_exact, check_host};
use super::{DType, Element, Layout};
use crate::{Device, Result};
use std::marker::PhantomData;

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

    /// Memory of the host that somebody else owns, to read: `bytes` bytes from `first` on, over which `layout` lies. An
    /// address that is null, or not a multiple of the dtype's size, is refused.
    ///
    /// # Safety
    /// During `'a` the bytes are valid for reads, hold numbers of the dtype, and nobody writes them.
    pub unsafe fn from_host(first: *const u8, bytes: usize, dtype: DType, layout: Layout) -> Result<Self> {
        check_host(first, bytes, dtype, &layout)?;
        Ok(View { memory: Memory::Host(first, PhantomData), dtype, layout })
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

    /// Memory of a CUDA device, to read: `bytes` bytes from `address` on, over which `layout` lies. An address that
    /// is null, not a multiple of the dtype's size, or another device's is refused. Memory that is aligned to no more
    /// works, too, on narrower accesses.
    ///
    /// # Safety
    /// The bytes are memory that the device can read, they stay so until the launches on the view have run,
    /// and nobody writes them meanwhile but in the order of the launches' stream.
    #[cfg(feature = "cuda")]
    pub unsafe fn from_cuda(
        device: &crate::backend::cuda::CudaDevice,
        address: u64,
        bytes: u64,
        dtype: DType,
        layout: Layout,
    ) -> Result<Self> {
        // SAFETY: the caller's promise is the same.
        let range = unsafe { crate::backend::cuda::DeviceRange::new(device, address, bytes, dtype) }?;
        View::of_cuda(range, dtype, layout)
    }

    /// A range of a CUDA device's memory.
    #[cfg(feature = "cuda")]
    pub(crate) fn of_cuda(
        range: crate::backend::cuda::DeviceRange,
        dtype: DType,
        layout: Layout,
    ) -> Result<Self> {
        check_bounds(&layout, usize::try_from(range.size()).unwrap_or(usize::MAX) / dtype.size())?;
        Ok(View { memory: Memory::Cuda(range), dtype, layout })
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
            #[cfg(feature = "cuda")]
            Memory::Cuda(range) => Device::Cuda(range.device().clone()),
        }
    }

    /// The same memory under another layout, which must stay within the old one's reach.
    pub fn with_layout(mut self, layout: Layout) -> Result<Self> {
        check_bounds(&layout, self.layout.span().map_or(0, |(_, last)| last + 1))?;
        self.layout = layout;
        Ok(self)
    }

    /// The `index`-th element in row-major order, of integers of 32 or 64 bits that the host can read.
    pub(crate) fn host_integer(&self, index: usize) -> Option<i64> {
        if index >= self.layout.len() {
            return None;
        }
        let at = self.layout.offset_of(index);
        match (&self.memory, self.dtype) {
            (Memory::Host(first, _), DType::I32) => {
                // SAFETY: every index of the layout is inside the memory, which is aligned to the dtype and valid for reads.
                Some(i64::from(unsafe { first.cast::<i32>().add(at).read() }))
            }
            (Memory::Host(first, _), DType::I64) => {
                // SAFETY: as above.
                Some(unsafe { first.cast::<i64>().add(at).read() })
            }
            _ => None,
        }
    }

    /// The same memory under a layout that the caller knows to be inside it: that of the parameter which this view
    /// repeats over an input. Where the input has no elements the view names none, and cannot tell.
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

    /// Memory of the host that somebody else owns, to write: `bytes` bytes from `first` on, over which `layout` lies. An
    /// address that is null, or not a multiple of the dtype's size, is refused.
    ///
    /// # Safety
    /// During `'a` the bytes are valid for reads and writes, hold numbers of the dtype, and nobody else uses those that
    /// the layout names.
    pub unsafe fn from_host(first: *mut u8, bytes: usize, dtype: DType, layout: Layout) -> Result<Self> {
        check_host(first, bytes, dtype, &layout)?;
        Ok(ViewMut { memory: MemoryMut::Host(first, PhantomData), dtype, layout })
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

    /// Memory of a CUDA device, to write: `bytes` bytes from `address` on, over which `layout` lies. An address that
    /// is null, not a multiple of the dtype's size, or another device's is refused. Memory that is aligned to no more
    /// works, too, on narrower accesses.
    ///
    /// # Safety
    /// The bytes are memory that the device can read and write, they stay so until the launches on the view
    /// have run, and nobody else uses them meanwhile but in the order of the launches' stream.
    #[cfg(feature = "cuda")]
    pub unsafe fn from_cuda(
        device: &crate::backend::cuda::CudaDevice,
        address: u64,
        bytes: u64,
        dtype: DType,
        layout: Layout,
    ) -> Result<Self> {
        // SAFETY: the caller's promise is the same.
        let range = unsafe { crate::backend::cuda::DeviceRange::new(device, address, bytes, dtype) }?;
        ViewMut::of_cuda(range, dtype, layout)
    }

    /// A range of a CUDA device's memory.
    #[cfg(feature = "cuda")]
    pub(crate) fn of_cuda(
        range: crate::backend::cuda::DeviceRange,
        dtype: DType,
        layout: Layout,
    ) -> Result<Self> {
        check_bounds(&layout, usize::try_from(range.size()).unwrap_or(usize::MAX) / dtype.size())?;
        Ok(ViewMut { memory: MemoryMut::Cuda(range), dtype, layout })
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
            #[cfg(feature = "cuda")]
            MemoryMut::Cuda(range) => (Memory::Cuda(range.clone()), MemoryMut::Cuda(range.clone())),
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
            #[cfg(feature = "cuda")]
            MemoryMut::Cuda(range) => Memory::Cuda(range.clone()),
        };
        View { memory, dtype: self.dtype, layout: self.layout.clone() }
    }
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
    fn foreign_memory_is_checked() {
        let mut data = [0f32; 6];
        let (first, layout) = (data.as_mut_ptr().cast::<u8>(), Layout::contiguous(&[2, 3]));
        let read = |at: usize, bytes| {
            // SAFETY: whatever is accepted lies inside the array.
            unsafe { View::from_host(first.wrapping_add(at), bytes, DType::F32, layout.clone()) }.is_ok()
        };
        assert!(read(0, 24));
        assert!(!read(0, 23) && !read(2, 24));
        // SAFETY: null is refused where there are elements, and never read where there are none.
        let null = |shape: &[usize], bytes| unsafe {
            ViewMut::from_host(std::ptr::null_mut(), bytes, DType::F32, Layout::contiguous(shape)).is_ok()
        };
        assert!(null(&[0], 0) && !null(&[1], 4) && !null(&[1], 0));
    }

    #[cfg(feature = "ndarray")]
    #[test]
    fn ndarray_views_keep_their_strides() {
        let array = ndarray::Array2::from_shape_fn((2, 3), |(i, j)| (10 * i + j) as f32);
        let view = View::from_ndarray(array.slice(ndarray::s![.., ..;-1])).unwrap();
        assert_eq!(view.layout().strides(), [3, -1]);
        #[allow(irrefutable_let_patterns, reason = "without a GPU backend there is no other memory")]
        let Memory::Host(at, _) = view.memory else { panic!("host memory") };
        assert_eq!(at.cast::<f32>(), array.as_ptr());
        assert_eq!(view.layout().offset(), 2);
    }
}
