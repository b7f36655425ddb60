//! Forward, and forward and backward, beside candle's own, in one process and on the same data: 16 MiB of float32.
//!
//! ```sh
//! cargo bench -p normkit-candle
//! ```

use candle_core::{DType, Device, Result, Tensor, Var};
use criterion::{Criterion, criterion_group, criterion_main};
use normkit_candle::ops;
use std::hint::black_box;

type Function<'a> = dyn Fn(&Tensor) -> Result<Tensor> + 'a;

/// One function forward, and forward and backward with gradients of the input and of the parameters.
fn pair(
    criterion: &mut Criterion,
    name: &str,
    x: &Tensor,
    forward: &Function<'_>,
    differentiable: &Function<'_>,
) {
    criterion.bench_function(&format!("{name}, forward"), |b| b.iter(|| black_box(forward(x).unwrap())));
    let var = Var::from_tensor(x).unwrap();
    let run = || differentiable(&var).unwrap().sum_all().unwrap().backward().unwrap();
    criterion.bench_function(&format!("{name}, forward and backward"), |b| b.iter(|| black_box(run())));
}

fn norms(criterion: &mut Criterion) {
    let (rows, columns) = (4096, 1024);
    let x = Tensor::randn(0f32, 1.0, (rows, columns), &Device::Cpu).unwrap();
    let weight = Var::ones(columns, DType::F32, &Device::Cpu).unwrap();
    let bias = Var::zeros(columns, DType::F32, &Device::Cpu).unwrap();
    let (w, b) = (weight.as_tensor(), bias.as_tensor());
    let (wd, bd) = (weight.as_detached_tensor(), bias.as_detached_tensor());
    let fused = |x: &Tensor| candle_nn::ops::layer_norm(x, &wd, &bd, 1e-5);
    let slow = |x: &Tensor| candle_nn::ops::layer_norm_slow(x, w, b, 1e-5);
    pair(criterion, "layer_norm of candle", &x, &fused, &slow);
    let detached = |x: &Tensor| ops::layer_norm(x, &wd, &bd, 1e-5);
    pair(criterion, "layer_norm of normkit", &x, &detached, &|x| ops::layer_norm(x, w, b, 1e-5));
    let fused = |x: &Tensor| candle_nn::ops::rms_norm(x, &wd, 1e-5);
    let slow = |x: &Tensor| candle_nn::ops::rms_norm_slow(x, w, 1e-5);
    pair(criterion, "rms_norm of candle", &x, &fused, &slow);
    let detached = |x: &Tensor| ops::rms_norm(x, &wd, 1e-5);
    pair(criterion, "rms_norm of normkit", &x, &detached, &|x| ops::rms_norm(x, w, 1e-5));
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = norms
}
criterion_main!(benches);
