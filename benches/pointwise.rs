//! The `pointwise` schedule: DyT, forward and backward.

#[allow(missing_docs, reason = "a benchmark's helpers are no interface")]
mod common;

use criterion::{Criterion, criterion_group, criterion_main};
use normkit::DyT;
use normkit::tensor::DType;

fn pointwise(criterion: &mut Criterion) {
    let cols = common::SHAPE[1];
    for device in common::devices() {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let weight = common::noise(&device, &[cols], dtype);
            let bias = common::noise(&device, &[cols], dtype);
            let alpha = common::noise(&device, &[1], dtype);
            let dyt = DyT::new([cols]).alpha(&alpha).weight(&weight).bias(&bias);
            common::passes(criterion, (&device, dtype), "pointwise", &common::SHAPE, common::BARE, &[&dyt]);
        }
    }
}

criterion_group!(benches, pointwise);
criterion_main!(benches);
