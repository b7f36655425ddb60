//! Two norms of one call, queries' and keys': one round of the threads, one launch of a kernel, and the bits of two calls.

mod common;
#[path = "common/pairs.rs"]
mod pairs;

use common::wave;
use normkit::backend::cpu::{Cpu, Pool};
use normkit::prelude::*;
use normkit::spec::RotaryStyle::{HalfSplit, Interleaved};
use normkit::tensor::DType;
use normkit::{Device, Stream};
use pairs::{Call, Place, differences};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Calls as models make them: as many key heads as query heads, fewer, and one.
fn usual() -> Vec<Call> {
    let mut calls = Vec::new();
    for (heads, place) in [
        ([6, 6], Place::Apart),
        ([6, 2], Place::Apart),
        ([6, 6], Place::Packed),
        ([6, 2], Place::Packed),
        ([6, 1], Place::Packed),
        ([6, 2], Place::HeadsFirst),
    ] {
        for rotary in [None, Some((HalfSplit, false)), Some((HalfSplit, true)), Some((Interleaved, false))] {
            calls.push(Call { rotary, ..Call::new(DType::BF16, heads, place) });
        }
        calls.push(Call { statistics: false, ..Call::new(DType::F32, heads, place) });
    }
    calls
}

/// Other norms and dtypes, more rows, and heads so long that no cache has one.
fn others() -> Vec<Call> {
    let of = |dtype, heads, place| Call::new(dtype, heads, place);
    let mut calls = vec![
        Call { norm: QkNorm::layer, ..of(DType::F32, [4, 2], Place::Apart) },
        Call { norm: QkNorm::l2, ..of(DType::F16, [4, 4], Place::Packed) },
        Call { tokens: [2, 700], ..of(DType::F32, [4, 1], Place::Packed) },
        Call { norm: QkNorm::layer, dim: 9000, tokens: [1, 3], ..of(DType::BF16, [2, 1], Place::Packed) },
        Call { alike: false, ..of(DType::BF16, [4, 2], Place::Packed) },
        // No rows.
        Call { tokens: [0, 5], ..of(DType::F32, [4, 2], Place::Apart) },
        // Heads of 40 bytes.
        Call { dim: 20, ..of(DType::BF16, [3, 1], Place::Packed) },
    ];
    calls.push(Call { rotary: Some((HalfSplit, true)), tokens: [1, 1100], ..calls[0] });
    calls
}

/// What differs between one call and two.
fn check(call: &Call, stream: &Stream<'_>, what: &str) -> Vec<String> {
    let cpu = Device::Cpu.stream();
    let expected = call.results(false, &cpu).unwrap();
    let found = call.results(true, stream).unwrap_or_else(|error| panic!("{call:?}, {what}: {error}"));
    let different = differences(&expected, &found);
    different.into_iter().map(|of| format!("{call:?}, {what}: {of}")).collect()
}

fn check_all(calls: &[Call], stream: &Stream<'_>, what: &str) {
    let different: Vec<String> = calls.iter().flat_map(|call| check(call, stream, what)).collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// Threads that count the rounds they are called for.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

impl Pool for Counting {
    fn threads(&self) -> usize {
        3
    }
    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        self.0.fetch_add(1, Ordering::Relaxed);
        std::thread::scope(|scope| {
            for i in 0..3 {
                scope.spawn(move || work(i));
            }
        });
    }
}

#[test]
fn the_cpu_gives_the_bits_of_two_calls() {
    let calls = [usual(), others()].concat();
    check_all(&calls, &Device::Cpu.stream(), "as usual");
    for (isa, stream) in common::instruction_sets() {
        check_all(&calls, &stream, isa.name());
    }
    for schedule in [normkit::backend::cpu::Schedule::Split, normkit::backend::cpu::Schedule::Column] {
        check_all(&calls, &Stream::Cpu(Cpu::default().with_schedule(schedule)), &format!("{schedule:?}"));
    }
}

#[test]
fn the_cpu_takes_both_in_one_round_of_its_threads() {
    for (place, rotary) in [(Place::Packed, None), (Place::Apart, Some((HalfSplit, false)))] {
        let pool = Arc::new(Counting::default());
        let stream = Stream::Cpu(Cpu::default().with_pool(pool.clone()));
        let rounds = |together: bool, call: &Call| {
            let before = pool.0.load(Ordering::Relaxed);
            call.results(together, &stream).unwrap();
            pool.0.load(Ordering::Relaxed) - before
        };
        let call =
            Call { tokens: [2, 400], rotary, statistics: false, ..Call::new(DType::F32, [16, 8], place) };
        assert_eq!((rounds(true, &call), rounds(false, &call)), (1, 2), "{call:?}");
        assert!(check(&call, &stream, "three threads").is_empty());
        // The backward pass, too.
        let both = Call { statistics: true, ..call };
        assert_eq!((rounds(true, &both), rounds(false, &both)), (2, 4), "{both:?}");
        assert!(check(&both, &stream, "three threads").is_empty());
        // Neither alone is worth waking threads for.
        let call = Call { tokens: [1, 200], heads: [6, 6], dim: 64, ..call };
        assert_eq!((rounds(true, &call), rounds(false, &call)), (1, 0), "{call:?}");
    }
}

