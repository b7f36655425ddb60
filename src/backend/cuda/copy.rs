//! The driver's own copy: the floor of the benchmarks.

use super::CudaStream;
use crate::tensor::{Layout, Memory, View, ViewMut};
use crate::{Error, Result};

/// Copies `input` to `output`, of the same shape and dtype and both row-major without gaps, as fast as the driver can. What a
/// norm takes longer than this for as many bytes is not the memory's doing.
pub fn copy(input: &View<'_>, output: &mut ViewMut<'_>, stream: &CudaStream<'_>) -> Result<()> {
    let output = output.as_view();
    if output.shape() != input.shape() || output.dtype() != input.dtype() {
        let name = |view: &View<'_>| format!("shape {:?} and dtype {}", view.shape(), view.dtype());
        return Err(Error::argument("output", name(input), name(&output)));
    }
    let bytes = input.layout().len() * input.dtype().size();
    let (from, to) = (first("input", input, stream)?, first("output", &output, stream)?);
    if bytes > 0 && from < to + bytes as u64 && to < from + bytes as u64 {
        return Err(Error::argument("output", "memory apart from the input's", "memory that overlaps it"));
    }
    stream.copy(to, from, bytes)
}

/// Where the elements of a row-major view begin.
fn first(name: &'static str, view: &View<'_>, stream: &CudaStream<'_>) -> Result<u64> {
    if view.layout().strides() != Layout::contiguous(view.shape()).strides() {
        return Err(Error::argument(name, "row-major strides", format!("{:?}", view.layout().strides())));
    }
    match &view.memory {
        Memory::Cuda(range) if range.device() == stream.device() => {
            Ok(range.address() + (view.layout().offset() * view.dtype().size()) as u64)
        }
        _ => Err(Error::argument(name, "memory of the stream's device", "memory elsewhere")),
    }
}
