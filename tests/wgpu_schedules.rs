//! Every schedule that the WebGPU backend can be forced to gives the bits of the CPU: over what a spec can say, strides,
//! dtypes and masks, forward and backward, at once and step by step.
#![cfg(feature = "wgpu")]

#[path = "common/any_spec.rs"]
mod any_spec;

use any_spec::{Problem, differences, elementwise, results};
use normkit::backend::wgpu::{Overrides, Reduction, Style, WgpuDevice};
use normkit::{Device, Stream};

/// Each way to run a norm.
fn forced() -> [(&'static str, Overrides); 5] {
    let of =
        |style, split, reduction| Overrides { style: Some(style), split, reduction, ..Overrides::default() };
    [
        ("row", of(Style::Row, false, None)),
        ("column", of(Style::Column, false, None)),
        ("row split", of(Style::Row, true, None)),
        ("column split", of(Style::Column, true, None)),
        ("row through workgroup memory", of(Style::Row, false, Some(Reduction::Workgroup))),
    ]
}

/// Complains of everything that a forced schedule computes otherwise than the CPU.
fn check(problems: &[Problem]) {
    let device = WgpuDevice::new().unwrap_or_else(|error| panic!("{error}"));
    let mut different = Vec::new();
    for problem in problems {
        let expected = results(problem, &Device::Cpu.stream());
        for (name, overrides) in forced() {
            let stream = Stream::Wgpu(device.stream().with_overrides(overrides).unwrap());
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
fn elementwise_functions() {
    let wgpu = Device::Wgpu(WgpuDevice::new().unwrap_or_else(|error| panic!("{error}")));
    let different = differences(&elementwise(&Device::Cpu), &elementwise(&wgpu), "elementwise");
    assert!(different.is_empty(), "{}", different.join("\n"));
}
