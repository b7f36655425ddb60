//! Plans: pure functions from a spec and layouts to how the work is cut.
//!
//! [`tree`] fixes the order of every sum, the same on every device. [`fold`] turns tensors of any rank and strides
//! into rows and columns. What depends on a device's limits is in that backend's own `geometry`.

mod fold;
pub mod tree;

pub use fold::{Grid, Walk, fold};
pub(crate) use fold::{RowOffsets, fold_in_order};
