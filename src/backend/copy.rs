//! What every backend's copy asks of its tensors.

use crate::tensor::{Layout, View};
use crate::{Error, Result};

/// Both have one shape and one dtype.
pub(super) fn check_alike(input: &View<'_>, output: &View<'_>) -> Result<()> {
    if output.shape() == input.shape() && output.dtype() == input.dtype() {
        return Ok(());
    }
    let name = |view: &View<'_>| format!("shape {:?} and dtype {}", view.shape(), view.dtype());
    Err(Error::argument("output", name(input), name(output)))
}

/// The elements lie in line.
pub(super) fn check_in_line(name: &'static str, view: &View<'_>) -> Result<()> {
    if view.layout().strides() == Layout::contiguous(view.shape()).strides() {
        return Ok(());
    }
    Err(Error::argument(name, "row-major strides", format!("{:?}", view.layout().strides())))
}

/// So many bytes from either address on do not meet.
pub(super) fn check_apart(from: u64, to: u64, bytes: u64) -> Result<()> {
    if bytes > 0 && from < to + bytes && to < from + bytes {
        return Err(Error::argument("output", "memory apart from the input's", "memory that overlaps it"));
    }
    Ok(())
}
