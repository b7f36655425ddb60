//! The `split` schedule: norms whose rows are too few or too long for one thread each, forward and backward.

#[allow(missing_docs, reason = "a benchmark's helpers are no interface")]
mod common;

use criterion::{Criterion, criterion_group, criterion_main};
use normkit::tensor::DType;
use normkit::{BatchNorm, GroupNorm, WeightNorm};

fn split(criterion: &mut Criterion) {
    for device in common::devices() {
        for dtype in [DType::F32, DType::BF16] {
            let noise = |shape: &[usize]| common::noise(&device, shape, dtype);
            let (weight, bias, g) = (noise(&[64]), noise(&[64]), noise(&[1]));
            let batch_norm = BatchNorm::new(64).weight(&weight).bias(&bias);
            let group_norm = GroupNorm::new(1, 64).weight(&weight).bias(&bias);
            let images: [&dyn normkit::Method; 2] = [&batch_norm, &group_norm];
            common::passes(
                criterion,
                (&device, dtype),
                "split/images",
                &[4, 64, 256, 256],
                common::BARE,
                &images,
            );
            let weight_norm = WeightNorm::new(None).g(&g);
            common::passes(
                criterion,
                (&device, dtype),
                "split/weights",
                &[4096, 4096],
                common::BARE,
                &[&weight_norm],
            );
        }
    }
}

criterion_group!(benches, split);
criterion_main!(benches);
