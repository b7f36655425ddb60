//! P1: every result is within the bound of its definition, whatever the method, backend and dtype.

mod common;

use ndarray::Array2;
use normkit::DeviceTensor;
use normkit::check::{ANY_SPEC, Case, Effort, Fill, METHODS, Mask, MaskKind, cases};
use normkit::oracle::{Dd, Index, Problem, Real, round, update_running};
use normkit::prelude::*;
use normkit::spec::{Affine, EpsPosition, Fusion, Norm, Spec, Statistic};
use normkit::tensor::{DType, Dims};

#[test]
fn published_cases_are_within_the_bound_on_every_backend() {
    for device in common::devices() {
        common::check_all(&device.stream(), common::all_cases(&device));
    }
}

/// A third of the list for each: that they agree in every bit is another test.
#[test]
fn every_instruction_set_is_within_the_bound() {
    for (index, (_, stream)) in common::instruction_sets().into_iter().enumerate() {
        for method in METHODS.iter().chain([&ANY_SPEC]) {
            for dtype in DType::FLOATS {
                let list = cases(method, dtype, Effort::Quick).into_iter();
                common::check_all(&stream, list.skip(index % 3).step_by(3));
            }
        }
    }
}

/// Not of WebGPU: the shaders of random cases take a software adapter many minutes to compile.
#[test]
fn random_cases_are_within_the_bound() {
    for device in common::devices().into_iter().filter(|device| device.backend() != "wgpu") {
        common::check_random(&device);
    }
}

/// Which elements a partial statistic sees follows from the order of the reduced axes alone, whatever axes of a row the
/// parameters vary along and whether there are any.
#[test]
fn a_partial_statistic_sees_the_same_elements_whatever_the_parameters() {
    let shape = [2, 9, 28];
    let masks = [None, Some(Mask::of(MaskKind::All)), Some(Mask::of(MaskKind::Random(0.6)))];
    let mut list = Vec::new();
    for (dtype, prefix) in [(DType::F16, 2), (DType::F16, 100), (DType::F32, 2), (DType::F32, 100)] {
        for affine in [&[][..], &[1], &[2], &[1, 2]] {
            for (mask, has_parameters) in masks.iter().flat_map(|mask| [(mask, false), (mask, true)]) {
                let spec = Norm {
                    shape: Dims::from_slice(&shape),
                    reduced: Dims::from_slice(&[1, 2]),
                    affine: Affine {
                        axes: Dims::from_slice(affine),
                        shape: affine.iter().map(|&axis| shape[axis]).collect(),
                    },
                    statistic: Statistic::MeanSquare,
                    prefix,
                    eps: 1e-3,
                    eps_position: EpsPosition::Inside,
                    weight_offset: 0.0,
                    round_normalized: false,
                    frozen: false,
                    fusion: Fusion::default(),
                };
                let mut case = Case::of_spec(&Spec::Norm(spec), dtype);
                (case.input, case.mask) = (Fill::Mixed(2), mask.clone());
                if !has_parameters {
                    (case.weight, case.bias) = (None, None);
                }
                let with = if has_parameters { "with" } else { "without" };
                case.name = format!("prefix {prefix}, {with} parameters along {affine:?}, {mask:?}");
                list.push(case);
            }
        }
    }
    common::check_all(&Device::Cpu.stream(), list);
}

