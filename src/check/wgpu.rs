//! A case's operands in GPU buffers.

use super::arena::Arena;
use super::case::Case;
use super::execute::Views;
use crate::backend::wgpu::{WgpuDevice, WgpuTensor};
use crate::tensor::{HostTensor, View, ViewMut};
use crate::{Result, Stream};
use std::ops::Range;

/// Uploads the arena, as one buffer or as one for each operand, runs the case and brings the bytes back.
pub(super) fn run(case: &Case, arena: &mut Arena, stream: &Stream<'_>, device: &WgpuDevice) -> Result<()> {
    let ranges = arena.ranges();
    let buffers: Vec<WgpuTensor> =
        ranges.iter().map(|range| upload(&arena.bytes()[range.clone()], device)).collect::<Result<_>>()?;
    views(arena, &ranges, &buffers, device)?.run(case, stream)?;
    for (range, buffer) in ranges.into_iter().zip(&buffers) {
        let bytes = buffer.read()?;
        let len = range.len();
        arena.bytes_mut()[range].copy_from_slice(&bytes.bytes()[..len]);
    }
    Ok(())
}

/// The operands, in buffers that hold the arena's `ranges`.
pub(super) fn views<'a>(
    arena: &Arena,
    ranges: &[Range<usize>],
    buffers: &'a [WgpuTensor],
    device: &WgpuDevice,
) -> Result<Views<'a>> {
    let mut views = Views::default();
    for (index, slot) in arena.slots().iter().enumerate() {
        let at = if arena.one_buffer() { 0 } else { index };
        let (buffer, first) = (buffers[at].buffer(), ranges[at].start);
        let range = (slot.bytes.start - first) as u64..(slot.bytes.end - first) as u64;
        if slot.written {
            let view = ViewMut::from_buffer(device, buffer, range, slot.dtype, slot.layout.clone())?;
            views.written.push((slot.name, view));
        } else {
            let view = View::from_buffer(device, buffer, range, slot.dtype, slot.layout.clone())?;
            views.read.push((slot.name, view));
        }
    }
    Ok(views)
}

/// A buffer that begins with `bytes`, which begin at a multiple of the widest dtype.
fn upload(bytes: &[u8], device: &WgpuDevice) -> Result<WgpuTensor> {
    let mut words = vec![0f32; bytes.len().div_ceil(4)];
    bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
    let len = words.len();
    device.upload(&HostTensor::from_vec(words, &[len])?)
}
