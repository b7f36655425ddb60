//! burn's CPU backends.

use crate::lend::Fresh;
#[cfg(any(feature = "flex", feature = "ndarray"))]
use crate::lend::{Lend, Lent};
use half::{bf16, f16};
use normkit::tensor::{DType, Layout, View, ViewMut, zeros};
use normkit::{Device, Error, Result, Stream};

/// New numbers in memory.
enum Block {
    F64(Vec<f64>),
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Block {
    fn new(fresh: &Fresh) -> Result<Self> {
        let count = fresh.shape.iter().product();
        match fresh.dtype {
            DType::F64 => Ok(Block::F64(zeros(count)?)),
            DType::F32 => Ok(Block::F32(zeros(count)?)),
            DType::F16 => Ok(Block::F16(zeros(count)?)),
            DType::BF16 => Ok(Block::Bf16(zeros(count)?)),
            dtype => Err(Error::UnsupportedDType { name: "output", dtype, backend: "burn" }),
        }
    }

    fn view_mut(&mut self, shape: &[usize]) -> Result<ViewMut<'_>> {
        match self {
            Block::F64(values) => ViewMut::from_slice(values, shape),
            Block::F32(values) => ViewMut::from_slice(values, shape),
            Block::F16(values) => ViewMut::from_slice(values, shape),
            Block::Bf16(values) => ViewMut::from_slice(values, shape),
        }
    }
}

/// Runs on views of some tensors and of new memory, which it returns.
fn run_on<R>(
    read: &[View<'_>],
    fresh: &[Fresh],
    run: impl FnOnce(&[View<'_>], &mut [ViewMut<'_>], &Stream<'_>) -> Result<R>,
) -> Result<(R, Vec<Block>)> {
    let mut blocks = fresh.iter().map(Block::new).collect::<Result<Vec<_>>>()?;
    let views = blocks.iter_mut().zip(fresh).map(|(block, fresh)| block.view_mut(&fresh.shape));
    let mut views = views.collect::<Result<Vec<_>>>()?;
    let result = run(read, &mut views, &Device::Cpu.stream())?;
    drop(views);
    Ok((result, blocks))
}

#[cfg(feature = "flex")]
mod flex {
    use super::*;
    use burn::backend::Flex;
    use burn::backend::flex::{FlexTensor, Layout as Places};
    use burn::tensor::{Bytes, DType as Foreign, Shape};

    /// A tensor where it is.
    fn view(tensor: &FlexTensor) -> Result<View<'_>> {
        let places = tensor.layout();
        let layout = Layout::strided(&places.shape()[..], places.strides(), places.start_offset())?;
        match tensor.dtype() {
            Foreign::F64 => View::strided(tensor.storage::<f64>(), layout),
            Foreign::F32 => View::strided(tensor.storage::<f32>(), layout),
            Foreign::F16 => View::strided(tensor.storage::<f16>(), layout),
            Foreign::BF16 => View::strided(tensor.storage::<bf16>(), layout),
            other => Err(crate::dtypes::of("tensor", other).err().unwrap_or_else(super::impossible)),
        }
    }

    impl Lend for Flex {
        fn lend<R>(
            read: &[&FlexTensor],
            fresh: &[Fresh],
            run: impl FnOnce(&[View<'_>], &mut [ViewMut<'_>], &Stream<'_>) -> Result<R>,
        ) -> Lent<Self, R> {
            let views = read.iter().map(|tensor| view(tensor)).collect::<Result<Vec<_>>>()?;
            let (result, blocks) = run_on(&views, fresh, run)?;
            let made = blocks.into_iter().zip(fresh).map(|(block, fresh)| {
                let (bytes, dtype) = match block {
                    Block::F64(values) => (Bytes::from_elems(values), Foreign::F64),
                    Block::F32(values) => (Bytes::from_elems(values), Foreign::F32),
                    Block::F16(values) => (Bytes::from_elems(values), Foreign::F16),
                    Block::Bf16(values) => (Bytes::from_elems(values), Foreign::BF16),
                };
                FlexTensor::new(bytes, Places::contiguous(Shape::from(fresh.shape.clone())), dtype)
            });
            Ok((result, made.collect()))
        }
    }
}

#[cfg(feature = "ndarray")]
#[allow(deprecated, reason = "burn calls this backend its former one; it is still there")]
mod arrays {
    use super::*;
    use burn::backend::NdArray;
    use burn::backend::TensorMetadata;
    use burn::backend::ndarray::NdArrayTensor;
    use ndarray::{ArcArray, IxDyn};

    impl Lend for NdArray {
        fn lend<R>(
            read: &[&NdArrayTensor],
            fresh: &[Fresh],
            run: impl FnOnce(&[View<'_>], &mut [ViewMut<'_>], &Stream<'_>) -> Result<R>,
        ) -> Lent<Self, R> {
            enum Array<'a> {
                F64(ndarray::ArrayViewD<'a, f64>),
                F32(ndarray::ArrayViewD<'a, f32>),
            }
            let arrays = read.iter().map(|tensor| match tensor {
                NdArrayTensor::F64(values) => Ok(Array::F64(values.view())),
                NdArrayTensor::F32(values) => Ok(Array::F32(values.view())),
                other => {
                    Err(crate::dtypes::of("tensor", other.dtype()).err().unwrap_or_else(super::impossible))
                }
            });
            let arrays = arrays.collect::<Result<Vec<_>>>()?;
            let views = arrays.iter().map(|array| match array {
                Array::F64(values) => View::from_ndarray(values.view()),
                Array::F32(values) => View::from_ndarray(values.view()),
            });
            let views = views.collect::<Result<Vec<_>>>()?;
            let (result, blocks) = run_on(&views, fresh, run)?;
            let made = blocks.into_iter().zip(fresh).map(|(block, fresh)| {
                let shape = &fresh.shape[..];
                match block {
                    Block::F64(values) => Ok(NdArrayTensor::from(array(shape, values)?)),
                    Block::F32(values) => Ok(NdArrayTensor::from(array(shape, values)?)),
                    Block::F16(_) | Block::Bf16(_) => {
                        let dtype = fresh.dtype;
                        Err(Error::UnsupportedDType { name: "input", dtype, backend: "burn-ndarray" })
                    }
                }
            });
            Ok((result, made.collect::<Result<_>>()?))
        }
    }

    fn array<T>(shape: &[usize], values: Vec<T>) -> Result<ArcArray<T, IxDyn>> {
        let array = ArcArray::from_shape_vec(shape, values);
        array.map_err(|error| Error::Argument {
            name: "output",
            expected: format!("shape {shape:?}"),
            found: error.to_string(),
        })
    }
}

/// burn's other dtypes are refused by then.
fn impossible() -> Error {
    let (expected, found) = ("a floating-point tensor".to_owned(), "another".to_owned());
    Error::Argument { name: "tensor", expected, found }
}
