//! The C interface of normkit. Its documentation is the header, `include/normkit.h`, which is made from this crate's sources:
//! `NORMKIT_WRITE_HEADER=1 cargo test -p normkit-capi --test header` after a change.
//!
//! Every `extern "C"` function is a line: `status::guard` turns errors and panics into a status and a message. What C passes is read
//! in `pointers`, `tensor` and `read` only.

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "the comments are C's, whose brackets are indices and shapes"
)]
#![allow(
    clippy::missing_safety_doc,
    reason = "the header's introduction says once what all pointers must be"
)]

mod call;
mod context;
mod method;
mod norm;
mod options;
mod pointers;
#[cfg(feature = "provoke")]
mod provoke;
mod read;
mod status;
mod tensor;
mod version;

pub use call::*;
pub use context::*;
pub use norm::*;
pub use options::*;
#[cfg(feature = "provoke")]
pub use provoke::normkit_provoke_panic;
pub use status::{Status, normkit_last_error_message, normkit_status_name};
pub use tensor::{DType, NORMKIT_MAX_NDIM, Tensor};
pub use version::*;
