//! Modules with the names, configurations and fields of burn's own, so that records of one load into the other.

mod channels;
mod columns;
mod heads;

pub use channels::{
    BatchNorm, BatchNormConfig, GroupNorm, GroupNormConfig, InstanceNorm, InstanceNormConfig,
};
pub use columns::{DyT, DyTConfig, LayerNorm, LayerNormConfig, RmsNorm, RmsNormConfig};
pub use heads::{QkNorm, QkNormConfig};

use burn::module::DisplaySettings;

/// What `forward` does with an error: burn's modules have no other way to tell.
fn told<T>(result: crate::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// Modules are shown on a line.
fn on_a_line() -> Option<DisplaySettings> {
    DisplaySettings::new().with_new_line_after_attribute(false).optional()
}
