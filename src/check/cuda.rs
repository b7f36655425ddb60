//! A case's operands in memory of a CUDA device.

use super::arena::Arena;
use super::case::Case;
use super::execute::Views;
use crate::backend::cuda::{CudaDevice, CudaTensor};
use crate::tensor::{DType, HostTensor, View, ViewMut};
use crate::{Result, Stream};
use std::ops::Range;

/// Uploads the arena, as one block or as one for each operand, runs the case and brings the bytes back.
pub(super) fn run(case: &Case, arena: &mut Arena, stream: &Stream<'_>, device: &CudaDevice) -> Result<()> {
    let ranges = arena.ranges();
    let blocks: Vec<CudaTensor> =
        ranges.iter().map(|range| upload(&arena.bytes()[range.clone()], device)).collect::<Result<_>>()?;
    views(arena, &ranges, &blocks, device)?.run(case, stream)?;
    for (range, block) in ranges.into_iter().zip(&blocks) {
        let bytes = block.read()?;
        arena.bytes_mut()[range].copy_from_slice(bytes.bytes());
    }
    Ok(())
}

/// The operands, in blocks that hold the arena's `ranges`.
fn views<'a>(
    arena: &Arena,
    ranges: &[Range<usize>],
    blocks: &'a [CudaTensor],
    device: &CudaDevice,
) -> Result<Views<'a>> {
    let mut views = Views::default();
    for (index, slot) in arena.slots().iter().enumerate() {
        let at = if arena.one_buffer() { 0 } else { index };
        let address = blocks[at].address() + (slot.bytes.start - ranges[at].start) as u64;
        let (bytes, layout) = (slot.bytes.len() as u64, slot.layout.clone());
        // SAFETY: the blocks hold the slots' bytes and outlive the views; slots do not overlap.
        unsafe {
            if slot.written {
                let view = ViewMut::from_cuda(device, address, bytes, slot.dtype, layout)?;
                views.written.push((slot.name, view));
            } else {
                let view = View::from_cuda(device, address, bytes, slot.dtype, layout)?;
                views.read.push((slot.name, view));
            }
        }
    }
    Ok(views)
}

/// A block of exactly these bytes, so that a step beyond them is one beyond the block. Every dtype has an even size.
fn upload(bytes: &[u8], device: &CudaDevice) -> Result<CudaTensor> {
    let mut tensor = HostTensor::zeros(&[bytes.len() / 2], DType::F16)?;
    tensor.bytes_mut().copy_from_slice(bytes);
    device.upload(&tensor)
}
