//! burn's tensors of CubeCL's runtimes: those of wgpu and of CUDA.

use crate::dtypes;
use crate::lend::{Fresh, Lend, Lent};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Cube, CubeDevice, TensorMetadata};
use burn::tensor::Shape;
use normkit::tensor::{DType, Layout, View, ViewMut};
use normkit::{Error, Result, Stream};

/// What a tensor's memory holds: its elements' dtype, and how they lie from the memory's beginning on.
pub(crate) fn contents(tensor: &FloatTensor<Cube>) -> Result<(DType, Layout)> {
    let dtype = dtypes::of("tensor", tensor.dtype)?;
    let shape = tensor.shape();
    if tensor.qparams.is_some() || shape != *tensor.meta.shape() {
        let (expected, found) = ("a plain tensor".to_owned(), "a quantized or tiled one".to_owned());
        return Err(Error::Argument { name: "tensor", expected, found });
    }
    let strides: Vec<isize> = tensor.meta.strides().iter().map(|&stride| stride as isize).collect();
    Ok((dtype, Layout::strided(&shape, &strides, 0)?))
}

/// Bytes of whole elements that a tensor's memory has.
pub(crate) fn bytes(tensor: &FloatTensor<Cube>, dtype: DType) -> u64 {
    let size = dtype.size() as u64;
    tensor.handle.size_in_used() / size * size
}

impl Lend for Cube {
    fn lend<R>(
        read: &[&FloatTensor<Self>],
        fresh: &[Fresh],
        run: impl FnOnce(&[View<'_>], &mut [ViewMut<'_>], &Stream<'_>) -> Result<R>,
    ) -> Lent<Self, R> {
        let Some(like) = read.first() else {
            let (expected, found) = ("a tensor".to_owned(), "none".to_owned());
            return Err(Error::Argument { name: "input", expected, found });
        };
        let made = fresh.iter().map(|fresh| {
            let (shape, dtype) = (Shape::from(fresh.shape.clone()), dtypes::to_burn(fresh.dtype).into());
            if fresh.zeroed {
                Self::float_zeros(shape, &like.device, dtype)
            } else {
                Self::float_empty(shape, &like.device, dtype)
            }
        });
        let result = match &like.device {
            #[cfg(feature = "wgpu")]
            CubeDevice::Wgpu(_) => {
                let (device, made) = (crate::wgpu::known(like)?, made.collect::<Vec<_>>());
                (crate::wgpu::on(&device, read, &made, run)?, made)
            }
            #[cfg(feature = "cuda")]
            CubeDevice::Cuda(device) => {
                let (device, made) = (crate::cuda::known(device.index)?, made.collect::<Vec<_>>());
                (crate::cuda::on(&device, read, &made, run)?, made)
            }
            other => {
                let reason = format!("normkit-burn is not built for burn's device {other:?}");
                return Err(Error::NoDevice { backend: "cube", reason });
            }
        };
        Ok(result)
    }
}
