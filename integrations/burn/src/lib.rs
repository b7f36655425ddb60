//! [normkit]'s normalization methods for [burn]: functions on its tensors and modules in the place of its own, with the
//! gradients of every argument.
//!
//! Kernels read and write burn's own memory, whatever its strides: nothing is copied, and a backward pass reads the input once.
//! On the CPU that is the memory of burn's `Flex` backend (feature `flex`, the default) or of its former one, `NdArray` (feature
//! `ndarray`); with feature `wgpu`, the buffers, device and queue of its wgpu runtime, see its module `wgpu`; with feature `cuda`, the
//! memory of its CUDA runtime, before and after which a call waits: burn does not give out its stream. On a GPU that has not run yet.
//!
//! ```
//! use burn::tensor::{Device, Distribution, Tensor};
//! use normkit_burn::nn::{RmsNorm, RmsNormConfig};
//!
//! let device = Device::flex().autodiff();
//! let norm: RmsNorm = RmsNormConfig::new(64).init(&device);
//! let x = Tensor::<2>::random([8, 64], Distribution::Default, &device).require_grad();
//! let grads = norm.forward(x.clone()).sum().backward();
//! assert_eq!(x.grad(&grads).unwrap().dims(), [8, 64]);
//! assert_eq!(norm.gamma.grad(&grads).unwrap().dims(), [64]);
//! ```
//!
//! # Replacing burn's modules
//!
//! [`nn`] has modules with the names, configurations and fields of burn's: `use normkit_burn::nn::LayerNorm` in the place of
//! `use burn::nn::LayerNorm` is all that changes, and records of one load into the other. Their `forward` panics where burn's does, on
//! inputs of a wrong shape; `try_forward` and the functions in this crate return an error instead.
//!
//! # Gradients
//!
//! Every function has gradients of all of its floating-point arguments but running statistics, which are constants. They are exact
//! derivatives from the saved statistics of the forward pass, not of a composition. A second derivative is not available: burn's
//! backward pass is not differentiated.

mod autodiff;
mod call;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod cube;
#[cfg(feature = "cuda")]
mod cuda;
mod dtypes;
mod functions;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod host;
mod lend;
pub mod nn;
mod ops;
mod passes;
#[cfg(feature = "wgpu")]
pub mod wgpu;

pub use functions::{
    BatchStatistics, HeadKind, add_layer_norm, add_rms_norm, batch_norm, batch_norm_train, dyt, group_norm,
    instance_norm, layer_norm, qk_norm, rms_norm, weight_norm,
};
/// What functions return: normkit's error names the argument, what was expected and what came.
pub use normkit::{Error, Result};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
