//! P3: the same call gives the same bits, and a row the same bits in any company, place, layout, on any instruction
//! set and any number of threads.

mod common;

use normkit::backend::cpu::{Cpu, Isa};
#[cfg(feature = "wgpu")]
use normkit::check::Fill;
use normkit::check::{Case, Computed, compute};
use normkit::spec::Statistic;
use normkit::tensor::DType;
use normkit::{Device, Stream};

fn bits(case: &Case, stream: &Stream<'_>) -> Vec<(&'static str, Vec<u64>)> {
    let results = compute(case, stream).unwrap_or_else(|error| panic!("{case:?}: {error}"));
    results.iter().map(|r: &Computed| (r.name, r.bits())).collect()
}

#[track_caller]
fn assert_same(case: &Case, what: &str, a: &[(&'static str, Vec<u64>)], b: &[(&'static str, Vec<u64>)]) {
    for ((name, a), (_, b)) in a.iter().zip(b) {
        let differs = a.iter().zip(b).position(|(a, b)| a != b);
        assert!(
            differs.is_none() && a.len() == b.len(),
            "{} {} {:?}: {name} differs {what} at element {differs:?} of {}",
            case.method,
            case.dtype,
            case.name,
            a.len()
        );
    }
}

#[test]
fn the_same_call_gives_the_same_bits() {
    for device in common::devices() {
        for case in common::varied(&device) {
            let (first, second) = (bits(&case, &device.stream()), bits(&case, &device.stream()));
            assert_same(&case, "from call to call", &first, &second);
        }
    }
}

/// One row asked for alone, and at another position in a smaller batch, is the row of the large batch.
#[test]
fn a_row_has_the_same_bits_in_any_batch() {
    for device in common::devices() {
        for case in common::varied(&device) {
            let (rows, _) = common::dim(&case);
            let batch = bits(&case, &device.stream());
            let chosen = rows / 2;
            for alone in common::parts_around(&case, chosen) {
                let (first, (count, _)) = (alone.first_row, common::dim(&alone));
                let part_bits = bits(&alone, &device.stream());
                for ((name, whole), (_, part)) in batch.iter().zip(&part_bits).take(2) {
                    let expected = &common::rows_of(&case, whole)[chosen];
                    let found = &common::rows_of(&alone, part)[chosen - first];
                    assert_eq!(expected, found, "{name} of {case:?} as row {} of {count}", chosen - first);
                }
            }
        }
    }
}

/// Parameter gradients too.
#[test]
fn strides_and_alignment_do_not_change_a_bit() {
    for device in common::devices() {
        for case in common::varied(&device) {
            let contiguous = bits(&case, &device.stream());
            for moved in common::moved(&device, &case) {
                let what = format!("as {:?}, one buffer: {},", moved.placement, moved.one_buffer);
                assert_same(&case, &what, &contiguous, &bits(&moved, &device.stream()));
            }
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let portable = Stream::Cpu(Cpu::default());
    assert!(!Isa::available().is_empty());
    for case in common::varied(&Device::Cpu) {
        let expected = bits(&case, &portable);
        for (isa, stream) in common::instruction_sets() {
            assert_same(&case, &format!("on {isa}"), &expected, &bits(&case, &stream));
        }
    }
}

#[test]
fn every_number_of_threads_gives_the_same_bits() {
    let on = |threads| Stream::Cpu(Cpu::default().with_threads(threads).expect("threads"));
    let (one, several) = (on(1), [on(2), on(3), on(7)]);
    // Enough elements that work is worth spreading.
    for dtype in [DType::BF16, DType::F32, DType::F64] {
        for (rows, cols) in [(4200, 33), (300, 769), (2, 65_537)] {
            let mut with_branch = common::branches(dtype);
            for case in &mut with_branch {
                case.shape = Case::matrix(case.method, dtype, rows, cols).shape;
            }
            let both = common::sandwich(Case::matrix("rms_norm", dtype, rows, cols), Statistic::Moments);
            for case in common::matrices(dtype, rows, cols).chain(with_branch).chain([both]) {
                let expected = bits(&case, &one);
                for stream in &several {
                    assert_same(&case, "with more threads", &expected, &bits(&case, stream));
                }
            }
        }
    }
}

/// Several threads call the norms of one device and read the results while the others do.
#[test]
fn threads_that_share_a_device_get_the_bits_of_one() {
    const THREADS: usize = 8;
    for device in common::devices() {
        let cases: Vec<Case> = common::matrices(DType::F32, 5, 70).collect();
        let expected: Vec<_> = cases.iter().map(|case| bits(case, &device.stream())).collect();
        let rounds = if device.backend() == "cuda" { 1 } else { 6 };
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (cases, expected, device) = (&cases, &expected, &device);
                scope.spawn(move || {
                    for i in (0..rounds * cases.len()).map(|i| (i + thread) % cases.len()) {
                        assert_same(
                            &cases[i],
                            "beside others",
                            &expected[i],
                            &bits(&cases[i], &device.stream()),
                        );
                    }
                });
            }
        });
    }
}

