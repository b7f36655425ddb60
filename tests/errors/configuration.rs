//! What the methods ask of their options, parameters and masks.

use super::{SHAPE, common, named, ones, refused};
use normkit::norm::{Pair, split_packed};
use normkit::prelude::*;
use normkit::spec::EpsPosition;
use normkit::tensor::{DType, Layout};

#[test]
fn bad_options_are_named() {
    let x = ones(&SHAPE, DType::F32);
    let check = |method: &dyn Method, name: &str| assert_eq!(refused(method, &x, &SHAPE, DType::F32), name);
    for eps in [-1e-9, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        check(&LayerNorm::new([4]).eps(eps), "eps");
        check(&RmsNorm::new([4]).eps(eps).eps_position(EpsPosition::Outside), "eps");
    }
    for partial in [0.0, -0.5, 1.0001, f64::NAN, 0.2] {
        check(&RmsNorm::new([4]).partial(partial), "partial");
    }
    check(&RmsNorm::new([4]).weight_offset(f64::NAN), "weight_offset");
    check(&RmsNorm::new([4]).weight_offset(0.5).cast(Cast::Gemma), "weight_offset");
    check(&DyT::new([4]), "alpha");
    for shape in [vec![], vec![0], vec![4, 0]] {
        check(&LayerNorm::new(shape.clone()), "normalized_shape");
        check(&RmsNorm::new(shape), "normalized_shape");
    }
    for shape in [vec![3], vec![3, 3, 4], vec![usize::MAX, 4]] {
        check(&LayerNorm::new(shape), "input");
    }
}

#[test]
fn bad_parameters_are_named() {
    let x = ones(&SHAPE, DType::F32);
    let (short, long, double) = (ones(&[3], DType::F32), ones(&[1, 4], DType::F32), ones(&[4], DType::F64));
    let check = |method: &dyn Method, name: &str| assert_eq!(refused(method, &x, &SHAPE, DType::F32), name);
    for bad in [&short, &long, &double] {
        check(&LayerNorm::new([4]).weight(bad), "weight");
        check(&LayerNorm::new([4]).bias(bad), "bias");
        check(&RmsNorm::new([4]).weight(bad), "weight");
        check(&DyT::new([4]).alpha(&ones(&[], DType::F32)).weight(bad), "weight");
    }
    check(&DyT::new([4]).alpha(&short), "alpha");
    check(&DyT::new([4]).alpha(&ones(&[1], DType::F64)), "alpha");
    check(&DyT::new([4]).alpha(&ones(&[0], DType::F32)), "alpha");
}

/// What the methods with channels, norms and heads ask of their options and shapes.
#[test]
fn bad_shapes_of_the_family_are_named() {
    let refuse = |method: &dyn Method, shape: &[usize], name: &str| {
        let x = ones(shape, DType::F32);
        assert_eq!(refused(method, &x, shape, DType::F32), name, "{} on {shape:?}", method.name());
    };
    for groups in [0, 3, 8] {
        refuse(&GroupNorm::new(groups, 4), &[2, 4, 5], "num_groups");
    }
    refuse(&GroupNorm::new(1, 0), &[2, 0, 5], "num_channels");
    refuse(&BatchNorm::new(0), &[2, 0, 5], "num_channels");
    refuse(&LayerNorm2d::new(0), &[2, 0, 5], "num_channels");
    for shape in [&[4][..], &[2, 5], &[4, 2], &[]] {
        refuse(&BatchNorm::new(4), shape, "input");
        refuse(&GroupNorm::new(2, 4), shape, "input");
        refuse(&LayerNorm2d::new(4), shape, "input");
    }
    refuse(&InstanceNorm::new(4), &[2, 4], "input");
    refuse(&InstanceNorm::new(4), &[2, 4, 0], "input");
    // One value per channel has no variance.
    for shape in [&[1, 4][..], &[1, 4, 1], &[1, 4, 1, 1]] {
        refuse(&BatchNorm::new(4), shape, "input");
    }
    for eps in [-1.0, f64::NAN, f64::INFINITY] {
        refuse(&BatchNorm::new(4).eps(eps), &[2, 4], "eps");
        refuse(&GroupNorm::new(2, 4).eps(eps), &[2, 4], "eps");
        refuse(&InstanceNorm::new(4).eps(eps), &[2, 4, 3], "eps");
        refuse(&LayerNorm2d::new(4).eps(eps), &[2, 4], "eps");
        refuse(&Normalize::new().eps(eps), &[2, 4], "eps");
        refuse(QkNorm::rms().eps(eps).query(), &[2, 4], "eps");
    }
    for p in [0.5, 0.999, 0.0, -1.0, f64::NAN, f64::NEG_INFINITY] {
        refuse(&Normalize::new().p(p), &[2, 4], "p");
    }
    for dim in [2, 7, -3, isize::MAX, isize::MIN] {
        refuse(&Normalize::new().dim(dim), &[2, 4], "dim");
    }
    refuse(&Normalize::new().dim(0), &[], "dim");
    refuse(&Normalize::new(), &[2, 0], "input");
    refuse(&WeightNorm::new(Some(2)), &[2, 4], "dim");
    refuse(&WeightNorm::new(Some(usize::MAX)), &[2, 4], "dim");
    refuse(&WeightNorm::new(Some(0)), &[2, 0], "v");
    refuse(&Eln::new([4]), &[2, 4], "alpha");
    refuse(QkNorm::l2().query(), &[4], "input");
    refuse(QkNorm::layer().query(), &[4, 0], "input");
}

