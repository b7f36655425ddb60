//! What the calls ask of the tensors that they write, and of what earlier calls have written.

use super::{SHAPE, named, ones, refused};
use normkit::Gradients;
use normkit::norm::steps;
use normkit::prelude::*;
use normkit::tensor::{DType, Layout, View, ViewMut};

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
