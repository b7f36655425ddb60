//! P6: a bad call is an error that names the argument; nothing is written, and the next good call works.

#[path = "../common/mod.rs"]
mod common;
mod configuration;
mod heads;
mod hyperspheres;
mod operands;
mod sandwiches;

use normkit::backend::cpu::Cpu;
use normkit::check::{Case, run};
use normkit::prelude::*;
use normkit::tensor::{DType, Layout, View};
use normkit::{Error, Result, Stream};

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
