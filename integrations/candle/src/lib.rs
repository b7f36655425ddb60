//! [candle](https://github.com/huggingface/candle) with normkit's normalization layers, and gradients of all their arguments.
//!
//! Modules have `candle_nn`'s names and parameters, so that replacing an import replaces the norm; [`ops`] has the functions of tensors,
//! whose pages give formulas, shapes and errors.
//!
//! Tensors on the CPU of any strides are read where they lie; F16, BF16, F32 and F64. Tensors on CUDA and Metal are refused by candle's error
//! that there is no implementation. Errors are candle's, with normkit's message.

mod added;
mod modules;
mod op;
pub mod ops;
mod storage;

pub use candle_nn::{BatchNormConfig, LayerNormConfig};
pub use modules::{
    AddRmsNorm, BatchNorm, DyT, GroupNorm, LayerNorm, QkNorm, RmsNorm, WeightNorm, add_rms_norm, batch_norm,
    dyt, group_norm, layer_norm, layer_norm_no_bias, qk_norm, rms_norm, weight_norm,
};

/// The README's examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
