//! P1: every result is within the bound of its definition, whatever the method, backend and dtype.

mod common;

use normkit::check::{Effort, METHODS, cases};
use normkit::prelude::*;
use normkit::tensor::DType;

#[test]
fn published_cases_are_within_the_bound_on_every_backend() {
    for device in common::devices() {
        common::check_all(&device.stream(), common::all_cases(&device));
    }
}

#[test]
fn every_instruction_set_is_within_the_bound() {
    for (_, stream) in common::instruction_sets() {
        for method in METHODS {
            for dtype in DType::ALL {
                common::check_all(&stream, cases(method, dtype, Effort::Quick));
            }
        }
    }
}

#[test]
fn random_cases_are_within_the_bound_on_every_backend() {
    for device in common::devices() {
        common::check_random(&device);
    }
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
