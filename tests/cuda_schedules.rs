//! The CUDA kernels, on the CPU: every schedule and geometry that they can be forced to gives the bits of the CPU backend,
//! in whatever order the threads of a block run.
#![cfg(feature = "cuda")]

#[path = "common/any_spec.rs"]
mod any_spec;

use any_spec::{Problem, differences, elementwise, results};
use normkit::backend::cuda::{CudaDevice, HostOptions, Overrides, Schedule, Style};
use normkit::spec::Statistic;
use normkit::tensor::DType;
use normkit::{Device, Stream};
use std::process::Command;

/// Says that kernels are to be compiled with AddressSanitizer.
const SANITIZED: &str = "NORMKIT_TEST_SANITIZED";

/// A device whose blocks run their threads in this order; or a GPU, which has its own, where the environment asks for it.
fn device(schedule: Schedule) -> CudaDevice {
    let sanitize = std::env::var_os(SANITIZED).is_some();
    let options = HostOptions { schedule, sanitize, ..HostOptions::default() };
    let device = match std::env::var_os("NORMKIT_TEST_GPU") {
        Some(_) => CudaDevice::new(),
        None => CudaDevice::host_with(&options),
    };
    device.unwrap_or_else(|error| panic!("{error}"))
}

/// Each way to run a norm.
fn forced() -> Vec<(&'static str, Overrides)> {
    let of = |change: fn(&mut Overrides)| {
        let mut overrides = Overrides::default();
        change(&mut overrides);
        overrides
    };
    vec![
        ("as the device chooses", Overrides::default()),
        ("row, read again", of(|o| (o.style, o.steps) = (Some(Style::Row), Some(0)))),
        ("row, single columns", of(|o| (o.style, o.width) = (Some(Style::Row), Some(1)))),
        ("row, a block for each", of(|o| (o.style, o.threads) = (Some(Style::Row), Some(64)))),
        ("column", of(|o| o.style = Some(Style::Column))),
        ("row split", of(|o| (o.style, o.split) = (Some(Style::Row), true))),
        ("column split", of(|o| (o.style, o.split) = (Some(Style::Column), true))),
        ("all leaves in a block", of(|o| o.leaves = Some(32))),
        ("leaves in two blocks", of(|o| (o.leaves, o.cluster) = (Some(2), Some(2)))),
        ("parameters beside the input", of(|o| o.fused = Some(true))),
    ]
}

/// Complains of everything that a forced schedule computes otherwise than the CPU.
fn check(problems: &[Problem]) {
    check_in_order(problems, Schedule::Ascending, &forced());
}

fn check_in_order(problems: &[Problem], order: Schedule, forced: &[(&'static str, Overrides)]) {
    let device = device(order);
    let mut different = Vec::new();
    for problem in problems {
        let expected = results(problem, &Device::Cpu.stream());
        for &(name, overrides) in forced {
            let stream = Stream::Cuda(device.stream().with_overrides(overrides).unwrap());
            let what = format!("{name} of {problem:?}");
            different.extend(differences(&expected, &results(problem, &stream), &what));
        }
    }
    assert!(different.is_empty(), "{} results differ:\n{}", different.len(), different.join("\n"));
}

#[test]
fn batch_norm_in_both_memory_orders() {
    check(&any_spec::batch_norm_in_both_memory_orders());
}

#[test]
fn group_norm_and_norms_of_columns() {
    check(&any_spec::group_norm_and_norms_of_columns());
}

#[test]
fn masks_and_dtypes() {
    check(&any_spec::masks_and_dtypes());
}

#[test]
fn rows_out_of_range_and_far_from_zero() {
    check(&any_spec::rows_out_of_range_and_far_from_zero());
}

#[test]
fn other_norms_and_long_rows() {
    check(&any_spec::other_norms_and_long_rows());
}

#[test]
fn powers() {
    check(&any_spec::powers());
}

/// Rows of one leaf whose columns have their own parameters, and of several.
fn a_parameter_for_each_column() -> Vec<Problem> {
    let of = |rows, cols| Problem::new(&[rows, cols], &[1], &[1], Statistic::Moments);
    vec![
        of(40, 70),
        of(35, 300),
        Problem { rise: 1e5, ..of(100, 1024) },
        of(18, 3000),
        of(3, 20_000),
        // Chunks of more than one row leaf.
        of(4200, 24),
        Problem { dtype: DType::BF16, statistic: Statistic::MeanSquare, round: true, ..of(50, 512) },
        Problem { dtype: DType::F16, mask: true, ..of(19, 2048) },
        Problem { values: (0.0, 1e30), eps: 0.0, ..of(17, 64) },
        // Products with the gradient leave the range of normal numbers, and the result is within.
        Problem { values: (0.0, 1e-4), eps: 0.0, gradient: 1e-38, ..of(17, 64) },
    ]
}

#[test]
fn parameters_of_columns() {
    check(&a_parameter_for_each_column());
}

/// Backwards, and interleaved at random within warps.
#[test]
fn threads_in_any_order() {
    let problems: Vec<Problem> = (a_parameter_for_each_column().into_iter())
        .chain(any_spec::other_norms_and_long_rows())
        .filter(|problem| problem.shape[0] < 40)
        .collect();
    for order in [Schedule::Descending, Schedule::Random] {
        check_in_order(&problems, order, &forced());
    }
}

#[test]
fn float64() {
    let all =
        [any_spec::masks_and_dtypes(), any_spec::rows_out_of_range_and_far_from_zero(), any_spec::powers()];
    // Every second one; which of them it is makes no difference to the type.
    let of_f64 = all.into_iter().flatten().step_by(2).map(|problem| Problem { dtype: DType::F64, ..problem });
    check(&of_f64.collect::<Vec<_>>());
}

/// Every access beyond a tensor is seen there. Its library must be loaded before all others, so this is another process.
#[test]
fn masks_and_dtypes_under_the_address_sanitizer() {
    if std::env::var_os(SANITIZED).is_some() {
        return check(&any_spec::masks_and_dtypes()[..2]);
    }
    let library = Command::new("c++").arg("-print-file-name=libasan.so").output().unwrap();
    let library = String::from_utf8(library.stdout).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["masks_and_dtypes_under_the_address_sanitizer", "--exact", "--nocapture"])
        .env(SANITIZED, "1")
        .env("LD_PRELOAD", library.trim())
        .env("ASAN_OPTIONS", "detect_leaks=0")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("AddressSanitizer"), "{said}");
}

#[test]
fn elementwise_functions() {
    let cuda = Device::Cuda(device(Schedule::Ascending));
    let different = differences(&elementwise(&Device::Cpu), &elementwise(&cuda), "elementwise");
    assert!(different.is_empty(), "{}", different.join("\n"));
}
