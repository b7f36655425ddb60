//! P6: a bad call is an error that names the argument; nothing is written, and the next good call works.

mod common;

use normkit::backend::cpu::Cpu;
use normkit::check::{Case, run};
use normkit::norm::{Pair, split_packed, steps};
use normkit::prelude::*;
use normkit::spec::EpsPosition;
use normkit::tensor::{DType, Layout, View, ViewMut};
use normkit::{Error, Gradients, Result, Stream};

const SHAPE: [usize; 2] = [3, 4];

/// The argument that an error names.
#[track_caller]
fn named<T>(result: Result<T>) -> &'static str {
    match result.err().expect("an error") {
        Error::Argument { name, expected, found } => {
            assert!(!expected.is_empty() && !found.is_empty());
            name
        }
        Error::UnsupportedDType { name, .. } | Error::Limit { name, .. } => name,
        other => panic!("no argument is named: {other}"),
    }
}

fn ones(shape: &[usize], dtype: DType) -> HostTensor {
    HostTensor::from_f64(&vec![1.0; shape.iter().product()], shape, dtype).unwrap()
}

/// Runs a forward pass that must fail, and sees that it wrote nothing.
#[track_caller]
fn refused(method: &dyn Method, input: &HostTensor, output: &[usize], dtype: DType) -> &'static str {
    let mut target = HostTensor::from_f64(&vec![-7.0; output.iter().product()], output, dtype).unwrap();
    let before = target.clone();
    let result = {
        let mut view = target.view_mut().unwrap();
        method.forward_into(&input.view().unwrap(), &mut view, None, &Device::Cpu.stream())
    };
    assert_eq!(target, before, "something was written");
    named(result)
}

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
    for shape in [&[1, 4][..], &[1, 4, 1], &[1, 4, 1, 1], &[0, 4, 3]] {
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
    for factor in [-0.1, 1.5, f64::NAN] {
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
    assert_eq!(named(result), "weight");
    assert_eq!((q_out, k_out), (q, k));
}

#[test]
fn bad_steps_are_named() {
    let (x, norm, stream) = (ones(&SHAPE, DType::F32), LayerNorm::new([4]), Device::Cpu.stream());
    let alpha = ones(&[1], DType::F32);
    assert_eq!(named(steps::moments(&DyT::new([4]).alpha(&alpha), &x)), "method");
    let into = |shape: &[usize], dtype| {
        let mut moments = ones(shape, dtype);
        named(steps::moments_into(&norm, &x.view().unwrap(), &mut moments.view_mut().unwrap(), &stream))
    };
    assert_eq!(into(&[3, 4], DType::F32), "moments");
    assert_eq!(into(&[4, 5], DType::F32), "moments");
    assert_eq!(into(&[3, 5], DType::F64), "moments");

    let (moments, wrong) = (ones(&[3, 5], DType::F32), ones(&[4, 5], DType::F32));
    let merge = |parts: &[&HostTensor]| {
        let parts: Vec<View<'_>> = parts.iter().map(|part| part.view().unwrap()).collect();
        let mut merged = ones(&[3, 5], DType::F32);
        let mut target = merged.view_mut().unwrap();
        named(steps::merge_moments_into(&norm, &SHAPE, &parts, &mut target, &stream))
    };
    assert_eq!(merge(&[]), "parts");
    assert_eq!(merge(&[&moments, &wrong]), "parts");
    assert_eq!(merge(&[&moments, &ones(&[3, 5], DType::F64)]), "parts");

    let finish = |moments: &HostTensor, shape: &[usize], dtype| {
        let mut statistics = ones(shape, dtype);
        let mut target = statistics.view_mut().unwrap();
        named(steps::finish_into(&norm, (&SHAPE, DType::F32), &moments.view().unwrap(), &mut target, &stream))
    };
    assert_eq!(finish(&moments, &[3, 5], DType::F32), "statistics");
    assert_eq!(finish(&moments, &[3, 4], DType::F64), "statistics");
    assert_eq!(finish(&ones(&[3, 4], DType::F32), &[3, 4], DType::F32), "moments");

    let apply = |statistics: &HostTensor| {
        let mut y = ones(&SHAPE, DType::F32);
        let (input, mut target) = (x.view().unwrap(), y.view_mut().unwrap());
        named(steps::apply_into(&norm, &input, &statistics.view().unwrap(), &mut target, &stream))
    };
    assert_eq!(apply(&ones(&[3, 5], DType::F32)), "statistics");
    assert_eq!(apply(&ones(&[2, 4], DType::F32)), "statistics");

    let sums = |shape: &[usize], grads: Gradients<'_>| {
        let (mut sums, statistics) = (ones(shape, DType::F32), ones(&[3, 4], DType::F32));
        let (mut target, view) = (sums.view_mut().unwrap(), x.view().unwrap());
        let (saved, workspace) = (statistics.view().unwrap(), &mut Workspace::new());
        named(steps::backward_sums_into(&norm, &view, &view, &saved, &mut target, grads, workspace, &stream))
    };
    assert_eq!(sums(&[3, 5], Gradients::default()), "sums");
    let mut dx = ones(&SHAPE, DType::F32);
    let grads = Gradients { input: Some(dx.view_mut().unwrap()), ..Gradients::default() };
    assert_eq!(sums(&[3, 6], grads), "grad_input");
}

