//! P2: finite normal numbers give finite results wherever those are representable, and what is not finite stays where
//! it is.

mod common;

use normkit::check::{Case, Fill, Mask, MaskKind, compute};
use normkit::prelude::*;
use normkit::tensor::DType;

/// Exponents of two from the smallest normal number of the dtype to the largest, in steps.
fn magnitudes(dtype: DType) -> impl Iterator<Item = f64> {
    let (first, last, step) = match dtype {
        DType::F16 => (-13, 15, 2),
        DType::F64 => (-1020, 1022, 73),
        _ => (-125, 127, 7),
    };
    (first..=last).step_by(step).map(|exponent| 2f64.powi(exponent))
}

#[test]
fn inputs_of_every_magnitude_keep_their_digits() {
    for device in common::devices() {
        let list = common::dtypes(&device).flat_map(|dtype| {
            magnitudes(dtype).flat_map(move |magnitude| {
                common::matrices(dtype, 3, 67).flat_map(move |case| {
                    [0.0, 1e-5].map(|eps| {
                        let mut case = case.clone();
                        case.name = format!("magnitude {magnitude:e}, eps {eps:e}");
                        (case.input, case.eps) = (Fill::Uniform(magnitude * 0.99), eps);
                        // Gradients grow as inputs shrink: keep those of float64 below 2^1023.
                        if dtype == DType::F64 && magnitude < 1e-290 {
                            case.grad_output = Fill::Uniform(1e-12);
                        }
                        case
                    })
                })
            })
        });
        common::check_all(&device.stream(), list.collect::<Vec<_>>());
    }
}

#[test]
fn gradients_of_every_magnitude_keep_their_digits() {
    for device in common::devices() {
        let list = common::dtypes(&device).filter(|&dtype| dtype != DType::F64).flat_map(|dtype| {
            magnitudes(dtype).flat_map(move |magnitude| {
                common::matrices(dtype, 3, 67).map(move |mut case| {
                    case.name = format!("gradients of {magnitude:e}");
                    case.grad_output = Fill::Uniform(magnitude / 16.0);
                    case
                })
            })
        });
        common::check_all(&device.stream(), list.collect::<Vec<_>>());
    }
}

/// Scaling a row by a power of two changes no digit of its normalized values where eps is zero.
#[test]
fn rows_scaled_by_powers_of_two_normalize_to_the_same_bits() {
    let row: Vec<f64> = (0..300).map(|i| 1.0 + common::wave(i, 0.4).abs()).collect();
    for dtype in DType::FLOATS {
        let output = |scale: f64| {
            let scaled: Vec<f64> = row.iter().map(|x| x * scale).collect();
            let x = HostTensor::from_f64(&scaled, &[1, 300], dtype).unwrap();
            let centred = LayerNorm::new([300]).eps(0.0).forward(&x).unwrap().to_f64();
            (centred, RmsNorm::new([300]).eps(0.0).forward(&x).unwrap().to_f64())
        };
        let unit = output(1.0);
        for magnitude in magnitudes(dtype) {
            // The data lie between 1 and 2.3.
            assert_eq!(output(magnitude / 2.0), unit, "{dtype} at {magnitude:e}");
        }
    }
}

/// Whatever axes they lie along, and with a mask, too.
#[test]
fn constant_rows_are_centred_to_zero_at_every_magnitude() {
    for device in common::devices() {
        for dtype in common::dtypes(&device) {
            for magnitude in magnitudes(dtype) {
                for method in ["layer_norm", "batch_norm", "group_norm", "instance_norm", "layer_norm_2d"] {
                    let mut case = Case::matrix(method, dtype, 3, 259);
                    (case.input, case.bias) = (Fill::ConstantRows(magnitude), None);
                    let masks = [None, Some(Mask::of(MaskKind::Random(0.5)))];
                    for mask in masks.into_iter().take(if device.backend() == "cpu" { 2 } else { 1 }) {
                        case.mask = mask;
                        let results = compute(&case, &device.stream()).unwrap();
                        let output = results.iter().find(|r| r.name == "output").unwrap();
                        let backend = device.backend();
                        assert!(
                            output.values.iter().all(|&y| y == 0.0),
                            "{backend} {method} {dtype} {magnitude:e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_not_finite_stays_in_its_row() {
    for device in common::devices() {
        for dtype in common::dtypes(&device) {
            for mut case in common::matrices(dtype, 5, 300) {
                for special in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                    case.input = Fill::UNIT;
                    let clean = compute(&case, &device.stream()).unwrap();
                    case.input = Fill::Special(special);
                    let marred = compute(&case, &device.stream()).unwrap();
                    for (clean, marred) in clean.iter().zip(&marred).take(2) {
                        let (clean_rows, marred_rows) =
                            (common::rows_of(&case, &clean.bits()), common::rows_of(&case, &marred.bits()));
                        for row in [0, 2, 3, 4] {
                            let name = format!("{} {dtype} {special}: {} row {row}", case.method, clean.name);
                            assert_eq!(clean_rows[row], marred_rows[row], "{name}");
                        }
                        let marred = &common::rows_of(&case, &marred.values)[1];
                        assert!(marred.iter().any(|y| !y.is_finite()) || !case.has_rows());
                    }
                }
            }
        }
    }
}
