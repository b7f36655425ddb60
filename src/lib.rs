#![doc = include_str!("../docs/front.md")]

mod aligned;
pub mod backend;
#[cfg(feature = "check")]
pub mod check;
mod device;
mod error;
pub mod norm;
#[cfg(feature = "check")]
pub mod oracle;
pub mod plan;
pub mod spec;
pub mod tensor;

pub use device::{Device, DeviceTensor, Stream, Workspace};
pub use error::{Error, Result};
pub use norm::{
    BatchNorm, Cast, DyT, Eln, Gradients, Grads, GroupNorm, InstanceNorm, LayerNorm, LayerNorm2d, Method,
    Momentum, Normalize, QkNorm, RmsNorm, RunningStatistics, Saved, WeightNorm,
};

/// What most programs use: the methods, the traits they need and the device types.
pub mod prelude {
    pub use crate::norm::{
        BatchNorm, Cast, DyT, Eln, GroupNorm, InstanceNorm, LayerNorm, LayerNorm2d, Method, Momentum,
        Normalize, QkNorm, RmsNorm, RunningStatistics, WeightNorm,
    };
    pub use crate::tensor::{HostTensor, Tensor};
    pub use crate::{Device, Workspace};
}

/// The examples of a chapter, which run as the others do.
#[cfg(doctest)]
#[doc = include_str!("../docs/frameworks.md")]
mod frameworks {}