/// Complains of every result whose bits differ between the CPU and the stream.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
#[track_caller]
fn assert_bits_of_the_cpu(cases: Vec<Case>, stream: &Stream<'_>) {
    let mut different = Vec::new();
    for case in cases {
        let (cpu, other) = (bits(&case, &Device::Cpu.stream()), bits(&case, stream));
        for ((name, cpu), (_, other)) in cpu.iter().zip(&other) {
            let count = cpu.iter().zip(other).filter(|(a, b)| a != b).count();
            if count > 0 {
                let of = cpu.len();
                different
                    .push(format!("{} {} {}: {name}: {count} of {of}", case.method, case.dtype, case.name));
            }
        }
    }
    let backend = stream.device().backend();
    assert!(
        different.is_empty(),
        "elements that differ between cpu and {backend}:\n{}",
        different.join("\n")
    );
}

/// Of every method in every dtype; `cuda_schedules` has every schedule.
#[cfg(feature = "cuda")]
#[test]
fn cuda_gives_the_bits_of_the_cpu() {
    let device = Device::Cuda(common::cuda_device());
    assert_bits_of_the_cpu(common::varied(&device), &device.stream());
}

/// The software adapter's arithmetic rounds as the CPU's does, so the bits must be equal. (An adapter whose arithmetic
/// differs would make this fail and show where; it keeps the promise on numbers all the same.)
#[cfg(feature = "wgpu")]
#[test]
fn wgpu_gives_the_bits_of_the_cpu() {
    let device = Device::Wgpu(common::wgpu_device());
    assert_bits_of_the_cpu(common::varied(&device), &device.stream());
}

/// A few small cases that pass through every part of the row kernels: what the mutations of shaders are run against.
#[cfg(feature = "wgpu")]
fn sample() -> Vec<Case> {
    let case = |method, rows, cols, input, name: &str| {
        let mut case = Case::matrix(method, DType::F32, rows, cols);
        (case.input, case.name) = (input, name.into());
        case
    };
    vec![
        case("layer_norm", 40, 70, Fill::Normal { mean: 100.0, deviation: 0.5 }, "many rows, a tail"),
        case("layer_norm", 3, 9001, Fill::UNIT, "three leaves"),
        case("rms_norm", 5, 70, Fill::Uniform(1e30), "rows out of range"),
        case("dyt", 600, 5, Fill::UNIT, "many chunks"),
        case("batch_norm", 40, 70, Fill::Normal { mean: 100.0, deviation: 0.5 }, "channels"),
        case("layer_norm_2d", 70, 40, Fill::UNIT, "positions"),
        case("group_norm", 3, 9002, Fill::UNIT, "groups of three leaves"),
        case("weight_norm", 40, 70, Fill::ZeroRow, "vectors"),
    ]
}

#[cfg(feature = "wgpu")]
#[test]
fn a_sample_on_wgpu_gives_the_bits_of_the_cpu() {
    let device = Device::Wgpu(common::wgpu_device());
    assert_bits_of_the_cpu(sample(), &device.stream());
}

/// The same without subgroups, through workgroup memory and barriers.
#[cfg(feature = "wgpu")]
#[test]
fn a_sample_without_subgroups_gives_the_bits_of_the_cpu() {
    let device = common::wgpu_device_without_subgroups();
    assert_bits_of_the_cpu(sample(), &Device::Wgpu(device).stream());
}
