//! Tensors: what normkit computes on, whoever owns the memory.
//!
//! [`View`] and [`ViewMut`] are typed at run time and borrow memory on some device. [`Tensor`] is the small trait
//! that lets a type of yours be passed to the methods directly. [`HostTensor`] and
//! [`WgpuTensor`](crate::backend::wgpu::WgpuTensor) are normkit's own, for those who have none.

mod dtype;
mod float8;
mod host;
mod layout;
mod memory;
mod overlap;
mod pages;
mod view;

pub use dtype::{DType, Element};
pub use float8::{F8E4M3, F8E5M2};
pub use host::{HostTensor, zeros};
pub use layout::{Dims, Layout};
pub(crate) use memory::{Memory, MemoryMut};
pub(crate) use overlap::{Overlap, overlap};
pub use pages::prefer_large_pages;
pub use view::{View, ViewMut};

use crate::{Device, Result};

/// A tensor type: normkit's own, an array library's, or a training framework's.
///
/// Implement it for your tensor and every method takes it: `view` and `view_mut` lend the memory, `device` says
/// where it lives, `empty` makes the results.
///
/// ```
/// use normkit::prelude::*;
/// use normkit::tensor::{DType, View, ViewMut};
///
/// /// A framework's tensor, here a vector with a shape.
/// struct MyTensor { data: Vec<f32>, shape: Vec<usize> }
///
/// impl Tensor for MyTensor {
///     fn device(&self) -> Device { Device::Cpu }
///     fn view(&self) -> normkit::Result<View<'_>> { View::from_slice(&self.data, &self.shape) }
///     fn view_mut(&mut self) -> normkit::Result<ViewMut<'_>> { ViewMut::from_slice(&mut self.data, &self.shape) }
///     fn empty(&self, shape: &[usize], dtype: DType) -> normkit::Result<Self> {
///         assert_eq!(dtype, DType::F32);
///         Ok(MyTensor { data: vec![0.0; shape.iter().product()], shape: shape.to_vec() })
///     }
/// }
///
/// let x = MyTensor { data: vec![1.0, 2.0, 3.0, 6.0], shape: vec![2, 2] };
/// let y = LayerNorm::new([2]).eps(0.0).forward(&x)?;
/// assert_eq!(y.data, [-1.0, 1.0, -1.0, 1.0]);
/// # Ok::<(), normkit::Error>(())
/// ```
pub trait Tensor: Sized {
    /// The device that owns the memory.
    fn device(&self) -> Device;
    /// The memory, to read.
    fn view(&self) -> Result<View<'_>>;
    /// The memory, to write.
    fn view_mut(&mut self) -> Result<ViewMut<'_>>;
    /// A new tensor of this kind on the same device, with unspecified contents.
    fn empty(&self, shape: &[usize], dtype: DType) -> Result<Self>;
}
