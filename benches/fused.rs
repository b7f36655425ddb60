//! Norms with what surrounds them, forward and backward, each beside the copy of all the tensors that it moves; and codes of 8 bits.

#[allow(missing_docs, reason = "a benchmark's helpers are no interface")]
mod common;

use common::{BARE, SHAPE, noise, passes};
use criterion::{Criterion, criterion_group, criterion_main};
use normkit::norm::{HypersphereGradients, HypersphereStatistics, HypersphereStep};
use normkit::norm::{OutlierOutputs, Quantized, Rotary};
use normkit::spec::{Activation, STATISTICS, Scaling};
use normkit::tensor::{DType, Tensor};
use normkit::{Device, LayerNorm, Method, RmsNorm, Workspace};

/// Columns of a head.
const HEAD: usize = 128;

fn fused(criterion: &mut Criterion) {
    let [rows, cols] = SHAPE;
    for device in common::devices() {
        for dtype in [DType::F32, DType::BF16] {
            let made = |shape: &[usize]| noise(&device, shape, dtype);
            let (weight, bias, other) = (made(&[cols]), made(&[cols]), made(&SHAPE));
            let (scale, shift) = (made(&[8, 1, cols]), made(&[8, 1, cols]));
            let rms_norm = RmsNorm::new([cols]).weight(&weight);
            let layer_norm = LayerNorm::new([cols]).weight(&weight).bias(&bias);
            let modulated = LayerNorm::new([cols]).weight_offset(1.0).broadcast_parameters();
            let (cos, sin, head) = (made(&[rows, HEAD / 2]), made(&[rows, HEAD / 2]), made(&[HEAD]));
            let heads = RmsNorm::new([HEAD]).weight(&head);
            let (residual, dropped) = (rms_norm.clone().residual(&other), rms_norm.clone().residual(&other));
            let mut bench = |name: &str, shape: &[usize], transfers, method: &dyn Method| {
                passes(criterion, (&device, dtype), &format!("fused/{name}"), shape, transfers, &[method]);
            };
            // Forward reads input and residual and writes sum and output; backward reads the gradients of both, input and residual,
            // and writes two.
            bench("residual", &SHAPE, [4, 6], &residual);
            bench("residual, dropout", &SHAPE, [4, 6], &dropped.dropout(0.1, 1, 0));
            bench("gate after", &SHAPE, [3, 5], &rms_norm.clone().output_gate(&other));
            bench("gate before", &SHAPE, [3, 5], &rms_norm.clone().input_gate(&other));
            bench("silu", &SHAPE, BARE, &layer_norm.activation(Activation::Silu));
            bench("modulated", &[8, rows / 8, cols], BARE, &modulated.weight(&scale).bias(&shift));
            let rotary = heads.clone().rotary(&Rotary::half_split(&cos, &sin));
            bench("heads", &[rows, cols / HEAD, HEAD], BARE, &heads);
            bench("heads, rotary", &[rows, cols / HEAD, HEAD], BARE, &rotary);
            codes(criterion, (&device, dtype), rms_norm.clone().residual(&other));
            step(criterion, (&device, dtype));
        }
    }
}

/// A residual, the norm and int8 codes under scales of rows.
fn codes(criterion: &mut Criterion, (device, dtype): (&Device, DType), norm: RmsNorm<'_>) {
    let input = noise(device, &SHAPE, dtype);
    let norm = Quantized::new(norm, DType::I8, Scaling::Row);
    let made = |shape: &[usize], dtype| device.zeros(shape, dtype).expect("memory");
    let (mut codes, mut hidden) = (made(&SHAPE, DType::I8), made(&SHAPE, dtype));
    let shape = norm.scales_shape(&SHAPE, dtype).expect("a shape").expect("scales");
    let (mut scales, stream) = (made(&shape, DType::F32), device.stream());
    // Three tensors of the input's dtype, and one of a byte for each element.
    let transfers = 3.0 + 1.0 / dtype.size() as f64;
    let mut group = common::group(
        criterion,
        "fused/residual, int8/forward",
        (device, dtype),
        SHAPE[0] * SHAPE[1],
        transfers,
    );
    group.bench_function("rms_norm", |bencher| {
        bencher.iter(|| {
            let input = input.view().expect("a view");
            let mut scales = scales.view_mut().expect("a view");
            let (mut codes, mut hidden) =
                (codes.view_mut().expect("a view"), hidden.view_mut().expect("a view"));
            norm.forward_into(&input, &mut codes, Some(&mut scales), Some(&mut hidden), &stream)
                .expect("a forward pass");
            common::wait(device);
        });
    });
    // A few elements of each row are outliers.
    let outliers = norm.outliers(3.0);
    let (mut flags, mut statistics) =
        (made(&SHAPE[1..], DType::I32), made(&[SHAPE[0], STATISTICS], dtype.compute()));
    group.bench_function("rms_norm, outliers", |bencher| {
        bencher.iter(|| {
            let outputs = OutlierOutputs {
                codes: codes.view_mut().expect("a view"),
                scales: scales.view_mut().expect("a view"),
                flags: flags.view_mut().expect("a view"),
                statistics: Some(statistics.view_mut().expect("a view")),
                hidden: Some(hidden.view_mut().expect("a view")),
            };
            outliers.forward_into(&input.view().expect("a view"), outputs, &stream).expect("a forward pass");
            common::wait(device);
        });
    });
    group.finish();
}

/// A step on the hypersphere: forward reads two tensors and writes one, backward reads three and writes two.
fn step(criterion: &mut Criterion, (device, dtype): (&Device, DType)) {
    let made = |shape: &[usize]| noise(device, shape, dtype);
    let (stream, branch, gradient, alpha) = (made(&SHAPE), made(&SHAPE), made(&SHAPE), made(&SHAPE[1..]));
    let on = device.stream();
    let norm = HypersphereStep::new(&alpha);
    let (mut output, saved) = norm.forward_train(&stream, &branch).expect("a forward pass");
    let mut group =
        common::group(criterion, "fused/hypersphere/forward", (device, dtype), SHAPE[0] * SHAPE[1], 3.0);
    group.bench_function("step", |bencher| {
        bencher.iter(|| {
            let (input, branch) = (stream.view().expect("a view"), branch.view().expect("a view"));
            let (mut output, none) = (output.view_mut().expect("a view"), HypersphereStatistics::default());
            norm.forward_into(&input, &branch, &mut output, none, &on).expect("a forward pass");
            common::wait(device);
        });
    });
    group.finish();
    let (mut of_input, mut of_branch, mut of_alpha) = (made(&SHAPE), made(&SHAPE), made(&SHAPE[1..]));
    let mut workspace = Workspace::new();
    let mut group =
        common::group(criterion, "fused/hypersphere/backward", (device, dtype), SHAPE[0] * SHAPE[1], 5.0);
    group.bench_function("step", |bencher| {
        bencher.iter(|| {
            let grads = HypersphereGradients {
                input: Some(of_input.view_mut().expect("a view")),
                branch: Some(of_branch.view_mut().expect("a view")),
                alpha: Some(of_alpha.view_mut().expect("a view")),
            };
            let (input, branch) = (stream.view().expect("a view"), branch.view().expect("a view"));
            let statistics =
                [&saved.input, &saved.branch, &saved.output].map(|tensor| tensor.view().expect("a view"));
            let gradient = gradient.view().expect("a view");
            norm.backward_into(&gradient, &input, &branch, statistics.each_ref(), grads, &mut workspace, &on)
                .expect("a backward pass");
            common::wait(device);
        });
    });
    group.finish();
}

criterion_group!(benches, fused);
criterion_main!(benches);