/// Weights of channels may be `[C]` or broadcast to the input, both of the same shape.
#[test]
fn bad_weights_of_the_family_are_named() {
    let shape = [2, 4, 3];
    let x = ones(&shape, DType::F32);
    let check = |method: &dyn Method, name: &str| assert_eq!(refused(method, &x, &shape, DType::F32), name);
    let good = ones(&[4], DType::F32);
    for bad in [&[3][..], &[2, 4], &[2, 4, 2], &[1, 3, 1], &[4, 1, 1], &[1, 1, 4, 1], &[]] {
        let bad = ones(bad, DType::F32);
        check(&BatchNorm::new(4).weight(&bad), "weight");
        check(&GroupNorm::new(2, 4).bias(&bad), "bias");
        check(&InstanceNorm::new(4).weight(&bad), "weight");
        check(&LayerNorm2d::new(4).weight(&good).bias(&bad), "bias");
        check(&WeightNorm::new(Some(1)).g(&ones(&[5], DType::F32)), "weight");
    }
    check(&BatchNorm::new(4).weight(&good).bias(&ones(&[2, 4, 1], DType::F32)), "bias");
    check(&BatchNorm::new(4).weight(&ones(&[4], DType::F64)), "weight");
    check(&WeightNorm::new(None).g(&ones(&[2], DType::F32)), "weight");
    check(&WeightNorm::new(Some(1)).g(&ones(&[2, 1, 1], DType::F32)), "weight");
    for bad in [&[4][..], &[2, 3], &[1, 4, 3]] {
        let bad = ones(bad, DType::F32);
        check(QkNorm::rms().query_weight(&bad).query(), "weight");
    }
}

/// A mask broadcasts to the input and has a dtype that the input's arithmetic holds. One that leaves nothing of a row is
/// no error: the row is zeros.
#[test]
fn bad_masks_are_named_and_empty_rows_are_zeros() {
    let x = ones(&SHAPE, DType::F32);
    for bad in [&[3][..], &[4, 3], &[3, 1, 4], &[2, 4], &[1, 3, 4], &[0]] {
        let bad = ones(bad, DType::F32);
        assert_eq!(refused(&LayerNorm::new([4]).mask(&bad), &x, &SHAPE, DType::F32), "mask", "{bad:?}");
        assert_eq!(refused(&BatchNorm::new(4).mask(&bad), &x, &SHAPE, DType::F32), "mask", "{bad:?}");
    }
    let double = ones(&[4], DType::F64);
    assert_eq!(refused(&RmsNorm::new([4]).mask(&double), &x, &SHAPE, DType::F32), "mask");

    let values: Vec<f64> = (0..12).map(|i| common::wave(i, 0.2)).collect();
    let x = HostTensor::from_f64(&values, &SHAPE, DType::F32).unwrap();
    let (bias, mask) = (ones(&[4], DType::F32), ones(&[3, 1], DType::F32).to_f64());
    let mask = HostTensor::from_f64(&[mask[0], 0.0, mask[2]], &[3, 1], DType::F32).unwrap();
    let norm = LayerNorm::new([4]).bias(&bias).mask(&mask);
    let (y, saved) = norm.forward_train(&x).unwrap();
    let dx = norm.backward(&x, &x, &saved).unwrap().input;
    assert!(y.to_f64()[4..8].iter().chain(&dx.to_f64()[4..8]).all(|&x| x == 0.0));
    assert!(y.to_f64()[..4].iter().chain(&dx.to_f64()[8..]).all(|&x| x != 0.0));
}