#[test]
fn bad_outputs_are_named() {
    let (x, norm) = (ones(&SHAPE, DType::F32), LayerNorm::new([4]));
    for (shape, dtype) in
        [(&[4, 3][..], DType::F32), (&[12], DType::F32), (&[3, 5], DType::F32), (&SHAPE, DType::F64)]
    {
        assert_eq!(refused(&norm, &x, shape, dtype), "output");
    }
    let mut memory = [0f32; 24];
    let repeated = Layout::strided(&SHAPE, &[0, 1], 0).unwrap();
    let stream = Device::Cpu.stream();
    let mut output = ViewMut::strided(&mut memory, repeated).unwrap();
    assert_eq!(named(norm.forward_into(&x.view().unwrap(), &mut output, None, &stream)), "output");
    assert_eq!(memory, [0f32; 24]);
}

#[test]
fn bad_statistics_are_named() {
    let (x, norm, stream) = (ones(&SHAPE, DType::F32), LayerNorm::new([4]), Device::Cpu.stream());
    let alpha = ones(&[1], DType::F32);
    let forward = |method: &dyn Method, shape: &[usize], dtype| {
        let (mut y, mut statistics) = (ones(&SHAPE, DType::F32), ones(shape, dtype));
        let mut output = y.view_mut().unwrap();
        let mut saved = statistics.view_mut().unwrap();
        method.forward_into(&x.view().unwrap(), &mut output, Some(&mut saved), &stream)
    };
    assert_eq!(named(forward(&norm, &[3, 3], DType::F32)), "statistics");
    assert_eq!(named(forward(&norm, &[4, 3], DType::F32)), "statistics");
    assert_eq!(named(forward(&norm, &[3, 4], DType::F64)), "statistics");
    assert_eq!(named(forward(&DyT::new([4]).alpha(&alpha), &[3, 4], DType::F32)), "statistics");
    assert!(forward(&norm, &[3, 4], DType::F32).is_ok());

    let backward = |method: &dyn Method, statistics: Option<&HostTensor>| {
        let mut dx = ones(&SHAPE, DType::F32);
        let before = dx.clone();
        let statistics = statistics.map(|s| s.view().unwrap());
        let grads = Gradients { input: Some(dx.view_mut().unwrap()), ..Gradients::default() };
        let (g, input) = (x.view().unwrap(), x.view().unwrap());
        let result =
            method.backward_into(&g, &input, statistics.as_ref(), grads, &mut Workspace::new(), &stream);
        assert_eq!(dx, before);
        named(result)
    };
    assert_eq!(backward(&norm, None), "statistics");
    assert_eq!(backward(&norm, Some(&ones(&[4, 4], DType::F32))), "statistics");
    assert_eq!(backward(&DyT::new([4]).alpha(&alpha), Some(&ones(&[3, 4], DType::F32))), "statistics");
}

