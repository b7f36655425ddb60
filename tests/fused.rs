//! What surrounds a norm: the one pass gives what its parts give, and refuses what makes no sense.

mod common;

use common::named;
use normkit::prelude::*;
use normkit::spec::{Activation, Dropout};
use normkit::tensor::{DType, Layout, View, ViewMut};
use normkit::{DeviceTensor, Error, Gradients};

const SHAPE: [usize; 2] = [37, 200];

fn host(phase: f64, dtype: DType) -> HostTensor {
    let values: Vec<f64> = (0..SHAPE[0] * SHAPE[1]).map(|i| 2.0 * common::wave(i, phase)).collect();
    HostTensor::from_f64(&values, &SHAPE, dtype).unwrap()
}

fn weight(dtype: DType) -> HostTensor {
    let values: Vec<f64> = (0..SHAPE[1]).map(|i| 1.0 + 0.3 * common::wave(i, 0.9)).collect();
    HostTensor::from_f64(&values, &SHAPE[1..], dtype).unwrap()
}

fn numbers(tensor: &DeviceTensor) -> Vec<f64> {
    tensor.read().unwrap().to_f64()
}

fn bits(tensor: &DeviceTensor) -> Vec<u64> {
    numbers(tensor).into_iter().map(f64::to_bits).collect()
}

/// `a + b`, rounded to their dtype.
fn sum(a: &HostTensor, b: &HostTensor) -> HostTensor {
    // Exact in float64 where they are float32, so rounded once.
    let both: Vec<f64> = a.to_f64().iter().zip(b.to_f64()).map(|(a, b)| a + b).collect();
    HostTensor::from_f64(&both, a.shape(), a.dtype()).unwrap()
}

/// Where the sum is exact to its dtype, norm and gradients are bit for bit those of adding first.
#[test]
fn a_residual_before_gives_the_bits_of_adding_first() {
    for device in common::devices() {
        for dtype in common::dtypes(&device).filter(|&dtype| dtype == dtype.compute()) {
            let upload = |tensor: &HostTensor| device.upload(tensor).unwrap();
            let (x, r) = (host(0.2, dtype), host(1.4, dtype));
            let (g, more, w) = (host(2.2, dtype), host(3.1, dtype), upload(&weight(dtype)));
            let added = upload(&sum(&x, &r));
            let (x, r, g, more) = (upload(&x), upload(&r), upload(&g), upload(&more));
            let alone = RmsNorm::new([SHAPE[1]]).weight(&w);
            let fused = alone.clone().residual(&r);

            let (y, h, saved) = fused.forward_hidden(&x).unwrap();
            let (expected, of_sum) = alone.forward_train(&added).unwrap();
            assert_eq!((bits(&y), bits(&h)), (bits(&expected), bits(&added)), "{device:?} {dtype}");

            let grads = fused.backward_hidden(&g, Some(&more), &x, &saved).unwrap();
            let plain = alone.backward(&g, &added, &of_sum).unwrap();
            let host = |tensor: &DeviceTensor| tensor.read().unwrap();
            let total = upload(&sum(&host(&plain.input), &host(&more)));
            assert_eq!(bits(&grads.input), bits(&total), "{device:?} {dtype}");
            assert_eq!(bits(&grads.before.unwrap()), bits(&total), "{device:?} {dtype}");
            assert_eq!(bits(&grads.weight.unwrap()), bits(&plain.weight.unwrap()), "{device:?} {dtype}");

            // The sum in the place of both.
            let of_hidden = alone.clone().of_hidden(1.0, 1.0);
            let again = of_hidden.backward_hidden(&g, Some(&more), &h, &saved).unwrap();
            assert_eq!(bits(&again.input), bits(&total), "{device:?} {dtype}");
        }
    }
}

