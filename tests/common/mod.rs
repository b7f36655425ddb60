//! What the tests share.
#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]

#[cfg(feature = "wgpu")]
mod adapter;
mod lists;
mod random;

#[cfg(feature = "wgpu")]
pub(crate) use adapter::wgpu_device;
pub(crate) use lists::{branches, moved, parts_around, row_lengths, sandwich, varied};

use normkit::backend::cpu::{Cpu, Isa};
use normkit::check::{ANY_SPEC, Case, Effort, METHODS, cases, run_on};
use normkit::oracle::Index;
use normkit::tensor::{DType, HostTensor};
use normkit::{Device, DeviceTensor, Error, Result, Stream};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use std::cell::RefCell;
use std::panic::AssertUnwindSafe;

/// Every backend compiled in. No adapter is a failure, not a skip.
pub(crate) fn devices() -> Vec<Device> {
    #[allow(unused_mut)]
    let mut devices = vec![Device::Cpu];
    #[cfg(feature = "wgpu")]
    devices.push(Device::Wgpu(wgpu_device()));
    #[cfg(feature = "cuda")]
    devices.push(Device::Cuda(cuda_device()));
    devices
}

/// The GPU if the environment asks for it, as `make gpu-test` does; else the CPU in its place. All tests of a process
/// share it and the kernels that it has compiled.
#[cfg(feature = "cuda")]
pub(crate) fn cuda_device() -> normkit::backend::cuda::CudaDevice {
    use normkit::backend::cuda::CudaDevice;
    static DEVICE: std::sync::OnceLock<CudaDevice> = std::sync::OnceLock::new();
    let open = || match std::env::var_os("NORMKIT_TEST_GPU") {
        Some(_) => CudaDevice::new(),
        None => CudaDevice::host(),
    };
    DEVICE.get_or_init(|| open().unwrap_or_else(|error| panic!("{error}"))).clone()
}

/// The argument that a refusal names, which also says what was expected and what was found.
#[track_caller]
pub(crate) fn named<T>(result: Result<T>) -> &'static str {
    match result.err().expect("an error") {
        Error::Argument { name, expected, found } => {
            assert!(!expected.is_empty() && !found.is_empty(), "{name}");
            name
        }
        other => panic!("no argument is named: {other}"),
    }
}

/// Whether kernels are compiled when they are first used, which takes long enough to make do with fewer cases.
pub(crate) fn compiles(device: &Device) -> bool {
    device.backend() != "cpu"
}

/// The same adapter, used as one that has no subgroups.
#[cfg(feature = "wgpu")]
pub(crate) fn wgpu_device_without_subgroups() -> normkit::backend::wgpu::WgpuDevice {
    use normkit::backend::wgpu::{Options, WgpuDevice};
    WgpuDevice::with_options(&Options { subgroups: false, ..Options::default() }).expect("an adapter")
}

/// The dtypes that a device computes in.
pub(crate) fn dtypes(device: &Device) -> impl Iterator<Item = DType> + use<> {
    let without_f64 = device.backend() == "wgpu";
    DType::FLOATS.into_iter().filter(move |&dtype| !(without_f64 && dtype == DType::F64))
}

/// A copy of a tensor in a device's memory.
pub(crate) fn on(device: &Device, tensor: &HostTensor) -> DeviceTensor {
    device.upload(tensor).expect("memory")
}

/// A stream for each instruction set of this machine.
pub(crate) fn instruction_sets() -> Vec<(Isa, Stream<'static>)> {
    Isa::available()
        .into_iter()
        .map(|isa| (isa, Stream::Cpu(Cpu::default().with_isa(isa).expect("an available instruction set"))))
        .collect()
}

/// Runs every case of the list on the stream and reports all those that break the promise.
pub(crate) fn check_all(stream: &Stream<'_>, list: impl IntoIterator<Item = Case>) {
    let broken: Vec<String> = list.into_iter().filter_map(|case| complaint(&case, stream)).collect();
    assert!(broken.is_empty(), "{} cases broke their promise:\n{}", broken.len(), broken.join("\n"));
}

/// What is wrong with a case, if anything is.
pub(crate) fn complaint(case: &Case, stream: &Stream<'_>) -> Option<String> {
    let name = format!("{} {} {} {:?}", stream.device().backend(), case.method, case.dtype, case.name);
    // No call may panic; one that does is reported beside the others.
    match std::panic::catch_unwind(AssertUnwindSafe(|| run_on(case, stream))) {
        Err(_) => Some(format!("{name}: panicked")),
        Ok(Err(error)) => Some(format!("{name}: {error}")),
        Ok(Ok(outcome)) if outcome.passed() => None,
        Ok(Ok(outcome)) => {
            let broken = outcome.quantities.iter().filter(|q| !q.passed()).map(|q| {
                let (rounded, at) = (q.rounded.map(|r| format!(", rounded {r}")), q.at);
                let guards = if q.guards_intact { "" } else { ", wrote outside" };
                let rounded = rounded.unwrap_or_default();
                format!(
                    "{} {:.3} of the bound ({:.3} ulp) at {at:?}{rounded}{guards}",
                    q.name, q.worst, q.ulp
                )
            });
            Some(format!("{name}: {}", broken.collect::<Vec<_>>().join("; ")))
        }
    }
}

