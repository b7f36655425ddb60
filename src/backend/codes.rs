//! What the kernels of GPUs know of codes of 8 bits.

use crate::spec::{self, Quantization};

/// What of the codes shares a scale, as far as kernels are compiled for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scaling {
    Static,
    Row,
    Block,
}

impl Scaling {
    pub(crate) fn of(quantization: Option<Quantization>) -> Option<Self> {
        Some(match quantization?.scaling {
            spec::Scaling::Static(_) => Scaling::Static,
            spec::Scaling::Row => Scaling::Row,
            spec::Scaling::Block(_) => Scaling::Block,
        })
    }
}

/// What a launch is told: the scale, what bounds one, the code of the largest magnitude, and the least scale.
pub(crate) fn numbers(quantization: Option<Quantization>) -> [f32; 4] {
    let Some(codes) = quantization else { return [0.0; 4] };
    let scale = if let spec::Scaling::Static(scale) = codes.scaling { scale as f32 } else { 0.0 };
    let bound = codes.upper_bound.map_or(f32::INFINITY, |bound| bound as f32);
    [scale, bound, codes.largest(), codes.least()]
}

/// The least magnitude that is set apart; 0 where the kernel sets none apart, and does not look.
pub(crate) fn outlier(quantization: Option<Quantization>) -> f32 {
    quantization.and_then(|codes| codes.outliers).map_or(0.0, |threshold| threshold as f32)
}
