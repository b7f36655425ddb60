//! What the benchmarks of all schedules share: devices, operands in their memory, and the copy beside every kernel.
//!
//! Throughput counts the tensors that a pass must move: two of the input's size forward and three backward, and those of what
//! surrounds a norm. The copy in each group moves as many bytes between buffers that exist, on as many threads.

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use normkit::backend::cpu::Cpu;
use normkit::spec::Prologue;
use normkit::tensor::{DType, HostTensor, Tensor};
use normkit::{Device, DeviceTensor, Gradients, Method, Workspace};

/// Rows and columns of the schedules that work on the last axis, the first so that a 16-bit tensor has 16 MiB.
#[allow(dead_code, reason = "benchmarks of other schedules have shapes of their own")]
pub(crate) const SHAPE: [usize; 2] = [8192, 1024];

/// The CPU, with the feature `wgpu` the best adapter, and with `cuda` a GPU if there is one.
pub(crate) fn devices() -> Vec<Device> {
    let mut devices = vec![Device::Cpu];
    #[cfg(feature = "wgpu")]
    devices
        .push(Device::Wgpu(normkit::backend::wgpu::WgpuDevice::new().expect("an adapter; see `make setup`")));
    #[cfg(feature = "cuda")]
    devices.extend(normkit::backend::cuda::CudaDevice::new().ok().map(Device::Cuda));
    devices
}

/// Numbers between -1 and 1 on a device.
pub(crate) fn noise(device: &Device, shape: &[usize], dtype: DType) -> DeviceTensor {
    let count: usize = shape.iter().product();
    let values: Vec<f64> = (0..count).map(|i| (i * 7919 % 20011) as f64 / 10005.5 - 1.0).collect();
    let tensor = HostTensor::from_f64(&values, shape, dtype).expect("memory for the operands");
    device.upload(&tensor).expect("memory on the device")
}

pub(crate) fn wait(device: &Device) {
    match device {
        #[cfg(feature = "wgpu")]
        Device::Wgpu(device) => device.wait().expect("the device to finish"),
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => device.wait().expect("the device to finish"),
        _ => {}
    }
}

fn copy(from: &DeviceTensor, to: &mut DeviceTensor) {
    match (from, to) {
        (DeviceTensor::Host(from), DeviceTensor::Host(to)) => {
            let (from, mut to) = (from.view().expect("a view"), to.view_mut().expect("a view"));
            normkit::backend::cpu::copy(&from, &mut to, &Cpu::default()).expect("a copy");
        }
        #[cfg(feature = "wgpu")]
        (DeviceTensor::Wgpu(from), DeviceTensor::Wgpu(to)) => {
            let mut to_view = to.view_mut().expect("a view");
            let from_view = from.view().expect("a view");
            let Device::Wgpu(device) = from.device() else { unreachable!("a wgpu tensor's device") };
            normkit::backend::wgpu::copy(&from_view, &mut to_view, &device.stream()).expect("a copy");
        }
        #[cfg(feature = "cuda")]
        (DeviceTensor::Cuda(from), DeviceTensor::Cuda(to)) => {
            let mut to_view = to.view_mut().expect("a view");
            let from_view = from.view().expect("a view");
            let Device::Cuda(device) = from.device() else { unreachable!("a cuda tensor's device") };
            normkit::backend::cuda::copy(&from_view, &mut to_view, &device.stream()).expect("a copy");
        }
        _ => unreachable!("both tensors are made on one device"),
    }
}

/// A group for one pass, with the copy of the bytes that it must move: `transfers` tensors of `elements`.
pub(crate) fn group<'c>(
    criterion: &'c mut Criterion,
    name: &str,
    (device, dtype): (&Device, DType),
    elements: usize,
    transfers: f64,
) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(format!("{name}/{}/{dtype}", device.backend()));
    group.sample_size(20);
    let moved = (elements as f64 * transfers) as usize;
    group.throughput(Throughput::Bytes((moved * dtype.size()) as u64));
    let shape = [moved.div_ceil(2 * 1024), 1024];
    let (from, mut to) = (noise(device, &shape, dtype), noise(device, &shape, dtype));
    group.bench_function("copy", |bencher| {
        bencher.iter(|| {
            copy(&from, &mut to);
            wait(device);
        });
    });
    group
}

