//! What makes no sense is an error that names the argument.

use super::common::named;
use super::{host, set_apart};
use normkit::norm::{OutlierOutputs, Quantized, zero_columns};
use normkit::prelude::*;
use normkit::spec::{STATISTICS, Scaling};
use normkit::tensor::{DType, Layout, View, ViewMut};

#[test]
fn what_makes_no_sense_is_refused() {
    let x = host(&[4, 64], 0.2, DType::F32);
    let norm = || RmsNorm::new([64]);
    for threshold in [0.0, -6.0, f64::NAN, f64::INFINITY, 1e-60, 1e60] {
        assert_eq!(named(set_apart(norm(), threshold).forward(&x)), "threshold", "{threshold}");
    }
    for (dtype, scaling) in [
        (DType::I8, Scaling::Static(0.1)),
        (DType::I8, Scaling::Block(64)),
        (DType::F8E4M3, Scaling::Row),
        (DType::F8E5M2, Scaling::Row),
    ] {
        let outliers = Quantized::new(norm(), dtype, scaling).outliers(6.0);
        assert_eq!(named(outliers.forward(&x)), "threshold", "{dtype} {scaling:?}");
    }
    assert_eq!(named(set_apart(BatchNorm::new(64), 6.0).forward(&x)), "method");
    let dropped = norm().residual(&x).dropout(0.5, 1, 2);
    assert_eq!(named(set_apart(dropped, 6.0).forward(&x)), "dropout");

    let stream = Device::Cpu.stream();
    let view = x.view().unwrap();
    let outliers = set_apart(norm(), 6.0);
    let zeros = |shape: &[usize], dtype| HostTensor::zeros(shape, dtype).unwrap();
    let run = |codes: &mut HostTensor, scales: &mut HostTensor, flags: ViewMut<'_>| {
        let (codes, scales) = (codes.view_mut().unwrap(), scales.view_mut().unwrap());
        let outputs = OutlierOutputs { codes, scales, flags, statistics: None, hidden: None };
        outliers.forward_into(&view, outputs, &stream)
    };
    let (mut codes, mut scales) = (zeros(&[4, 64], DType::I8), zeros(&[4, 1], DType::F32));
    let mut flags = zeros(&[64], DType::I32);
    run(&mut codes, &mut scales, flags.view_mut().unwrap()).unwrap();
    let mut bad = zeros(&[63], DType::I32);
    assert_eq!(named(run(&mut codes, &mut scales, bad.view_mut().unwrap())), "flags");
    let mut bad = zeros(&[64], DType::I8);
    assert_eq!(named(run(&mut codes, &mut scales, bad.view_mut().unwrap())), "flags");
    let mut bad = vec![0i32; 128];
    let apart = Layout::strided(&[64], &[2], 0).unwrap();
    let bad = ViewMut::strided(&mut bad, apart).unwrap();
    assert_eq!(named(run(&mut codes, &mut scales, bad)), "flags");
    let mut bad = zeros(&[4, 2], DType::F32);
    assert_eq!(named(run(&mut codes, &mut bad, flags.view_mut().unwrap())), "scales");

    let zero = |shape: &[usize], dtype, flags: &HostTensor| {
        let mut codes = zeros(shape, dtype);
        zero_columns(&mut codes.view_mut().unwrap(), &flags.view().unwrap(), &stream)
    };
    zero(&[4, 64], DType::I8, &flags).unwrap();
    zero(&[4, 8, 8], DType::I8, &flags).unwrap();
    assert_eq!(named(zero(&[4, 63], DType::I8, &flags)), "codes");
    assert_eq!(named(zero(&[4, 64], DType::F8E4M3, &flags)), "codes");
    assert_eq!(named(zero(&[4, 64], DType::I8, &zeros(&[64], DType::I8))), "flags");
    assert_eq!(named(zero(&[4, 64], DType::I8, &zeros(&[8, 8], DType::I32))), "flags");

    let statistics = zeros(&[4, STATISTICS], DType::F32);
    let of_values = |columns: &[usize], values: &mut HostTensor, statistics: &HostTensor| {
        let statistics: View<'_> = statistics.view().unwrap();
        outliers.values_into(&view, &statistics, columns, &mut values.view_mut().unwrap(), &stream)
    };
    let mut two = zeros(&[4, 2], DType::F32);
    of_values(&[3, 63], &mut two, &statistics).unwrap();
    assert_eq!(named(of_values(&[3, 64], &mut two, &statistics)), "columns");
    assert_eq!(named(of_values(&[3, 3], &mut two, &statistics)), "columns");
    assert_eq!(named(of_values(&[5, 4], &mut two, &statistics)), "columns");
    assert_eq!(named(of_values(&[5], &mut two, &statistics)), "values");
    assert_eq!(named(of_values(&[5, 6], &mut zeros(&[4, 2], DType::F16), &statistics)), "values");
    assert_eq!(named(of_values(&[5, 6], &mut two, &zeros(&[3, STATISTICS], DType::F32))), "statistics");
}