/// Over several batches, in every dtype that running statistics may have, and as an average of all batches.
#[test]
fn running_statistics_are_within_the_bound() {
    let [n, c, l] = [6, 5, 37];
    for device in common::devices() {
        for dtype in common::dtypes(&device) {
            let running_dtypes = common::dtypes(&device).filter(|&d| d.compute() == d || d == dtype);
            for running_dtype in running_dtypes.filter(|&d| d != DType::F64 || dtype == DType::F64) {
                for momentum in [Momentum::Factor(0.1), Momentum::Factor(1.0), Momentum::Cumulative] {
                    let start = |value| HostTensor::from_f64(&vec![value; c], &[c], running_dtype).unwrap();
                    let mut running = RunningStatistics {
                        mean: common::on(&device, &start(0.0)),
                        var: common::on(&device, &start(1.0)),
                        batches: 0,
                    };
                    for batch in 0..3 {
                        let value =
                            |i: usize| 20.0 * (i / l % c) as f64 + common::wave(i + 1000 * batch, 0.3);
                        let values: Vec<f64> = (0..n * c * l).map(value).collect();
                        let x = HostTensor::from_f64(&values, &[n, c, l], dtype).unwrap();
                        let read = |t: &DeviceTensor| t.read().unwrap().to_f64();
                        let before = (read(&running.mean), read(&running.var));
                        let norm = BatchNorm::new(c);
                        norm.train(&common::on(&device, &x), &mut running, momentum).unwrap();
                        let factor = match momentum {
                            Momentum::Factor(factor) => factor,
                            Momentum::Cumulative => 1.0 / (batch + 1) as f64,
                        };
                        let spec = norm.lower(x.shape(), dtype).unwrap();
                        let expected = running_statistics(&spec, &x, before, factor);
                        for (found, expected) in [&running.mean, &running.var].into_iter().zip(&expected) {
                            for (found, &(value, mag)) in read(found).into_iter().zip(expected) {
                                // Both factors of a sum are rounded, and the variance has a reciprocal.
                                let of_dtype = if running_dtype == dtype.compute() { 0.0 } else { 1.0 };
                                let bound = 4.0 * round::ulp(dtype.compute(), mag)
                                    + of_dtype * round::ulp(running_dtype, value);
                                let error = (found - value).abs();
                                let what = format!("{} {dtype} {running_dtype}", device.backend());
                                assert!(error <= bound, "{what} {momentum:?}: {found} for {value}");
                            }
                        }
                    }
                    assert_eq!(running.batches, 3);
                }
            }
        }
    }
}

/// New means and variances with their `mag`, from the definition.
fn running_statistics(
    spec: &Spec,
    x: &HostTensor,
    before: (Vec<f64>, Vec<f64>),
    factor: f64,
) -> [Vec<(f64, f64)>; 2] {
    let (index, values) = (Index::of_elements(spec), x.to_f64());
    let rows = Array2::from_shape_fn(index.dim(), |at| Dd::new(values[index.at(at)]));
    let problem = Problem::new(x.dtype(), rows.view());
    let before: Vec<_> = before.0.iter().zip(&before.1).map(|(&m, &v)| (Dd::new(m), Dd::new(v))).collect();
    let (mean, var) = update_running(&problem, &before, factor);
    [mean, var].map(|e| e.value.iter().zip(&e.mag).map(|(v, &mag)| (v.to_f64(), mag)).collect())
}

/// The bound on a result allows for the rounding of a large mean. The algorithm does better: the mean's rounding error is
/// found again by its correction, so that the result has the digits that the input has.
#[test]
fn a_mean_of_ten_thousand_deviations_costs_no_digit() {
    for cols in [70, 769, 5000] {
        let row: Vec<f32> = (0..cols).map(|i| (1e4 + common::wave(i, 0.3)) as f32).collect();
        let exact: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        let mean = exact.iter().sum::<f64>() / cols as f64;
        let variance = exact.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / cols as f64;
        let exact: Vec<f64> = exact.iter().map(|x| (x - mean) / (variance + 1e-5).sqrt()).collect();
        let largest = exact.iter().fold(0f64, |most, y| most.max(y.abs()));
        let input = HostTensor::from_vec(row, &[1, cols]).expect("a row");
        let output = LayerNorm::new([cols]).forward(&input).expect("valid arguments").to_f64();
        for (col, (found, exact)) in output.iter().zip(&exact).enumerate() {
            let ulp = (found - exact).abs() / (largest.log2().floor() - 23.0).exp2();
            assert!(ulp <= 3.0, "column {col} of {cols}: {found} for {exact}, {ulp:.1} ulp of the largest");
        }
    }
}
