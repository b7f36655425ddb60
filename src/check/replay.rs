//! Cases that run elsewhere: what to launch there, and the verdict on what came back.

use super::case::Case;
use super::execute::Executed;
use super::judge::{self, Outcome};
use super::operands::arena;
use super::wgpu::views;
use crate::backend::wgpu::{RecordedBinding, RecordedDispatch, WgpuTensor};
use crate::tensor::DType;
use crate::{Error, Result, Stream};
use std::ops::Range;

/// A case's forward and backward pass as memory and dispatches.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Replay {
    /// The operands' memory before the passes, guards included.
    pub memory: Vec<u8>,
    /// The buffers that the dispatches bind.
    pub buffers: Vec<ReplayBuffer>,
    /// The dispatches in their order; their bindings count `buffers`.
    pub dispatches: Vec<RecordedDispatch>,
}

/// A buffer to be made before the passes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayBuffer {
    /// Bytes, a multiple of four.
    pub size: u64,
    /// The bytes of the memory that it begins with, and that its contents replace after the passes; none for a
    /// workspace. What no memory fills is zero.
    pub memory: Option<Range<usize>>,
}

impl Replay {
    /// Whether no dispatch binds overlapping ranges of a buffer to write one of them, which WebGPU forbids and native
    /// implementations let pass. It does so where operands share a buffer closer than bindings can begin.
    pub fn is_portable(&self) -> bool {
        let clash = |a: &RecordedBinding, b: &RecordedBinding| {
            let apart =
                a.buffer != b.buffer || a.offset + a.size <= b.offset || b.offset + b.size <= a.offset;
            !apart && (a.writable || b.writable)
        };
        self.dispatches.iter().all(|dispatch| {
            let bound = &dispatch.storage;
            bound.iter().enumerate().all(|(i, a)| !bound[i + 1..].iter().any(|b| clash(a, b)))
        })
    }
}

/// Writes down what `case` launches; the stream is one of a [recording](crate::backend::wgpu::WgpuDevice::recording)
/// device.
pub fn record(case: &Case, stream: &Stream<'_>) -> Result<Replay> {
    let Stream::Wgpu(wgpu) = stream else {
        return Err(Error::argument("stream", "a stream on a recording device", "a stream on the CPU"));
    };
    let device = wgpu.device();
    let arena = arena(case)?;
    let ranges = arena.ranges();
    let make = |range: &Range<usize>| device.zeros(&[range.len().div_ceil(4)], DType::F32);
    let operands: Vec<WgpuTensor> = ranges.iter().map(make).collect::<Result<_>>()?;
    // What a failed case may have left behind.
    device.take_recording();
    views(&arena, &ranges, &operands, device)?.run(case, stream)?;
    let recording = device.take_recording();
    let buffers = recording.buffers.iter().map(|buffer| {
        let operand = operands.iter().position(|operand| operand.buffer() == buffer);
        ReplayBuffer { size: buffer.size(), memory: operand.map(|index| ranges[index].clone()) }
    });
    Ok(Replay {
        memory: arena.bytes().to_vec(),
        buffers: buffers.collect(),
        dispatches: recording.dispatches,
    })
}

/// Judges the operands' memory after the passes of `case` have run elsewhere, as [`run`](super::run) does here.
pub fn judge_replay(case: &Case, memory: &[u8]) -> Result<Outcome> {
    let mut arena = arena(case)?;
    let before = arena.bytes().to_vec();
    if memory.len() != before.len() {
        let bytes = |n: usize| format!("{n} bytes");
        return Err(Error::argument("memory", bytes(before.len()), bytes(memory.len())));
    }
    arena.bytes_mut().copy_from_slice(memory);
    judge::judge(case, &Executed::new(&arena, &before), true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::wgpu::WgpuDevice;

    #[test]
    fn a_recording_can_be_repeated_from_what_it_says() {
        let device = WgpuDevice::recording(Some(4)).unwrap();
        for method in super::super::METHODS {
            let mut case = Case::matrix(method, DType::F16, 5, 33);
            case.weight_dtype = DType::F32;
            let replay = record(&case, &Stream::Wgpu(device.stream())).unwrap();
            assert!(replay.dispatches.len() >= 2, "{method}");
            for dispatch in &replay.dispatches {
                assert!(dispatch.source.contains(&format!("fn {}(", dispatch.entry)), "{}", dispatch.entry);
                assert_eq!(dispatch.params[0], 0, "`zero` is the first of the parameters");
                for binding in &dispatch.storage {
                    let buffer = &replay.buffers[binding.buffer];
                    assert!(binding.offset.is_multiple_of(256) && binding.size.is_multiple_of(4));
                    assert!(binding.offset + binding.size <= buffer.size);
                }
            }
            let within = |buffer: &ReplayBuffer| {
                buffer
                    .memory
                    .as_ref()
                    .is_none_or(|m| m.end <= replay.memory.len() && m.len() as u64 <= buffer.size)
            };
            assert!(replay.buffers.iter().all(within), "{:?}", replay.buffers);
        }
    }

    #[test]
    fn bindings_that_overlap_are_seen() {
        let device = WgpuDevice::recording(None).unwrap();
        let case = Case::matrix("rms_norm", DType::F32, 4, 70);
        let mut replay = record(&case, &Stream::Wgpu(device.stream())).unwrap();
        assert!(replay.is_portable());
        let storage = &mut replay.dispatches[0].storage;
        let written = storage.iter().position(|binding| binding.writable).unwrap();
        let other = (written + 1) % storage.len();
        storage[other].buffer = storage[written].buffer;
        storage[other].offset = storage[written].offset + storage[written].size - 4;
        assert!(!replay.is_portable());
        replay.dispatches[0].storage[other].offset += 4;
        assert!(replay.is_portable());
    }

    #[test]
    fn what_was_not_written_is_not_taken_for_a_result() {
        let case = Case::matrix("rms_norm", DType::F32, 3, 20);
        let untouched = arena(&case).unwrap().bytes().to_vec();
        assert!(!judge_replay(&case, &untouched).unwrap().passed());
        assert!(judge_replay(&case, &untouched[1..]).is_err());
    }

    #[test]
    fn only_recording_devices_record() {
        let case = Case::matrix("dyt", DType::F32, 3, 20);
        let error = record(&case, &crate::Device::Cpu.stream()).unwrap_err();
        assert!(error.to_string().contains("recording"), "{error}");
        assert!(WgpuDevice::recording(Some(12)).is_err());
        let plain = WgpuDevice::recording(None).unwrap();
        let replay = record(&case, &Stream::Wgpu(plain.stream())).unwrap();
        assert!(replay.dispatches.iter().all(|d| !d.source.contains("enable subgroups")));
    }
}