/// The squared distance of a result from that of float64.
fn distance(found: &[f64], exact: &[f64]) -> f64 {
    found.iter().zip(exact).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// In 16 bits, one rounding at the end is nearer to the exact result than one after each part.
#[test]
fn one_pass_is_nearer_than_its_parts() {
    let cpu = |tensor: &HostTensor| Device::Cpu.upload(tensor).unwrap();
    for dtype in [DType::F16, DType::BF16] {
        let (x, r, w) = (host(0.2, dtype), host(1.4, dtype), weight(dtype));
        let wide = |tensor: &HostTensor| {
            cpu(&HostTensor::from_f64(&tensor.to_f64(), tensor.shape(), DType::F64).unwrap())
        };
        let (x64, r64, w64) = (wide(&x), wide(&r), wide(&w));
        let (x, r, w) = (cpu(&x), cpu(&r), cpu(&w));

        // Adding first.
        let exact = RmsNorm::new([SHAPE[1]]).eps(1e-6).weight(&w64).residual(&r64).forward(&x64).unwrap();
        let norm = RmsNorm::new([SHAPE[1]]).eps(1e-6).weight(&w);
        let (fused, hidden, _) = norm.clone().residual(&r).forward_hidden(&x).unwrap();
        let parts = norm.forward(&hidden).unwrap();
        let [fused, parts] = [fused, parts].map(|y| distance(&numbers(&y), &numbers(&exact)));
        assert!(fused < 0.8 * parts, "{dtype} residual: {fused:e} and {parts:e}");

        // A gate after the norm, whose own value is rounded in between.
        let exact = RmsNorm::new([SHAPE[1]]).eps(1e-6).weight(&w64).output_gate(&r64).forward(&x64).unwrap();
        let fused = norm.clone().output_gate(&r).forward(&x).unwrap();
        let silu = |z: &f64| z / (1.0 + (-z).exp());
        let rounded = |values: Vec<f64>| HostTensor::from_f64(&values, &SHAPE, dtype).unwrap().to_f64();
        let gate = rounded(numbers(&r).iter().map(silu).collect());
        let normed = numbers(&norm.forward(&x).unwrap());
        let parts = rounded(normed.iter().zip(&gate).map(|(y, z)| y * z).collect());
        let exact = numbers(&exact);
        let [fused, parts] = [&numbers(&fused), &parts].map(|y| distance(y, &exact));
        assert!(fused < 0.8 * parts, "{dtype} gate: {fused:e} and {parts:e}");
    }
}

/// A norm with something before and after it.
fn around<'a>(residual: View<'a>, gate: &'a HostTensor) -> RmsNorm<'a> {
    RmsNorm::new([SHAPE[1]]).residual_view(residual).output_gate(gate)
}

/// The sum may take the place of the residual, the output that of the input, and gradients those of gradients.
#[test]
fn results_may_take_the_place_of_operands() {
    let stream = Device::Cpu.stream();
    for dtype in DType::FLOATS {
        let (x, r, g, more) = (host(0.2, dtype), host(1.4, dtype), host(2.2, dtype), host(3.1, dtype));
        let z = host(0.7, dtype);
        let [mut y, mut h, mut dx, mut dr] = [(); 4].map(|()| HostTensor::zeros(&SHAPE, dtype).unwrap());
        let mut statistics = HostTensor::zeros(&[SHAPE[0], 4], dtype.compute()).unwrap();
        around(r.view().unwrap(), &z)
            .forward_hidden_into(
                &x.view().unwrap(),
                &mut y.view_mut().unwrap(),
                Some(&mut h.view_mut().unwrap()),
                Some(&mut statistics.view_mut().unwrap()),
                &stream,
            )
            .unwrap();
        let (mut x_to_y, mut r_to_h) = (x.clone(), r.clone());
        {
            let (mut x_memory, mut r_memory) = (x_to_y.view_mut().unwrap(), r_to_h.view_mut().unwrap());
            let ((from, mut to), (residual, mut hidden)) = (x_memory.in_place(), r_memory.in_place());
            around(residual, &z)
                .forward_hidden_into(&from, &mut to, Some(&mut hidden), None, &stream)
                .unwrap();
        }
        assert_eq!((&x_to_y, &r_to_h), (&y, &h), "{dtype}");

        let (saved, mut workspace) = (statistics.view().unwrap(), Workspace::new());
        let grads = Gradients {
            input: Some(dx.view_mut().unwrap()),
            before: Some(dr.view_mut().unwrap()),
            ..Gradients::default()
        };
        let (input, of_hidden) = (x.view().unwrap(), more.view().unwrap());
        around(r.view().unwrap(), &z)
            .backward_hidden_into(
                &g.view().unwrap(),
                Some(&of_hidden),
                &input,
                Some(&saved),
                grads,
                &mut workspace,
                &stream,
            )
            .unwrap();
        let (mut g_to_dx, mut more_to_dr) = (g.clone(), more.clone());
        {
            let (mut g_memory, mut more_memory) =
                (g_to_dx.view_mut().unwrap(), more_to_dr.view_mut().unwrap());
            let ((of_output, to), (of_hidden, to_residual)) = (g_memory.in_place(), more_memory.in_place());
            let grads = Gradients { input: Some(to), before: Some(to_residual), ..Gradients::default() };
            around(r.view().unwrap(), &z)
                .backward_hidden_into(
                    &of_output,
                    Some(&of_hidden),
                    &input,
                    Some(&saved),
                    grads,
                    &mut workspace,
                    &stream,
                )
                .unwrap();
        }
        assert_eq!((g_to_dx, more_to_dr), (dx, dr), "{dtype}");
    }
}

/// Scale and shift of each sample are a weight and a bias that vary along other axes.
#[test]
fn adaptive_norms_are_weights_of_each_sample() {
    let (batch, tokens, cols) = (3, 5, 8);
    let values = |len: usize, phase| (0..len).map(|i| common::wave(i, phase)).collect::<Vec<f64>>();
    let tensor = |shape: &[usize], phase| {
        let len = shape.iter().product();
        HostTensor::from_f64(&values(len, phase), shape, DType::F64).unwrap()
    };
    let x = tensor(&[batch, tokens, cols], 0.1);
    for shape in [[batch, 1, cols], [batch, tokens, cols], [1, 1, cols]] {
        let (scale, shift) = (tensor(&shape, 0.6), tensor(&shape, 1.6));
        let norm =
            LayerNorm::new([cols]).weight_offset(1.0).broadcast_parameters().weight(&scale).bias(&shift);
        let y = norm.forward(&x).unwrap().to_f64();
        let plain = LayerNorm::new([cols]).forward(&x).unwrap().to_f64();
        for (index, (y, x_hat)) in y.iter().zip(plain).enumerate() {
            let (sample, token, col) = (index / (tokens * cols), index / cols % tokens, index % cols);
            let at = (sample.min(shape[0] - 1) * shape[1] + token.min(shape[1] - 1)) * cols + col;
            let expected = x_hat * (scale.to_f64()[at] + 1.0) + shift.to_f64()[at];
            assert!((y - expected).abs() < 1e-14, "{shape:?} at {index}: {y} and {expected}");
        }
    }
    let scale = tensor(&[batch, 1, cols], 0.6);
    let refused = LayerNorm::new([cols]).weight(&scale).forward(&x);
    assert!(matches!(refused, Err(Error::Argument { name: "weight", .. })), "must be asked for");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let x = HostTensor::zeros(&[3, 4], DType::F32).unwrap();
    let other = |shape: &[usize], dtype| HostTensor::zeros(shape, dtype).unwrap();
    let (same, short, wide) =
        (other(&[3, 4], DType::F32), other(&[4], DType::F32), other(&[3, 4], DType::F64));
    let norm = || RmsNorm::new([4]);
    assert_eq!(named(norm().residual(&short).forward(&x)), "residual");
    assert_eq!(named(norm().residual(&wide).forward(&x)), "residual");
    assert_eq!(named(norm().input_gate(&short).forward(&x)), "gate");
    assert_eq!(named(norm().output_gate(&short).forward(&x)), "gate");
    assert_eq!(named(norm().output_residual(&wide).forward(&x)), "residual");
    assert_eq!(named(norm().of_hidden(1.0, 1.0).forward(&x)), "residual");
    assert_eq!(named(norm().scaled_residual(f64::NAN, &same, 1.0).forward(&x)), "input_scale");
    assert_eq!(named(norm().scaled_residual(1.0, &same, f64::INFINITY).forward(&x)), "residual_scale");
    assert_eq!(named(norm().residual(&same).input_gate(&same).forward(&x)), "prologue");
    assert_eq!(named(norm().output_gate(&same).activation(Activation::Silu).forward(&x)), "epilogue");
    assert_eq!(named(norm().forward_hidden(&x)), "hidden");
    let (_, _, saved) = norm().residual(&same).forward_hidden(&x).unwrap();
    assert_eq!(named(norm().backward_hidden(&x, Some(&x), &x, &saved)), "grad_hidden");
    let narrow = other(&[3, 4], DType::BF16);
    assert_eq!(named(norm().residual(&same).backward_hidden(&x, Some(&narrow), &x, &saved)), "grad_hidden");
}

/// Views of one memory from different places on, as a caller with raw pointers may make them.
#[test]
fn overlaps_other_than_exact_ones_are_refused() {
    let stream = Device::Cpu.stream();
    let at = |offset| Layout::strided(&[3, 4], &[4, 1], offset).unwrap();
    let (data, mut apart) = (vec![0f32; 12], vec![0f32; 12]);
    let x = View::from_slice(&data, &[3, 4]).unwrap();
    let mut memory = vec![0f32; 40];
    let mut whole = ViewMut::from_slice(&mut memory, &[40]).unwrap();
    let (from, to) = whole.in_place();
    let residual = from.with_layout(at(0)).unwrap();
    let mut apart = ViewMut::from_slice(&mut apart, &[3, 4]).unwrap();
    let mut shifted = to.with_layout(at(5)).unwrap();
    let norm = RmsNorm::new([4]).residual_view(residual);
    // The sum over a part of the residual, and the output over a part of it.
    let result = norm.forward_hidden_into(&x, &mut apart, Some(&mut shifted), None, &stream);
    assert_eq!(named(result), "hidden");
    assert_eq!(named(norm.forward_into(&x, &mut shifted, None, &stream)), "output");
}

/// What dropout makes of 1: from the definition, element by element in the input's order.
fn kept(dropout: Dropout, count: usize) -> Vec<f64> {
    let factor = dropout.factor() as f32;
    (0..count as u64).map(|element| if dropout.keeps(element) { f64::from(factor) } else { 0.0 }).collect()
}

/// The mask is that of the definition on every backend, forward and backward, whatever axes make a row.
#[test]
fn dropout_leaves_the_same_elements_out_everywhere() {
    let dropout = Dropout { probability: 0.3, seed: 0x0123_4567_89ab_cdef, offset: 5 };
    let Dropout { probability, seed, offset } = dropout;
    for device in common::devices() {
        for shape in [&[37, 200][..], &[4, 6, 33], &[3, 5, 4, 7]] {
            let (len, dtype) = (shape.iter().product(), DType::F32);
            let up = |values: Vec<f64>| {
                device.upload(&HostTensor::from_f64(&values, shape, dtype).unwrap()).unwrap()
            };
            let residual: Vec<f64> = (0..len).map(|i| common::wave(i, 1.1)).collect();
            let (x, r) = (up(vec![1.0; len]), up(residual.clone()));
            let (zeros, ones) = (up(vec![0.0; len]), up(vec![1.0; len]));
            let mask = kept(dropout, len);
            let rounded = |values: Vec<f64>| -> Vec<u64> {
                values.into_iter().map(|value| f64::from(value as f32).to_bits()).collect()
            };
            let sum = rounded(mask.iter().zip(numbers(&r)).map(|(mask, r)| mask + r).collect());
            let check = |(h, grads): (DeviceTensor, normkit::Grads<DeviceTensor>)| {
                assert_eq!(bits(&h), sum, "{device:?} {shape:?}");
                assert_eq!(bits(&grads.input), rounded(mask.clone()), "{device:?} {shape:?}");
                assert_eq!(bits(&grads.before.unwrap()), bits(&ones), "{device:?} {shape:?}");
            };
            // The norm has no gradient here, the hidden value one of 1.
            macro_rules! run {
                ($norm:expr) => {{
                    let norm = $norm.residual(&r).dropout(probability, seed, offset);
                    let (_, h, saved) = norm.forward_hidden(&x).unwrap();
                    let grads = norm.backward_hidden(&zeros, Some(&ones), &x, &saved).unwrap();
                    check((h.clone(), grads));
                    // The sum in the place of both.
                    let alone = $norm.of_hidden(1.0, 1.0).dropout(probability, seed, offset);
                    let grads = alone.backward_hidden(&zeros, Some(&ones), &h, &saved).unwrap();
                    assert_eq!(bits(&grads.input), rounded(mask.clone()), "{device:?} {shape:?}");
                }};
            }
            match shape {
                [_, cols] => run!(RmsNorm::new([*cols])),
                [_, channels, _] => run!(BatchNorm::new(*channels)),
                _ => run!(GroupNorm::new(1, shape[1])),
            }
        }
    }
}

#[test]
fn dropout_that_makes_no_sense_is_refused() {
    let x = host(0.2, DType::F32);
    let norm = || RmsNorm::new([SHAPE[1]]);
    for probability in [-0.5, 1.0, f64::NAN] {
        assert_eq!(named(norm().residual(&x).dropout(probability, 0, 0).forward(&x)), "probability");
    }
    assert_eq!(named(norm().dropout(0.5, 0, 0).forward(&x)), "dropout");
    assert_eq!(named(norm().input_gate(&x).dropout(0.5, 0, 0).forward(&x)), "dropout");
    let none = norm().residual(&x).dropout(0.0, 3, 4).forward(&x).unwrap();
    assert_eq!(none, norm().residual(&x).forward(&x).unwrap());
}
