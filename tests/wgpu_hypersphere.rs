//! Steps on the hypersphere in every schedule that the WebGPU backend can be forced to, and with as few bindings as a device may have:
//! the bits of the CPU.
#![cfg(feature = "wgpu")]

#[path = "common/adapter.rs"]
mod adapter;
#[path = "common/hyperspheres.rs"]
mod hyperspheres;
#[path = "common/wgpu_ways.rs"]
mod wgpu_ways;

use adapter::wgpu_device;
use hyperspheres::{Laid, differences};
use normkit::backend::wgpu::{Options, WgpuDevice};
use normkit::tensor::DType;

/// Complains of all of these problems that differ from the CPU's, each in the schedule of its number.
fn check(device: &WgpuDevice, problems: &[(usize, Laid)]) {
    wgpu_ways::check(device, problems, differences);
}

fn of(shape: [usize; 2], dtypes: [DType; 2], is_transposed: bool) -> Laid {
    Laid { shape, first: 0, is_transposed, dtypes }
}

/// A shader takes a software adapter seconds to compile: each problem has one of the schedules.
#[test]
fn problems_in_a_schedule_each() {
    let device = wgpu_device();
    let all = hyperspheres::all().into_iter().filter(|problem| !problem.dtypes.contains(&DType::F64));
    check(&device, &all.enumerate().collect::<Vec<_>>());
}

/// One problem in all schedules: a prime number of columns.
#[test]
fn every_schedule() {
    let device = wgpu_device();
    check(&device, &[0, 1, 2, 3, 4, 5].map(|index| (index, of([9, 131], [DType::F32; 2], false))));
}

/// Threads that take several rows one after the other keep the shares.
#[test]
fn rows_in_turns() {
    let device = wgpu_device();
    check(&device, &[(0, of([1100, 64], [DType::F32; 2], false))]);
}

/// An adapter without subgroups: rows of one leaf, of one column, of two leaves, and none.
#[test]
fn without_subgroups() {
    let options = Options { subgroups: false, ..Options::default() };
    let device = WgpuDevice::with_options(&options).unwrap_or_else(|error| panic!("{error}"));
    let f32 = DType::F32;
    check(
        &device,
        &[
            (0, of([37, 70], [f32, DType::F16], false)),
            (0, of([600, 1], [f32; 2], false)),
            (0, of([3, 4099], [f32; 2], false)),
            (0, of([0, 5], [f32; 2], false)),
        ],
    );
}

/// As many bindings as every WebGPU device has: the shares lie side by side.
#[test]
fn few_bindings() {
    let options = Options { max_buffers: Some(8), ..Options::default() };
    let device = WgpuDevice::with_options(&options).unwrap_or_else(|error| panic!("{error}"));
    let (f16, bf16, f32) = (DType::F16, DType::BF16, DType::F32);
    check(
        &device,
        &[
            (0, of([9, 64], [f16, f32], false)),
            (1, of([9, 70], [f32, bf16], true)),
            (2, of([2, 4100], [f32; 2], false)),
        ],
    );
}
