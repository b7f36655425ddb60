//! Norms on both sides of a residual in every schedule that the WebGPU backend can be forced to, and with as few bindings as a
//! device may have: the bits of the CPU.
#![cfg(feature = "wgpu")]

#[path = "common/adapter.rs"]
mod adapter;
#[path = "common/sandwiches.rs"]
mod sandwiches;
#[path = "common/wgpu_ways.rs"]
mod wgpu_ways;

use adapter::wgpu_device;
use normkit::backend::wgpu::{Options, WgpuDevice};
use normkit::tensor::DType;
use sandwiches::{Around, differences};

/// Complains of all of these problems that differ from the CPU's, each in the schedule of its number.
fn check(device: &WgpuDevice, problems: &[(usize, Around)]) {
    wgpu_ways::check(device, problems, differences);
}

/// The problems that WebGPU has dtypes for.
fn all() -> Vec<(usize, Around)> {
    let is_there = |dtype| dtype != DType::F64;
    let all =
        sandwiches::all().into_iter().filter(|problem| is_there(problem.dtype) && is_there(problem.other));
    all.enumerate().collect()
}

/// A shader takes a software adapter seconds to compile: each problem has one of the schedules.
#[test]
fn problems_in_a_schedule_each() {
    let device = wgpu_device();
    check(&device, &all());
}

/// Threads that take several rows one after the other keep what those share.
#[test]
fn rows_in_turns() {
    let device = wgpu_device();
    check(&device, &[(0, Around { partial: true, ..Around::new([1100, 64], [false, true]) })]);
}

/// One problem in all schedules.
#[test]
fn every_schedule() {
    let device = wgpu_device();
    let problem = Around { partial: true, ..Around::new([9, 130], [true, false]) };
    check(&device, &[0, 1, 2, 3, 4, 5].map(|index| (index, problem)));
}

/// As many bindings as every WebGPU device has: parameters of several dtypes are copied to lie side by side.
#[test]
fn few_bindings() {
    let options = Options { max_buffers: Some(8), ..Options::default() };
    let device = WgpuDevice::with_options(&options).unwrap_or_else(|error| panic!("{error}"));
    let of = Around::new;
    let half = Around { dtype: DType::F16, other: DType::F32, ..of([9, 64], [true, false]) };
    let rounded = Around { other: DType::F16, rounds: true, ..half };
    check(
        &device,
        &[(0, half), (1, rounded), (2, of([9, 70], [true, true])), (3, of([2, 4100], [true, true]))],
    );
}

/// From the stream, whose dtype is not that which normalized values were rounded to.
#[test]
fn rounded_to_another_dtype_than_the_streams() {
    let device = wgpu_device();
    let problem = Around { rounds: true, dtype: DType::BF16, ..Around::new([9, 130], [false, false]) };
    check(&device, &[(0, problem)]);
}
