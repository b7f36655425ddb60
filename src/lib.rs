#![doc = include_str!("../docs/front.md")]

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
pub use norm::{Cast, DyT, Gradients, Grads, LayerNorm, Method, RmsNorm, Saved};

/// What most programs use: the methods, the traits they need and the device types.
pub mod prelude {
    pub use crate::norm::{Cast, DyT, LayerNorm, Method, RmsNorm};
    pub use crate::tensor::{HostTensor, Tensor};
    pub use crate::{Device, Workspace};
}
