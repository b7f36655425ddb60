//! The norm of a branch that a residual is added to: what of it is compiled into the kernels of the norm around it.

use super::constants;
use super::norm::rounds;
use super::variant::{Flags, InnerFlags};
use crate::Result;
use crate::spec::Norm;
use crate::tensor::DType;

/// What of it is compiled into kernels that compute its statistics, if the spec has one; `dtype` is that of its input.
pub(super) fn flags(spec: &Norm, has_weight: bool, dtype: DType) -> Result<Option<InnerFlags>> {
    let Some(norm) = spec.inner() else { return Ok(None) };
    let Flags { kind, prefix, outside, .. } = constants::flags(&norm)?;
    let offset = has_weight && norm.weight_offset != 0.0;
    Ok(Some(InnerFlags { kind, prefix, outside, offset, round: rounds(&norm, dtype) }))
}