#[test]
fn bad_running_statistics_are_named() {
    let x = ones(&SHAPE, DType::F32);
    let norm = BatchNorm::new(4);
    let train = |mean: HostTensor, var: HostTensor, momentum| {
        let mut running = RunningStatistics { mean, var, batches: 0 };
        let before = (running.mean.clone(), running.var.clone());
        let result = norm.train(&x, &mut running, momentum).map(drop);
        assert_eq!((running.mean, running.var, running.batches), (before.0, before.1, 0));
        named(result)
    };
    let good = || ones(&[4], DType::F32);
    let half = Momentum::Factor(0.5);
    for bad in [ones(&[4], DType::F64), ones(&[3], DType::F32), ones(&[1, 4], DType::F32)] {
        assert_eq!(train(bad.clone(), good(), half), "running_mean");
        assert_eq!(train(good(), bad.clone(), half), "running_var");
        let expected = if bad.dtype() == DType::F64 { "statistics" } else { "running_mean" };
        assert_eq!(named(norm.frozen(&bad, &good()).and_then(|norm| norm.forward(&x))), expected);
    }
    for factor in [f64::NEG_INFINITY, f64::NAN] {
        assert_eq!(train(good(), good(), Momentum::Factor(factor)), "momentum");
    }
    // Statistics are in the arithmetic of the running ones; it must be the input's.
    let frozen = norm.frozen(&good(), &good()).unwrap();
    assert_eq!(refused(&frozen, &ones(&SHAPE, DType::F64), &SHAPE, DType::F64), "statistics");
    assert_eq!(refused(&frozen, &ones(&[3, 5], DType::F32), &[3, 5], DType::F32), "input");
}

#[test]
fn queries_and_keys_that_do_not_fit_are_named() {
    let q = ones(&[2, 6, 8], DType::F32);
    let norm = QkNorm::rms();
    for bad in [&[2, 4, 8][..], &[2, 0, 8], &[2, 12, 8], &[2, 3, 4], &[6, 8], &[1, 2, 3, 8]] {
        assert_eq!(named(norm.forward(&q, &ones(bad, DType::F32))), "key", "{bad:?}");
    }
    assert_eq!(named(norm.forward(&q, &ones(&[2, 3, 8], DType::F64))), "key");
    assert!(norm.forward(&q, &ones(&[2, 3, 8], DType::F32)).is_ok());
    assert!(norm.forward(&q, &ones(&[2, 1, 8], DType::F32)).is_ok());
    for (shape, heads, key_heads) in
        [(&[2, 5, 8][..], 4, 2), (&[2, 9, 8], 4, 3), (&[8], 2, 2), (&[2, 3, 4, 8], 3, 3)]
    {
        assert_eq!(named(split_packed(&Layout::contiguous(shape), heads, key_heads)), "packed", "{shape:?}");
    }
    // A wrong key leaves the queries alone, too.
    let (k, weight) = (ones(&[2, 3, 8], DType::F32), ones(&[5], DType::F32));
    let (mut q_out, mut k_out) = (q.clone(), k.clone());
    let result = QkNorm::rms().key_weight(&weight).forward_into(
        Pair { query: &q.view().unwrap(), key: &k.view().unwrap() },
        Pair { query: &mut q_out.view_mut().unwrap(), key: &mut k_out.view_mut().unwrap() },
        Pair { query: None, key: None },
        &Device::Cpu.stream(),
    );
    assert_eq!(named(result), "key_weight");
    assert_eq!((q_out, k_out), (q, k));
}