/// Tensors of the input's size that a norm's forward and backward passes move.
pub(crate) const BARE: [usize; 2] = [2, 3];

/// Benches the forward and backward passes of `methods` on inputs of `shape`, each beside the copy of the `transfers` tensors
/// that it moves.
pub(crate) fn passes(
    criterion: &mut Criterion,
    on: (&Device, DType),
    schedule: &str,
    shape: &[usize],
    transfers: [usize; 2],
    methods: &[&dyn Method],
) {
    let (device, dtype) = on;
    let input = noise(device, shape, dtype);
    let grad_output = noise(device, shape, dtype);
    let mut output = device.zeros(shape, dtype).expect("memory");
    let stream = device.stream();
    let elements = shape.iter().product();
    let is_sum = |method: &dyn Method| {
        let spec = method.lower(shape, dtype).expect("a spec");
        matches!(spec.fusion().prologue, Prologue::Residual { .. })
    };

    let mut forward = group(criterion, &format!("{schedule}/forward"), on, elements, transfers[0] as f64);
    for method in methods {
        let mut hidden = is_sum(*method).then(|| device.zeros(shape, dtype).expect("memory"));
        forward.bench_function(method.name(), |bencher| {
            bencher.iter(|| {
                let (input, mut output) = (input.view().expect("a view"), output.view_mut().expect("a view"));
                let mut hidden = hidden.as_mut().map(|hidden| hidden.view_mut().expect("a view"));
                method
                    .forward_hidden_into(&input, &mut output, hidden.as_mut(), None, &stream)
                    .expect("a forward pass");
                wait(device);
            });
        });
    }
    forward.finish();

    let mut backward = group(criterion, &format!("{schedule}/backward"), on, elements, transfers[1] as f64);
    for method in methods {
        let statistics = method.statistics_shape(shape, dtype).expect("a shape");
        let mut statistics = statistics.map(|shape| device.zeros(&shape, dtype.compute()).expect("memory"));
        {
            let (input, mut output) = (input.view().expect("a view"), output.view_mut().expect("a view"));
            let mut statistics = statistics.as_mut().map(|s| s.view_mut().expect("a view"));
            method.forward_into(&input, &mut output, statistics.as_mut(), &stream).expect("a forward pass");
        }
        let parameters = method.parameters();
        let like =
            |view: &normkit::tensor::View<'_>| device.zeros(view.shape(), view.dtype()).expect("memory");
        let mut weight = parameters.weight.as_ref().map(like);
        let mut bias = parameters.bias.as_ref().map(like);
        let mut alpha = parameters.alpha.as_ref().map(like);
        let mut before = parameters.before.as_ref().map(like);
        let mut after = parameters.after.as_ref().map(like);
        // The sum has a gradient of its own.
        let grad_hidden = is_sum(*method).then(|| noise(device, shape, dtype));
        let bytes = method.workspace_size(shape, dtype).expect("a size");
        let mut workspace = Workspace::with_capacity(device, bytes).expect("memory");
        backward.bench_function(method.name(), |bencher| {
            bencher.iter(|| {
                let gradients = Gradients {
                    input: Some(output.view_mut().expect("a view")),
                    weight: weight.as_mut().map(|tensor| tensor.view_mut().expect("a view")),
                    bias: bias.as_mut().map(|tensor| tensor.view_mut().expect("a view")),
                    alpha: alpha.as_mut().map(|tensor| tensor.view_mut().expect("a view")),
                    before: before.as_mut().map(|tensor| tensor.view_mut().expect("a view")),
                    after: after.as_mut().map(|tensor| tensor.view_mut().expect("a view")),
                    ..Gradients::default()
                };
                let grad_hidden = grad_hidden.as_ref().map(|tensor| tensor.view().expect("a view"));
                let (grad_output, input) =
                    (grad_output.view().expect("a view"), input.view().expect("a view"));
                let statistics = statistics.as_ref().map(|s| s.view().expect("a view"));
                method
                    .backward_hidden_into(
                        &grad_output,
                        grad_hidden.as_ref(),
                        &input,
                        statistics.as_ref(),
                        gradients,
                        &mut workspace,
                        &stream,
                    )
                    .expect("a backward pass");
                wait(device);
            });
        });
    }
    backward.finish();
}
