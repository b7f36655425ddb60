//! The CUDA kernels, on the CPU: every schedule and geometry that they can be forced to gives the bits of the CPU backend,
//! in whatever order the threads of a block run.
#![cfg(feature = "cuda")]

#[path = "common/any_spec.rs"]
mod any_spec;

use any_spec::{Problem, differences, elementwise, results};
use normkit::backend::cuda::{CudaDevice, HostOptions, Overrides, Schedule, Style};
use normkit::tensor::DType;
use normkit::{Device, Stream};

/// A device whose blocks run their threads in this order.
fn device(schedule: Schedule) -> CudaDevice {
    let options = HostOptions { schedule, ..HostOptions::default() };
    CudaDevice::host_with(&options).unwrap_or_else(|error| panic!("{error}"))
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
    ]
}

/// Complains of everything that a forced schedule computes otherwise than the CPU.
fn check(problems: &[Problem]) {
    let device = device(Schedule::Ascending);
    let mut different = Vec::new();
    for problem in problems {
        let expected = results(problem, &Device::Cpu.stream());
        for (name, overrides) in forced() {
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

#[test]
fn float64() {
    let all =
        [any_spec::masks_and_dtypes(), any_spec::rows_out_of_range_and_far_from_zero(), any_spec::powers()];
    let of_f64 = all.into_iter().flatten().map(|problem| Problem { dtype: DType::F64, ..problem });
    check(&of_f64.collect::<Vec<_>>());
}

#[test]
fn elementwise_functions() {
    let cuda = Device::Cuda(device(Schedule::Ascending));
    let different = differences(&elementwise(&Device::Cpu), &elementwise(&cuda), "elementwise");
    assert!(different.is_empty(), "{}", different.join("\n"));
}