/// The published list of every method and of free specs, for a device: all of it in float32 on the CPU, and what is quick
/// in the other dtypes; rows of ten million elements are left to the command. A software adapter compiles a shader in
/// seconds, and the host driver of CUDA a kernel in half of one, and many cases have kernels of their own, so these are given
/// a few of the quick ones of each method; the test in a browser runs more of them, and `normkit check` all.
pub(crate) fn all_cases(device: &Device) -> Vec<Case> {
    let of = |method, dtype| {
        let (effort, step) = match (device.backend(), dtype) {
            ("cpu", DType::F32) => (Effort::Full, 1),
            ("cpu", _) => (Effort::Quick, 1),
            (_, DType::F32) => (Effort::Quick, 14),
            _ => (Effort::Quick, 41),
        };
        cases(method, dtype, effort).into_iter().step_by(step)
    };
    methods()
        .flat_map(|method| dtypes(device).map(move |dtype| (method, dtype)))
        .flat_map(|(method, dtype)| of(method, dtype))
        .filter(|case| case.shape.iter().product::<usize>() < 1_000_000)
        .collect()
}

/// A case of every method with `rows` rows of `cols` elements; batches of no channels are left out, for there is no such
/// norm.
pub(crate) fn matrices(dtype: DType, rows: usize, cols: usize) -> impl Iterator<Item = Case> {
    let there_is = move |method: &&&str| rows > 0 || **method != "batch_norm";
    METHODS.iter().filter(there_is).map(move |method| Case::matrix(method, dtype, rows, cols))
}

/// Number of rows, and of columns, of what a case computes.
pub(crate) fn dim(case: &Case) -> (usize, usize) {
    let spec = case.lower().unwrap_or_else(|error| panic!("{case:?}: {error}"));
    (spec.rows(), spec.cols())
}

/// The elements of a tensor of the case's shape as rows.
pub(crate) fn rows_of<T: Copy>(case: &Case, values: &[T]) -> Vec<Vec<T>> {
    let index = Index::of_elements(&case.lower().expect("a case that has run"));
    let (rows, cols) = index.dim();
    (0..rows).map(|row| (0..cols).map(|col| values[index.at((row, col))]).collect()).collect()
}

/// As many random cases of each method as the device has time for. They are the same in every run, so that a change that
/// breaks one is the change that fails, and so that a software adapter's shader cache has them; `PROPTEST_RNG_SEED=n` draws
/// others.
fn random_runs(device: &Device) -> ProptestConfig {
    let mut config = ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(2026);
    }
    if compiles(device) {
        config = ProptestConfig { cases: 6, max_shrink_iters: 8, ..config };
    }
    config
}

/// Every method, and free specs.
fn methods() -> impl Iterator<Item = &'static str> {
    METHODS.iter().copied().chain([ANY_SPEC])
}

/// Checks random cases of each method; a failing one is shrunk.
pub(crate) fn check_random(device: &Device) {
    let (config, stream) = (random_runs(device), device.stream());
    let check = |case: Case| match complaint(&case, &stream) {
        Some(complaint) => Err(TestCaseError::fail(complaint)),
        None => Ok(()),
    };
    // Every method has its turn, so that one that fails does not hide another.
    let verdicts = methods().filter_map(|method| {
        let of_method = random::any_case(device, method);
        TestRunner::new(config.clone()).run(&of_method, check).err()
    });
    let broken: Vec<String> = verdicts.map(|error| error.to_string()).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The cases that [`check_random`] checks.
pub(crate) fn random_cases(device: &Device) -> Vec<Case> {
    let drawn = RefCell::new(Vec::new());
    for method in methods() {
        let note = |case| {
            drawn.borrow_mut().push(case);
            Ok(())
        };
        TestRunner::new(random_runs(device))
            .run(&random::any_case(device, method), note)
            .expect("no failure");
    }
    drawn.into_inner()
}

/// Element `i` of made-up data: irregular, of order one.
pub(crate) fn wave(i: usize, phase: f64) -> f64 {
    (1.3 * i as f64 + phase).sin() + 0.3 * (0.37 * (i * i % 91) as f64 + phase).cos()
}
