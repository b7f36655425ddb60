//! burn's dtypes and normkit's.

use burn::tensor::DType as Foreign;
use normkit::tensor::DType;
use normkit::{Error, Result};

/// The dtype that normkit computes on, or an error for those that it does not.
pub(crate) fn of(name: &'static str, dtype: Foreign) -> Result<DType> {
    match dtype {
        Foreign::F64 => Ok(DType::F64),
        Foreign::F32 | Foreign::Flex32 => Ok(DType::F32),
        Foreign::F16 => Ok(DType::F16),
        Foreign::BF16 => Ok(DType::BF16),
        other => {
            let expected = "dtype f16, bf16, f32 or f64".to_owned();
            Err(Error::Argument { name, expected, found: format!("dtype {other:?}") })
        }
    }
}

/// burn's dtype for results of this one.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub(crate) fn to_burn(dtype: DType) -> Foreign {
    match dtype {
        DType::F64 => Foreign::F64,
        DType::F16 => Foreign::F16,
        DType::BF16 => Foreign::BF16,
        _ => Foreign::F32,
    }
}
