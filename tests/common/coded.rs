//! Calls whose results are codes, for streams that note the kernels of calls.

use normkit::backend::cuda::{CudaDevice, CudaStream};
use normkit::norm::{OutlierOutputs, Quantized, zero_columns};
use normkit::prelude::*;
use normkit::spec::Scaling;
use normkit::tensor::DType;
use normkit::{Result, Stream};

/// Notes the kernels of results that become codes, after a residual that is kept.
pub(crate) fn list(device: &CudaDevice, stream: &CudaStream<'static>) -> Result<()> {
    let (device, stream) = (Device::Cuda(device.clone()), Stream::Cuda(stream.clone()));
    let scalings = [Scaling::Static(0.05), Scaling::Row, Scaling::Block(128)];
    for (dtype, codes) in [(DType::BF16, DType::F8E4M3), (DType::F16, DType::I8), (DType::F32, DType::F8E5M2)]
    {
        for (scaling, cols) in
            scalings.into_iter().flat_map(|scaling| [1001, 1024, 4096, 16_384].map(|n| (scaling, n)))
        {
            let tensor = || device.zeros(&[2, cols], dtype);
            let (x, weight, mut hidden) = (tensor()?, device.zeros(&[cols], dtype)?, tensor()?);
            let residual = tensor()?;
            let norm =
                Quantized::new(RmsNorm::new([cols]).weight(&weight).residual(&residual), codes, scaling);
            let mut output = device.zeros(&[2, cols], codes)?;
            let scales = norm.scales_shape(&[2, cols], dtype)?;
            let mut scales = scales.map(|shape| device.zeros(&shape, DType::F32)).transpose()?;
            let mut scales = scales.as_mut().map(Tensor::view_mut).transpose()?;
            let hidden = &mut hidden.view_mut()?;
            norm.forward_into(&x.view()?, &mut output.view_mut()?, scales.as_mut(), Some(hidden), &stream)?;
            if let (DType::I8, Scaling::Row, Some(scales)) = (codes, scaling, scales) {
                let mut flags = device.zeros(&[cols], DType::I32)?;
                let outputs = OutlierOutputs {
                    codes: output.view_mut()?,
                    scales,
                    flags: flags.view_mut()?,
                    statistics: None,
                    hidden: None,
                };
                norm.outliers(6.0).forward_into(&x.view()?, outputs, &stream)?;
                zero_columns(&mut output.view_mut()?, &flags.view()?, &stream)?;
            }
        }
    }
    Ok(())
}