#[test]
fn bad_gradients_are_named() {
    let (x, weight) = (ones(&SHAPE, DType::F32), ones(&[4], DType::F32));
    let statistics = ones(&[3, 4], DType::F32);
    let backward = |norm: &LayerNorm, g: &HostTensor, target: &str, shape: &[usize], dtype| {
        let mut made = ones(shape, dtype);
        let before = made.clone();
        let view = Some(made.view_mut().unwrap());
        let mut grads = Gradients::default();
        match target {
            "grad_input" => grads.input = view,
            "grad_weight" => grads.weight = view,
            "grad_bias" => grads.bias = view,
            _ => grads.alpha = view,
        }
        let (g, input, saved) = (g.view().unwrap(), x.view().unwrap(), statistics.view().unwrap());
        let stream = Device::Cpu.stream();
        let result = norm.backward_into(&g, &input, Some(&saved), grads, &mut Workspace::new(), &stream);
        assert_eq!(made, before);
        named(result)
    };
    let (bare, bound) = (LayerNorm::new([4]), LayerNorm::new([4]).weight(&weight));
    assert_eq!(backward(&bare, &ones(&[4, 3], DType::F32), "grad_input", &SHAPE, DType::F32), "grad_output");
    assert_eq!(backward(&bare, &ones(&SHAPE, DType::F16), "grad_input", &SHAPE, DType::F32), "grad_output");
    assert_eq!(backward(&bare, &x, "grad_input", &[12], DType::F32), "grad_input");
    assert_eq!(backward(&bare, &x, "grad_input", &SHAPE, DType::BF16), "grad_input");
    assert_eq!(backward(&bound, &x, "grad_weight", &[3], DType::F32), "grad_weight");
    assert_eq!(backward(&bound, &x, "grad_weight", &[4], DType::F16), "grad_weight");
    // Gradients of what is not bound.
    for target in ["grad_weight", "grad_bias", "grad_alpha"] {
        assert_eq!(backward(&bare, &x, target, &[4], DType::F32), target);
    }
}

/// Overlaps that one slice can hold: an output over its own input, shifted by less than the whole.
#[test]
fn overlapping_outputs_are_refused() {
    let mut memory = vec![0f32; 32];
    let (norm, stream) = (LayerNorm::new([4]), Device::Cpu.stream());
    let mut all = ViewMut::from_slice(&mut memory, &[32]).unwrap();
    let (read, write) = all.in_place();
    let part = |offset| Layout::strided(&SHAPE, &[4, 1], offset).unwrap();
    // `in_place` is the one way to hold both; a shifted layout of the input makes the overlap partial.
    let input = read.with_layout(part(2)).unwrap();
    drop(write);
    let first = input.clone().with_layout(part(2)).unwrap();
    assert_eq!(first.shape(), SHAPE);
    let mut y = HostTensor::zeros(&SHAPE, DType::F32).unwrap();
    norm.forward_into(&first, &mut y.view_mut().unwrap(), None, &stream).unwrap();

    // A weight that is the output.
    let mut row = ViewMut::from_slice(&mut memory[..4], &[4]).unwrap();
    let (weight, mut output) = row.in_place();
    let x = ones(&[4], DType::F32);
    let weighted = LayerNorm::new([4]).weight_view(weight);
    assert_eq!(named(weighted.forward_into(&x.view().unwrap(), &mut output, None, &stream)), "output");
    assert!(memory.iter().all(|&m| m == 0.0));
}

