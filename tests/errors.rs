//! P6: a bad call is an error that names the argument; nothing is written, and the next good call works.

mod common;

use normkit::backend::cpu::Cpu;
use normkit::check::{Case, run};
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
    let unknown = Case::new("no_norm", DType::F32, &[1], &[1]);
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
    let case = Case::new("layer_norm", DType::F64, &[2], &[3]);
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