#[cfg(feature = "wgpu")]
#[test]
fn webgpu_gives_the_bits_of_two_calls() {
    let stream = Device::Wgpu(common::wgpu_device()).stream();
    let calls = usual();
    check_all(&[calls[0], calls[11], calls[17]], &stream, "WebGPU");
}

#[cfg(feature = "cuda")]
mod cuda {
    use super::*;
    use normkit::backend::cuda::{CudaDevice, HostOptions, Overrides, Schedule, Style};

    fn device(schedule: Schedule) -> CudaDevice {
        let device = match std::env::var_os("NORMKIT_TEST_GPU") {
            Some(_) => CudaDevice::new(),
            None => CudaDevice::host_with(&HostOptions { schedule, workers: 2, ..HostOptions::default() }),
        };
        device.unwrap_or_else(|error| panic!("{error}"))
    }

    /// How often a call launches kernels.
    fn launches(device: &CudaDevice, call: &Call, together: bool, overrides: Overrides) -> usize {
        let stream = device.listing().with_overrides(overrides).unwrap();
        call.results(together, &Stream::Cuda(stream.clone())).unwrap();
        stream.launches()
    }

    /// Without the backward pass, which follows where there are statistics.
    fn forward(calls: Vec<Call>) -> Vec<Call> {
        calls.into_iter().map(|call| Call { statistics: false, ..call }).collect()
    }

    #[test]
    fn usual_calls_are_one_launch() {
        let device = device(Schedule::Ascending);
        for call in forward(usual()) {
            let [one, two] =
                [true, false].map(|together| launches(&device, &call, together, Overrides::default()));
            assert_eq!((one, two), (1, 2), "{call:?}");
        }
        // Of the backward pass, each step.
        for call in usual() {
            let [one, two] =
                [true, false].map(|together| launches(&device, &call, together, Overrides::default()));
            assert_eq!(2 * one, two, "{call:?}");
        }
    }

    #[test]
    fn other_calls_are_two_launches_where_kernels_differ() {
        let device = device(Schedule::Ascending);
        // Rows of several leaves take three steps.
        for (call, expected) in forward(others()).iter().zip([1, 1, 1, 3, 2, 0, 1, 1]) {
            assert_eq!(launches(&device, call, true, Overrides::default()), expected, "{call:?}");
        }
    }

    /// Every way to run a norm.
    fn forced() -> Vec<(&'static str, Overrides)> {
        let of = |change: fn(&mut Overrides)| {
            let mut overrides = Overrides::default();
            change(&mut overrides);
            overrides
        };
        vec![
            ("as the device chooses", Overrides::default()),
            ("row, read again", of(|o| (o.style, o.steps) = (Some(Style::Row), Some(0)))),
            ("row, a block for each", of(|o| (o.style, o.threads) = (Some(Style::Row), Some(64)))),
            ("column", of(|o| o.style = Some(Style::Column))),
            ("row split", of(|o| (o.style, o.split) = (Some(Style::Row), true))),
            ("leaves in two blocks", of(|o| (o.leaves, o.cluster) = (Some(2), Some(2)))),
            ("parameters beside the input", of(|o| o.fused = Some(true))),
        ]
    }

    #[test]
    fn every_geometry_gives_the_bits_of_two_calls() {
        let calls = [&usual()[11..=14], &usual()[20..22], &others()].concat();
        let listing = device(Schedule::Ascending).listing();
        for (_, overrides) in forced() {
            for call in &calls {
                let stream = Stream::Cuda(listing.clone().with_overrides(overrides).unwrap());
                call.results(true, &stream).unwrap();
            }
        }
        let kernels = listing.kernels();
        assert!(kernels.iter().any(|kernel| kernel.describe().contains("2 problems")));
        let mut different = Vec::new();
        for order in [Schedule::Ascending, Schedule::Descending, Schedule::Random] {
            let device = device(order);
            // Together: one by one they would take several times as long.
            device.compile_kernels(&kernels).unwrap_or_else(|error| panic!("{error}"));
            for (name, overrides) in forced() {
                let stream = Stream::Cuda(device.stream().with_overrides(overrides).unwrap());
                let few = calls.iter().filter(|call| order == Schedule::Ascending || call.tokens[1] < 100);
                different.extend(few.flat_map(|call| check(call, &stream, &format!("{name}, {order:?}"))));
            }
        }
        assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
    }
}
