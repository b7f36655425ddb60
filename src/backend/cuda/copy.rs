//! The driver's own copy: the floor of the benchmarks.

use super::CudaStream;
use crate::backend::copy::{check_alike, check_apart, check_in_line};
use crate::tensor::{Memory, View, ViewMut};
use crate::{Error, Result};

/// Copies `input` to `output`, of the same shape and dtype and both row-major without gaps, as fast as the driver can. What a
/// norm takes longer than this for as many bytes is not the memory's doing.
pub fn copy(input: &View<'_>, output: &mut ViewMut<'_>, stream: &CudaStream<'_>) -> Result<()> {
    let output = output.as_view();
    check_alike(input, &output)?;
    let bytes = input.layout().len() * input.dtype().size();
    let (from, to) = (first("input", input, stream)?, first("output", &output, stream)?);
    check_apart(from, to, bytes as u64)?;
    stream.copy(to, from, bytes)
}

/// Where the elements of a row-major view begin.
fn first(name: &'static str, view: &View<'_>, stream: &CudaStream<'_>) -> Result<u64> {
    check_in_line(name, view)?;
    match &view.memory {
        Memory::Cuda(range) if range.device() == stream.device() => {
            Ok(range.address() + (view.layout().offset() * view.dtype().size()) as u64)
        }
        _ => Err(Error::argument(name, "memory of the stream's device", "memory elsewhere")),
    }
}
