//! What the tests share.
#![allow(dead_code, reason = "each test binary uses its own part")]

use normkit::backend::cpu::{Cpu, Isa};
use normkit::check::{Case, Effort, Fill, METHODS, Placement, cases, run_on};
use normkit::spec::EpsPosition;
use normkit::tensor::DType;
use normkit::{Cast, Device, Stream};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{RngSeed, TestRunner};

/// Every backend compiled in. No adapter is a failure, not a skip.
pub(crate) fn devices() -> Vec<Device> {
    #[allow(unused_mut)]
    let mut devices = vec![Device::Cpu];
    #[cfg(feature = "wgpu")]
    devices.push(Device::Wgpu(wgpu_device()));
    devices
}

/// The adapter under test: Vulkan's, and the software one where there is no GPU.
#[cfg(feature = "wgpu")]
pub(crate) fn wgpu_device() -> normkit::backend::wgpu::WgpuDevice {
    normkit::backend::wgpu::WgpuDevice::new().unwrap_or_else(|error| {
        panic!("{error}\nThe software adapter is in Debian's packages mesa-vulkan-drivers and libvulkan1.")
    })
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
    DType::ALL.into_iter().filter(move |&dtype| !(without_f64 && dtype == DType::F64))
}

/// How long a list a device is given: a software adapter is slow.
pub(crate) fn effort(device: &Device) -> Effort {
    if device.backend() == "cpu" { Effort::Full } else { Effort::Quick }
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
    match run_on(case, stream) {
        Err(error) => Some(format!("{name}: {error}")),
        Ok(outcome) if outcome.passed() => None,
        Ok(outcome) => {
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

/// The published list of every method, for a device. A software adapter compiles a shader in seconds, and most cases
/// are a shader of their own, so it is given all of them in float32 and every third in the 16-bit dtypes.
pub(crate) fn all_cases(device: &Device) -> Vec<Case> {
    let step = |dtype| if device.backend() == "wgpu" && dtype != DType::F32 { 3 } else { 1 };
    METHODS
        .iter()
        .flat_map(|method| dtypes(device).map(move |dtype| (method, dtype)))
        .flat_map(|(method, dtype)| cases(method, dtype, effort(device)).into_iter().step_by(step(dtype)))
        .collect()
}

/// A random value for the input or the gradient of the output, within float32's range.
fn any_fill() -> impl Strategy<Value = Fill> {
    prop_oneof![
        4 => Just(Fill::UNIT),
        1 => Just(Fill::Normal { mean: 100.0, deviation: 1.0 }),
        1 => (-3..=3).prop_map(|decade| Fill::Uniform(10f64.powi(decade))),
        1 => Just(Fill::ConstantRows(3.0)),
        1 => Just(Fill::Constant(0.0)),
        1 => Just(Fill::Mixed(2)),
        1 => select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY]).prop_map(Fill::Special),
    ]
}

/// Axes whose product stays small: one long axis or several short ones.
fn any_axes(fewest: usize, longest: usize) -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![proptest::collection::vec(fewest..=longest, 1), proptest::collection::vec(fewest..=9, 1..=2)]
}

/// A random case of the first method for a device: shape, dtypes, values, options and memory layout.
pub(crate) fn any_case(device: &Device) -> impl Strategy<Value = Case> + use<> {
    let dtypes: Vec<DType> = dtypes(device).collect();
    let what = (select(dtypes.clone()), select(dtypes));
    let shape = (any_axes(0, 40), any_axes(1, 900));
    let values = (any_fill(), any_fill(), any::<bool>(), any::<bool>(), any::<u64>());
    let options = (
        select(vec![1e-5, 1e-12, 1e-3, 0.5]),
        select(vec![EpsPosition::Inside, EpsPosition::Outside]),
        select(vec![Cast::Fp32, Cast::Llama, Cast::Gemma]),
        select(vec![1.0, 0.5, 0.9]),
        select(vec![0.5, -0.8, 3.0]),
    );
    let memory = (select(&Placement::ALL[..]), any::<bool>());
    (what, shape, values, options, memory).prop_map(
        |((dtype, weight_dtype), (outer, inner), values, options, (placement, one_buffer))| {
            let mut case = Case::new(METHODS[0], dtype, &outer, &inner);
            if weight_dtype != DType::F64 || dtype == DType::F64 {
                case.weight_dtype = weight_dtype;
            }
            (case.input, case.grad_output) = (values.0, values.1);
            case.weight = case.weight.filter(|_| values.2);
            case.bias = case.bias.filter(|_| values.3);
            (case.eps, case.eps_position, case.cast, case.partial, case.alpha) = options;
            if case.cols() == 1 {
                case.partial = 1.0;
            }
            (case.placement, case.one_buffer, case.seed) = (placement, one_buffer, values.4);
            case.name = "random".into();
            case
        },
    )
}

/// Checks as many random cases of each method as the device has time for; a failing one is shrunk. They are the same in
/// every run, so that a change that breaks one is the change that fails, and so that a software adapter's shader cache has
/// them; `PROPTEST_RNG_SEED=n` draws others.
pub(crate) fn check_random(device: &Device) {
    let mut config = ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(2026);
    }
    if device.backend() == "wgpu" {
        config = ProptestConfig { cases: 10, max_shrink_iters: 20, ..config };
    }
    let stream = device.stream();
    let check = |case: Case| match complaint(&case, &stream) {
        Some(complaint) => Err(TestCaseError::fail(complaint)),
        None => Ok(()),
    };
    // Every method has its turn, so that one that fails does not hide another.
    let verdicts = METHODS.iter().filter_map(|method| {
        let of_method = any_case(device).prop_map(move |case| Case { method, ..case });
        TestRunner::new(config.clone()).run(&of_method, check).err()
    });
    let broken: Vec<String> = verdicts.map(|error| error.to_string()).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Element `i` of made-up data: irregular, of order one.
pub(crate) fn wave(i: usize, phase: f64) -> f64 {
    (1.3 * i as f64 + phase).sin() + 0.3 * (0.37 * (i * i % 91) as f64 + phase).cos()
}
