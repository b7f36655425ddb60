//! The `row` schedule: LayerNorm and RMSNorm, forward and backward.

#[allow(missing_docs, reason = "a benchmark's helpers are no interface")]
mod common;

use criterion::{Criterion, criterion_group, criterion_main};
use normkit::tensor::DType;
use normkit::{LayerNorm, RmsNorm};

fn row(criterion: &mut Criterion) {
    let cols = common::SHAPE[1];
    for device in common::devices() {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let weight = common::noise(&device, &[cols], dtype);
            let bias = common::noise(&device, &[cols], dtype);
            let layer_norm = LayerNorm::new([cols]).weight(&weight).bias(&bias);
            let rms_norm = RmsNorm::new([cols]).weight(&weight);
            common::passes(
                criterion,
                (&device, dtype),
                "row",
                &common::SHAPE,
                common::BARE,
                &[&layer_norm, &rms_norm],
            );
        }
    }
}

criterion_group!(benches, row);
criterion_main!(benches);
