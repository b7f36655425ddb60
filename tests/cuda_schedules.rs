//! The CUDA kernels, on the CPU: every schedule and geometry that they can be forced to gives the bits of the CPU backend,
//! in whatever order the threads of a block run.
#![cfg(feature = "cuda")]

#[path = "common/any_spec.rs"]
mod any_spec;
#[path = "common/forced.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod forced;
#[path = "common/hyperspheres.rs"]
mod hyperspheres;
#[path = "common/sandwiches.rs"]
mod sandwiches;

use any_spec::{Problem, differences, elementwise, results};
use forced::{a_parameter_for_each_column, forced, ways};
use hyperspheres::Laid;
use normkit::backend::cuda::{CudaDevice, HostOptions, Schedule};
use normkit::{Device, Stream};
use sandwiches::Around;
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

/// Complains of everything that a forced schedule computes otherwise than the CPU.
fn check(problems: &[Problem]) {
    check_in_orders(problems, &[Schedule::Ascending]);
}

/// The same with threads in other orders: backwards, and interleaved at random within warps.
fn check_in_any_order(problems: &[Problem]) {
    check_in_orders(problems, &[Schedule::Ascending, Schedule::Descending, Schedule::Random]);
}

fn check_in_orders(problems: &[Problem], orders: &[Schedule]) {
    let kernels = forced::kernels(&device(Schedule::Ascending), problems);
    let mut different = Vec::new();
    for &order in orders {
        let device = device(order);
        // Together: one by one they would take several times as long. The same for every order, so that the cache has them.
        device.compile_kernels(&kernels).unwrap_or_else(|error| panic!("{error}"));
        // Few rows have all that blocks do.
        let is_taken =
            |(_, problem): &(usize, &Problem)| order == Schedule::Ascending || problem.shape[0] < 40;
        for (index, problem) in problems.iter().enumerate().filter(is_taken) {
            let expected = results(problem, &Device::Cpu.stream());
            for (name, overrides) in ways(index) {
                let stream = Stream::Cuda(device.stream().with_overrides(overrides).unwrap());
                let what = format!("{name} of {problem:?}, {order:?}");
                different.extend(differences(&expected, &results(problem, &stream), &what));
            }
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
    check_in_any_order(&any_spec::other_norms_and_long_rows());
}

#[test]
fn powers() {
    check(&any_spec::powers());
}

#[test]
fn fusions() {
    check_in_any_order(&forced::fusions());
}

#[test]
fn branches_of_residuals() {
    check_in_any_order(&forced::branches());
}

#[test]
fn rotary_embeddings() {
    check_in_any_order(&any_spec::rotaries());
}

/// Complains of what differs in any order of the threads, when each problem is run in every way.
fn check_each<P>(
    problems: &[P],
    run: impl Fn(&P, &Stream<'_>),
    differences: impl Fn(&P, &Stream<'_>, &str) -> Vec<String>,
) {
    let listing = device(Schedule::Ascending).listing();
    for problem in problems {
        for (_, overrides) in forced() {
            run(problem, &Stream::Cuda(listing.clone().with_overrides(overrides).unwrap()));
        }
    }
    let mut different = Vec::new();
    for order in [Schedule::Ascending, Schedule::Descending, Schedule::Random] {
        let device = device(order);
        device.compile_kernels(&listing.kernels()).unwrap_or_else(|error| panic!("{error}"));
        for problem in problems {
            for (name, overrides) in forced() {
                let stream = Stream::Cuda(device.stream().with_overrides(overrides).unwrap());
                different.extend(differences(problem, &stream, &format!("{name}, {order:?}")));
            }
        }
    }
    assert!(different.is_empty(), "{} results differ:\n{}", different.len(), different.join("\n"));
}

/// Norms on both sides of a residual. Rows that a block cannot take are refused.
#[test]
fn norms_on_both_sides_of_a_residual() {
    let run = |problem: &Around, stream: &Stream<'_>| drop(sandwiches::results(problem, stream));
    check_each(&sandwiches::all(), run, sandwiches::differences);
}

/// Steps on the hypersphere. Rows that a block cannot take are refused.
#[test]
fn steps_on_the_hypersphere() {
    let run = |problem: &Laid, stream: &Stream<'_>| {
        let _ = [false, true].map(|in_place| problem.run(stream, in_place));
    };
    check_each(&hyperspheres::all(), run, hyperspheres::differences);
}

#[test]
fn parameters_of_columns() {
    check_in_any_order(&a_parameter_for_each_column());
}

#[test]
fn float64() {
    check(&forced::float64());
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
