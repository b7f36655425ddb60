//! [candle](https://github.com/huggingface/candle) with normkit's normalization layers, and gradients of all their arguments.
//!
//! Modules have `candle_nn`'s names and parameters, so that replacing an import replaces the norm; [`ops`] has the functions of tensors,
//! whose pages give formulas, shapes and errors.
//!
//! Tensors of any strides are read where they lie, on the CPU and, with the feature `cuda`, on GPUs in the order of candle's stream; F16,
//! BF16, F32 and F64. Others are refused by candle's error that there is no implementation. Errors are candle's, with normkit's message.
//! On a GPU it has not run yet.

mod added;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod memory;
mod modules;
mod op;
pub mod ops;

pub use candle_nn::{BatchNormConfig, LayerNormConfig};
pub use modules::{
    AddRmsNorm, BatchNorm, DyT, GroupNorm, LayerNorm, QkNorm, RmsNorm, WeightNorm, add_rms_norm, batch_norm,
    dyt, group_norm, layer_norm, layer_norm_no_bias, qk_norm, rms_norm, weight_norm,
};

/// The README's examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
