//! An owned tensor in host memory, for those who have no array type of their own.

use super::{DType, Element, F8E4M3, F8E5M2, Layout, Tensor, View, ViewMut, prefer_large_pages};
use crate::{Device, Error, Result};

/// A row-major tensor in host memory.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    shape: Vec<usize>,
    data: Data,
}

/// The elements, by dtype.
#[derive(Debug, Clone, PartialEq)]
enum Data {
    F16(Vec<half::f16>),
    BF16(Vec<half::bf16>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    I8(Vec<i8>),
    F8E4M3(Vec<F8E4M3>),
    F8E5M2(Vec<F8E5M2>),
    I32(Vec<i32>),
    I64(Vec<i64>),
}

/// Does the same with the typed vector of each dtype.
macro_rules! each {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            Data::F16($v) => $body,
            Data::BF16($v) => $body,
            Data::F32($v) => $body,
            Data::F64($v) => $body,
            Data::I8($v) => $body,
            Data::F8E4M3($v) => $body,
            Data::F8E5M2($v) => $body,
            Data::I32($v) => $body,
            Data::I64($v) => $body,
        }
    };
}

/// `len` zeros, or [`Error::OutOfMemory`]. The system gives them without anybody writing them, many of them in large pages.
pub fn zeros<T: Element>(len: usize) -> Result<Vec<T>> {
    // The system's pages are zeros already: nothing is written here.
    let data: Vec<T> = bytemuck::allocation::try_zeroed_vec(len).map_err(|()| Error::OutOfMemory {
        what: format!("{} bytes of host memory", len as u128 * size_of::<T>() as u128),
    })?;
    prefer_large_pages(data.as_ptr().cast(), size_of_val(data.as_slice()));
    Ok(data)
}

impl HostTensor {
    /// A tensor of zeros.
    pub fn zeros(shape: &[usize], dtype: DType) -> Result<Self> {
        let layout = Layout::contiguous(shape);
        layout.checked_span()?;
        let len = layout.len();
        let data = match dtype {
            DType::F16 => Data::F16(zeros(len)?),
            DType::BF16 => Data::BF16(zeros(len)?),
            DType::F32 => Data::F32(zeros(len)?),
            DType::F64 => Data::F64(zeros(len)?),
            DType::I8 => Data::I8(zeros(len)?),
            DType::F8E4M3 => Data::F8E4M3(zeros(len)?),
            DType::F8E5M2 => Data::F8E5M2(zeros(len)?),
            DType::I32 => Data::I32(zeros(len)?),
            DType::I64 => Data::I64(zeros(len)?),
        };
        Ok(HostTensor { shape: shape.to_vec(), data })
    }

    /// A tensor of `values`, in row-major order.
    pub fn from_vec<T: Element>(values: Vec<T>, shape: &[usize]) -> Result<Self> {
        View::from_slice(&values, shape)?;
        let mut tensor = HostTensor { shape: shape.to_vec(), data: Data::F32(Vec::new()) };
        // The vector moves where its type is the dtype's own; `cast_vec` between equal types copies nothing.
        tensor.data = match T::DTYPE {
            DType::F16 => Data::F16(bytemuck::allocation::cast_vec(values)),
            DType::BF16 => Data::BF16(bytemuck::allocation::cast_vec(values)),
            DType::F32 => Data::F32(bytemuck::allocation::cast_vec(values)),
            DType::F64 => Data::F64(bytemuck::allocation::cast_vec(values)),
            DType::I8 => Data::I8(bytemuck::allocation::cast_vec(values)),
            DType::F8E4M3 => Data::F8E4M3(bytemuck::allocation::cast_vec(values)),
            DType::F8E5M2 => Data::F8E5M2(bytemuck::allocation::cast_vec(values)),
            DType::I32 => Data::I32(bytemuck::allocation::cast_vec(values)),
            DType::I64 => Data::I64(bytemuck::allocation::cast_vec(values)),
        };
        Ok(tensor)
    }

    /// Rounds `value` to the element at `at`.
    pub(crate) fn put(&mut self, at: usize, value: f64) {
        each!(&mut self.data, v => fill(&mut v[at..=at], &[value]));
    }

    /// `values` rounded to `dtype`, in row-major order.
    pub fn from_f64(values: &[f64], shape: &[usize], dtype: DType) -> Result<Self> {
        View::from_slice(values, shape)?;
        let mut tensor = HostTensor::zeros(shape, dtype)?;
        each!(&mut tensor.data, v => fill(v, values));
        Ok(tensor)
    }

    /// Sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match &self.data {
            Data::F16(_) => DType::F16,
            Data::BF16(_) => DType::BF16,
            Data::F32(_) => DType::F32,
            Data::F64(_) => DType::F64,
            Data::I8(_) => DType::I8,
            Data::F8E4M3(_) => DType::F8E4M3,
            Data::F8E5M2(_) => DType::F8E5M2,
            Data::I32(_) => DType::I32,
            Data::I64(_) => DType::I64,
        }
    }

    /// The elements as bytes, in row-major order and the machine's byte order.
    pub fn bytes(&self) -> &[u8] {
        each!(&self.data, v => bytemuck::cast_slice(v))
    }

    /// The elements as bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        each!(&mut self.data, v => bytemuck::cast_slice_mut(v))
    }

    /// The elements, where `T` is the tensor's dtype.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        (self.dtype() == T::DTYPE).then(|| bytemuck::cast_slice(self.bytes()))
    }

    /// The elements, to write, where `T` is the tensor's dtype.
    pub fn as_mut_slice<T: Element>(&mut self) -> Option<&mut [T]> {
        (self.dtype() == T::DTYPE).then(|| bytemuck::cast_slice_mut(self.bytes_mut()))
    }

    /// The elements as float64, in row-major order.
    pub fn to_f64(&self) -> Vec<f64> {
        each!(&self.data, v => v.iter().map(|x| x.to_f64()).collect())
    }
}

fn fill<T: Element>(to: &mut [T], from: &[f64]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = T::from_f64(from);
    }
}

impl Tensor for HostTensor {
    fn device(&self) -> Device {
        Device::Cpu
    }
    fn view(&self) -> Result<View<'_>> {
        each!(&self.data, v => View::from_slice(v, &self.shape))
    }
    fn view_mut(&mut self) -> Result<ViewMut<'_>> {
        each!(&mut self.data, v => ViewMut::from_slice(v, &self.shape))
    }
    fn empty(&self, shape: &[usize], dtype: DType) -> Result<Self> {
        HostTensor::zeros(shape, dtype)
    }
}

/// An ndarray of run-time rank; its results have its element type, so every operand must share one dtype.
#[cfg(feature = "ndarray")]
impl<T: Element> Tensor for ndarray::ArrayD<T> {
    fn device(&self) -> Device {
        Device::Cpu
    }
    fn view(&self) -> Result<View<'_>> {
        View::from_ndarray(self.slice_each_axis(|_| (..).into()))
    }
    fn view_mut(&mut self) -> Result<ViewMut<'_>> {
        ViewMut::from_ndarray(self.slice_each_axis_mut(|_| (..).into()))
    }
    fn empty(&self, shape: &[usize], dtype: DType) -> Result<Self> {
        if dtype != T::DTYPE {
            return Err(Error::argument("dtype", format!("{}, as the array's", T::DTYPE), dtype));
        }
        let layout = Layout::contiguous(shape);
        layout.checked_span()?;
        let data = zeros(layout.len())?;
        ndarray::ArrayD::from_shape_vec(shape, data).map_err(|e| Error::argument("shape", "a valid shape", e))
    }
}
