//! The `column` schedule: norms over an axis that is not innermost, forward and backward.

#[allow(missing_docs, reason = "a benchmark's helpers are no interface")]
mod common;

use criterion::{Criterion, criterion_group, criterion_main};
use normkit::tensor::DType;
use normkit::{BatchNorm, LayerNorm2d, Normalize, WeightNorm};

fn column(criterion: &mut Criterion) {
    for device in common::devices() {
        for dtype in [DType::F32, DType::BF16] {
            let noise = |shape: &[usize]| common::noise(&device, shape, dtype);
            let (weight, bias, g) = (noise(&[256]), noise(&[256]), noise(&[4096]));
            let layer_norm = LayerNorm2d::new(256).weight(&weight).bias(&bias);
            let images: [&dyn normkit::Method; 2] = [&layer_norm, &Normalize::new()];
            common::passes(
                criterion,
                (&device, dtype),
                "column/images",
                &[32, 256, 32, 32],
                common::BARE,
                &images,
            );
            let batch_norm = BatchNorm::new(256).weight(&weight).bias(&bias);
            common::passes(
                criterion,
                (&device, dtype),
                "column/features",
                &[32_768, 256],
                common::BARE,
                &[&batch_norm],
            );
            let weight_norm = WeightNorm::new(Some(1)).g(&g);
            common::passes(
                criterion,
                (&device, dtype),
                "column/weights",
                &[4096, 4096],
                common::BARE,
                &[&weight_norm],
            );
        }
    }
}

criterion_group!(benches, column);
criterion_main!(benches);
