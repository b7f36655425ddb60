//! burn's norms and normkit's on the same tensors: 16 MiB of float32 in rows of 1024, on each of burn's backends that is built.
//! `cargo bench --all-features`; README.md has what came out.

#![allow(deprecated, reason = "burn calls NdArray its former backend; it is still there")]

use burn::nn;
use burn::tensor::{Device, Distribution, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use normkit_burn::nn as ours;
use std::time::Duration;

const ROWS: usize = 4096;
const COLS: usize = 1024;

/// Both modules of a name, forward, and forward with backward.
macro_rules! compare {
    ($criterion:expr, $backend:expr, $device:expr, $config:ident) => {{
        let plain: &Device = $device;
        let recorded = &plain.clone().autodiff();
        let own = ours::$config::new(COLS).init(plain);
        let theirs = nn::$config::new(COLS).init(plain);
        let (own_recorded, theirs_recorded) =
            (ours::$config::new(COLS).init(recorded), nn::$config::new(COLS).init(recorded));
        let random = |device| Tensor::<2>::random([ROWS, COLS], Distribution::Normal(0.0, 1.0), device);
        let (x, recorded_x) = (random(plain), random(recorded));
        let method = stringify!($config).trim_end_matches("Config");
        let bytes = Throughput::Bytes(2 * 4 * (ROWS * COLS) as u64);
        let mut group = $criterion.benchmark_group(format!("{} {method} forward", $backend));
        group.sample_size(10).warm_up_time(Duration::from_secs(1)).throughput(bytes.clone());
        let forward = |run: &dyn Fn(Tensor<2>) -> Tensor<2>| {
            let y = run(x.clone());
            plain.sync().expect("a device that works");
            drop(y);
        };
        group.bench_function("normkit", |bencher| bencher.iter(|| forward(&|x| own.forward(x))));
        group.bench_function("burn", |bencher| bencher.iter(|| forward(&|x| theirs.forward(x))));
        group.finish();
        let mut group = $criterion.benchmark_group(format!("{} {method} forward and backward", $backend));
        group.sample_size(10).warm_up_time(Duration::from_secs(1)).throughput(bytes);
        let both = |run: &dyn Fn(Tensor<2>) -> Tensor<2>| {
            let grads = run(recorded_x.clone().require_grad()).sum().backward();
            plain.sync().expect("a device that works");
            drop(grads);
        };
        group.bench_function("normkit", |bencher| bencher.iter(|| both(&|x| own_recorded.forward(x))));
        group.bench_function("burn", |bencher| bencher.iter(|| both(&|x| theirs_recorded.forward(x))));
        group.finish();
    }};
}

fn norms(criterion: &mut Criterion) {
    #[allow(unused_mut, reason = "features add backends")]
    let mut devices = Vec::new();
    #[cfg(feature = "flex")]
    devices.push(("flex", Device::flex()));
    #[cfg(feature = "ndarray")]
    devices.push(("ndarray", Device::ndarray()));
    #[cfg(feature = "wgpu")]
    devices.push((
        "wgpu",
        normkit_burn::wgpu::init(burn::tensor::DeviceKind::DefaultDevice).expect("a Vulkan adapter"),
    ));
    for (backend, device) in &devices {
        compare!(criterion, backend, device, LayerNormConfig);
        compare!(criterion, backend, device, RmsNormConfig);
    }
}

criterion_group!(benches, norms);
criterion_main!(benches);