#[test]
fn bad_views_and_layouts_are_refused() {
    let data = [0f32; 6];
    assert_eq!(named(View::from_slice(&data, &[2, 2])), "shape");
    assert_eq!(named(View::strided(&data, Layout::contiguous(&[7]))), "memory");
    assert_eq!(named(View::strided(&data, Layout::strided(&[2, 3], &[3, 1], 1).unwrap())), "memory");
    assert_eq!(named(View::from_slice(&data, &[6]).unwrap().with_layout(Layout::contiguous(&[7]))), "memory");
    assert_eq!(named(Layout::strided(&[2], &[1, 1], 0)), "strides");
    assert_eq!(named(Layout::strided(&[3], &[-1], 1)), "layout");
    assert_eq!(named(Layout::strided(&[usize::MAX, 3], &[1, 1], 0)), "layout");
    assert_eq!(named(Layout::contiguous(&[2]).transposed(0, 1)), "axis");
    assert_eq!(named(Layout::contiguous(&[2]).sliced(0, 1..3, 1)), "range");
    assert_eq!(named(Layout::contiguous(&[2]).sliced(0, 0..2, 0)), "range");
    assert_eq!(named(Layout::contiguous(&[2]).expanded(0, 3)), "axis");
    assert_eq!(named(HostTensor::zeros(&[usize::MAX, 2], DType::F32)), "layout");
    assert_eq!(named("f8".parse::<DType>()), "dtype");
    // The address space holds it, no machine does.
    let large = HostTensor::zeros(&[1 << 58], DType::F16);
    assert!(matches!(large, Err(Error::OutOfMemory { .. })), "{large:?}");
}

#[test]
fn bad_devices_are_refused() {
    assert_eq!(named(Cpu::default().with_threads(0)), "threads");
    let unknown = Case::new("no_norm", DType::F32, &[1, 1]);
    assert_eq!(named(run(&unknown, &Device::Cpu)), "method");
}

#[test]
fn the_next_good_call_works() {
    let stream = Stream::Cpu(Cpu::default());
    let (x, mut y) = (ones(&SHAPE, DType::F32), ones(&SHAPE, DType::F32));
    for _ in 0..3 {
        let mut output = y.view_mut().unwrap();
        let bad = LayerNorm::new([4]).eps(-1.0).forward_into(&x.view().unwrap(), &mut output, None, &stream);
        assert_eq!(named(bad), "eps");
        LayerNorm::new([4]).forward_into(&x.view().unwrap(), &mut output, None, &stream).unwrap();
        drop(output);
        assert_eq!(y.to_f64(), [0.0; 12]);
    }
}

/// Every message says what was expected and what came.
#[test]
fn messages_can_be_acted_on() {
    let x = ones(&SHAPE, DType::F32);
    let message = LayerNorm::new([5]).forward(&x).unwrap_err().to_string();
    assert_eq!(message, "input: expected a shape that ends with [5], found [3, 4]");
    let message = RmsNorm::new([4]).eps(-1.0).forward(&x).unwrap_err().to_string();
    assert_eq!(message, "eps: expected a finite number that is not negative, found -1");
}

#[cfg(feature = "wgpu")]
#[test]
fn what_a_gpu_cannot_do_is_an_error() {
    let device = common::wgpu_device();
    let case = Case::new("layer_norm", DType::F64, &[2, 3]);
    let error = run(&case, &Device::Wgpu(device.clone())).unwrap_err();
    assert!(matches!(error, Error::UnsupportedDType { backend: "wgpu", dtype: DType::F64, .. }), "{error}");
    // Host memory on a GPU's stream, and the reverse.
    let (x, mut y) = (ones(&SHAPE, DType::F32), ones(&SHAPE, DType::F32));
    let on_gpu = device.upload(&x).unwrap();
    let norm = LayerNorm::new([4]);
    let stream = Device::Wgpu(device).stream();
    let mut output = y.view_mut().unwrap();
    assert_eq!(named(norm.forward_into(&x.view().unwrap(), &mut output, None, &stream)), "input");
    let cpu = Device::Cpu.stream();
    assert_eq!(named(norm.forward_into(&on_gpu.view().unwrap(), &mut output, None, &cpu)), "input");
    drop(output);
    norm.forward_into(&x.view().unwrap(), &mut y.view_mut().unwrap(), None, &cpu).unwrap();
    assert_eq!(y.to_f64(), [0.0; 12]);
    assert!(norm.forward(&on_gpu).is_ok());
}
