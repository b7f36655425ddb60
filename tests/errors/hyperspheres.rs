//! Steps on the hypersphere.

use super::{named, ones};
use normkit::Workspace;
use normkit::norm::{HypersphereGradients, HypersphereSaved, HypersphereStatistics, HypersphereStep};
use normkit::prelude::*;
use normkit::tensor::DType;

#[test]
fn what_makes_no_sense_is_refused() {
    let zeros = |shape: &[usize], dtype| HostTensor::zeros(shape, dtype).unwrap();
    let (x, short, wide) = (zeros(&[3, 4], DType::F32), zeros(&[4], DType::F32), zeros(&[3, 4], DType::F64));
    let (alpha, five) = (ones(&[4], DType::F32), ones(&[5], DType::F32));
    let step = HypersphereStep::new(&alpha);
    assert_eq!(named(step.forward(&x, &short)), "branch");
    assert_eq!(named(step.forward(&x, &wide)), "branch");
    assert_eq!(named(HypersphereStep::new(&five).forward(&x, &x)), "alpha");
    assert_eq!(named(HypersphereStep::new(&x).forward(&x, &x)), "alpha");
    assert_eq!(named(HypersphereStep::new(&ones(&[4], DType::F64)).forward(&x, &x)), "alpha");
    let codes = zeros(&[4], DType::I8);
    assert_eq!(named(HypersphereStep::new(&codes).forward(&x, &x)), "alpha");
    let integers = zeros(&[3, 4], DType::I32);
    assert_eq!(named(step.forward(&integers, &x)), "input");
    assert_eq!(named(step.forward(&x, &integers)), "branch");
    for eps in [-1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(named(step.clone().eps(eps).forward(&x, &x)), "eps");
    }
    for scale in [f64::NAN, f64::INFINITY] {
        assert_eq!(named(step.clone().alpha_scale(scale).forward(&x, &x)), "alpha_scale");
    }
    let nothing = zeros(&[3, 0], DType::F32);
    assert_eq!(named(step.forward(&nothing, &nothing)), "input");
    let number = zeros(&[], DType::F32);
    assert_eq!(named(step.forward(&number, &number)), "input");

    let (h, saved) = step.forward_train(&x, &x).unwrap();
    assert_eq!(named(step.backward(&short, &x, &x, &saved)), "grad_output");
    assert_eq!(named(step.backward(&wide, &x, &x, &saved)), "grad_output");
    assert_eq!(named(step.backward(&h, &x, &short, &saved)), "branch");
    assert_eq!(named(HypersphereStep::new(&five).backward(&h, &x, &x, &saved)), "alpha");
    let fewer = || Device::Cpu.upload(&zeros(&[2, 4], DType::F32)).unwrap();
    let of_fewer = HypersphereSaved { input: fewer(), ..saved.clone() };
    assert_eq!(named(step.backward(&h, &x, &x, &of_fewer)), "input.statistics");
    let of_fewer = HypersphereSaved { branch: fewer(), ..saved.clone() };
    assert_eq!(named(step.backward(&h, &x, &x, &of_fewer)), "branch.statistics");
    let of_fewer = HypersphereSaved { output: fewer(), ..saved.clone() };
    assert_eq!(named(step.backward(&h, &x, &x, &of_fewer)), "output.statistics");
}

/// Nothing that is written may share memory with what is read, but for what it replaces exactly.
#[test]
fn overlaps_are_refused() {
    let stream = Device::Cpu.stream();
    let (x, alpha) = (ones(&[4, 4], DType::F32), ones(&[4], DType::F32));
    let step = HypersphereStep::new(&alpha);
    let (input, mut h) = (x.view().unwrap(), HostTensor::zeros(&[4, 4], DType::F32).unwrap());
    for which in 0..3 {
        let mut memory = HostTensor::zeros(&[4, 4], DType::F32).unwrap();
        let mut view = memory.view_mut().unwrap();
        let (from, to) = view.in_place();
        let mut all = [None, None, None];
        all[which] = Some(to);
        let [of_input, branch, output] = all;
        let statistics = HypersphereStatistics { input: of_input, branch, output };
        let result = step.forward_into(&from, &input, &mut h.view_mut().unwrap(), statistics, &stream);
        let names = ["input.statistics", "branch.statistics", "output.statistics"];
        assert_eq!(named(result), names[which]);
    }

    let mut row = HostTensor::zeros(&[4], DType::F32).unwrap();
    let mut view = row.view_mut().unwrap();
    let (alpha, to) = view.in_place();
    let step = HypersphereStep::of_view(alpha);
    let (_, saved) = step.forward_train(&x, &x).unwrap();
    let statistics = [&saved.input, &saved.branch, &saved.output].map(|tensor| tensor.view().unwrap());
    let result = step.backward_into(
        &input,
        &input,
        &input,
        statistics.each_ref(),
        HypersphereGradients { alpha: Some(to), ..Default::default() },
        &mut Workspace::new(),
        &stream,
    );
    assert_eq!(named(result), "grad_alpha");

    let mut memory = HostTensor::zeros(&[4, 4], DType::F32).unwrap();
    let mut view = memory.view_mut().unwrap();
    let (gradient, to) = view.in_place();
    let ones = ones(&[4], DType::F32);
    let result = HypersphereStep::new(&ones).backward_into(
        &gradient,
        &input,
        &input,
        statistics.each_ref(),
        HypersphereGradients { branch: Some(to), ..Default::default() },
        &mut Workspace::new(),
        &stream,
    );
    assert_eq!(named(result), "grad_branch");
}
