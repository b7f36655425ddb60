//! Norms on both sides of a residual.

use super::{named, ones};
use normkit::Workspace;
use normkit::norm::{HiddenFrom, Sandwich, SandwichGradients, SandwichSaved, SandwichStatistics};
use normkit::prelude::*;
use normkit::tensor::DType;

#[test]
fn what_makes_no_sense_is_refused() {
    let zeros = |shape: &[usize], dtype| HostTensor::zeros(shape, dtype).unwrap();
    let (x, short, wide) = (zeros(&[3, 4], DType::F32), zeros(&[4], DType::F32), zeros(&[3, 4], DType::F64));
    let five = zeros(&[5], DType::F32);
    let (rms, layer) = (|| RmsNorm::new([4]), || LayerNorm::new([4]));
    let both = Sandwich::new(rms(), layer());
    assert_eq!(named(both.forward(&x, &short)), "residual");
    assert_eq!(named(both.forward(&x, &wide)), "residual");
    assert_eq!(named(Sandwich::new(rms().weight(&five), layer()).forward(&x, &x)), "after.weight");
    assert_eq!(named(Sandwich::new(layer().bias(&five), layer()).forward(&x, &x)), "after.bias");
    assert_eq!(named(Sandwich::new(rms(), layer().weight(&five)).forward(&x, &x)), "before.weight");
    assert_eq!(named(Sandwich::new(rms(), layer().bias(&five)).forward(&x, &x)), "before.bias");
    // Only norms of the same trailing axes with nothing else.
    assert_eq!(named(Sandwich::new(rms().residual(&x), layer()).forward(&x, &x)), "after");
    assert_eq!(named(Sandwich::new(rms(), layer().output_gate(&x)).forward(&x, &x)), "before");
    assert_eq!(named(Sandwich::new(rms().mask(&x), layer()).forward(&x, &x)), "after");
    assert_eq!(named(Sandwich::new(Normalize::new(), layer()).forward(&x, &x)), "after");
    assert_eq!(
        named(Sandwich::new(rms(), DyT::new([4]).alpha(&zeros(&[1], DType::F32))).forward(&x, &x)),
        "before"
    );
    assert_eq!(named(Sandwich::new(RmsNorm::new([3, 4]), layer()).forward(&x, &x)), "after");
    assert_eq!(named(Sandwich::new(GroupNorm::new(2, 4), layer()).forward(&x, &x)), "after");
    let per_row = zeros(&[3, 1], DType::F32);
    let broadcast = rms().broadcast_parameters().weight(&per_row);
    assert_eq!(named(Sandwich::new(broadcast, layer()).forward(&x, &x)), "after");
    assert_eq!(named(Sandwich::new(rms().eps(-1.0), layer()).forward(&x, &x)), "eps");

    let (_, h, saved) = both.forward_train(&x, &x).unwrap();
    assert_eq!(named(both.backward(&short, None, &x, &x, &saved)), "grad_output");
    assert_eq!(named(both.backward(&x, Some(&wide), &x, &x, &saved)), "grad_hidden");
    assert_eq!(named(both.backward(&x, None, &x, &short, &saved)), "residual");
    assert_eq!(named(both.backward_of_hidden(&x, None, &x, &short, &saved)), "hidden");
    let two_rows = || Device::Cpu.upload(&zeros(&[2, 4], DType::F32)).unwrap();
    let of_fewer = SandwichSaved { after: two_rows(), before: saved.before.clone() };
    assert_eq!(named(both.backward(&x, None, &x, &h, &of_fewer)), "after.statistics");
    let of_fewer = SandwichSaved { after: saved.after.clone(), before: two_rows() };
    assert_eq!(named(both.backward(&x, None, &x, &h, &of_fewer)), "before.statistics");
}

/// Nothing that is written may share memory with what is read, but for what it replaces exactly.
#[test]
fn overlaps_are_refused() {
    let stream = Device::Cpu.stream();
    let x = ones(&[4, 4], DType::F32);
    let (input, mut y) = (x.view().unwrap(), HostTensor::zeros(&[4, 4], DType::F32).unwrap());
    let mut memory = HostTensor::zeros(&[4, 4], DType::F32).unwrap();
    let mut view = memory.view_mut().unwrap();
    let (from, to) = view.in_place();
    let norms = Sandwich::new(RmsNorm::new([4]), RmsNorm::new([4]));
    let statistics = SandwichStatistics { after: Some(to), before: None };
    let result = norms.forward_into(&input, &from, &mut y.view_mut().unwrap(), None, statistics, &stream);
    assert_eq!(named(result), "after.statistics");

    let mut row = HostTensor::zeros(&[4], DType::F32).unwrap();
    let mut view = row.view_mut().unwrap();
    let (weight, to) = view.in_place();
    let norms = Sandwich::new(RmsNorm::new([4]).weight_view(weight), RmsNorm::new([4]));
    let (_, _, saved) = norms.forward_train(&x, &x).unwrap();
    let result = norms.backward_into(
        &input,
        None,
        &input,
        HiddenFrom::Residual(&input),
        [&saved.after.view().unwrap(), &saved.before.view().unwrap()],
        SandwichGradients { after_weight: Some(to), ..Default::default() },
        &mut Workspace::new(),
        &stream,
    );
    assert_eq!(named(result), "after.grad_weight");
}
