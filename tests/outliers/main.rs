//! Codes of int8 with outliers set apart: those of the rules applied to the float32 result of the norm alone, bit for bit, with the
//! columns and the values that are multiplied apart; and refusals of what makes no sense.

#[path = "../common/mod.rs"]
mod common;
mod refusals;

use normkit::norm::{OutlierCodes, OutlierOutputs, Outliers, Quantized, zero_columns};
use normkit::prelude::*;
use normkit::spec::{Activation, STATISTICS, Scaling};
use normkit::tensor::{DType, Element, Layout};
use normkit::{DeviceTensor, Result};

/// Codes of rows, their scales, and the columns that have outliers.
type Apart = (Vec<f64>, Vec<f64>, Vec<usize>);

/// The rules, from their text, for `rows` rows of float32 results. With `zeroed`, codes of columns with outliers are 0 in every row.
fn apart(values: &[f32], rows: usize, threshold: f64, zeroed: bool) -> Apart {
    let (cols, threshold) = (values.len() / rows.max(1), threshold as f32);
    let is_outlier = |v: f32| v.abs() >= threshold;
    let (mut codes, mut scales, mut flags) = (Vec::new(), Vec::new(), vec![false; cols]);
    for row in values.chunks(cols.max(1)) {
        let inliers = || row.iter().filter(|v| !is_outlier(**v));
        let scale = if row.iter().any(|v| v.is_nan()) {
            f32::NAN
        } else {
            (inliers().fold(0.0f32, |most, v| most.max(v.abs())) / 127.0).max(2f32.powi(-23))
        };
        scales.push(f64::from(scale));
        for (v, flag) in row.iter().zip(&mut flags) {
            *flag |= is_outlier(*v);
            let code = <i8 as Element>::from_f64(f64::from(v / scale)).to_f64();
            codes.push(if is_outlier(*v) { 0.0 } else { code });
        }
    }
    if zeroed {
        codes.iter_mut().enumerate().filter(|(i, _)| flags[i % cols]).for_each(|(_, code)| *code = 0.0);
    }
    (codes, scales, (0..cols).filter(|&col| flags[col]).collect())
}

fn numbers(tensor: &DeviceTensor) -> Vec<f64> {
    tensor.read().unwrap().to_f64()
}

fn shape(tensor: &DeviceTensor) -> Vec<usize> {
    tensor.view().unwrap().shape().to_vec()
}

/// Zeros may differ in their sign: a code has none.
fn same(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b || a.is_nan() && b.is_nan())
}

fn host(shape: &[usize], phase: f64, dtype: DType) -> HostTensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|i| 2.0 * common::wave(i, phase)).collect();
    HostTensor::from_f64(&values, shape, dtype).unwrap()
}

/// The same numbers as float32, or as they are in float64.
fn wide(tensor: &HostTensor) -> HostTensor {
    HostTensor::from_f64(&tensor.to_f64(), tensor.shape(), tensor.dtype().compute()).unwrap()
}

fn set_apart<M: Method>(norm: M, threshold: f64) -> Outliers<M> {
    Quantized::new(norm, DType::I8, Scaling::Row).outliers(threshold)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Rms,
    Layer,
    /// A residual before, whose sum is written too.
    Residual,
    /// A residual before, an activation after.
    Activated,
    /// A gate after.
    Gated,
}

#[derive(Debug, Clone, Copy)]
struct Problem {
    form: Form,
    dtype: DType,
    rows: usize,
    cols: usize,
    threshold: f64,
}

/// A problem's own codes, scales, columns, values and hidden value, beside those that the results of the norm alone give.
fn check(problem: &Problem, device: &Device, x: &HostTensor, w: &HostTensor, b: &HostTensor) {
    let Problem { form, dtype, rows, cols, threshold } = *problem;
    let shape = [rows, cols];
    let (r, z) = (host(&shape, 1.4, dtype), host(&shape, 0.7, dtype));
    let up = |tensor: &HostTensor, widened: bool| {
        device.upload(&if widened { wide(tensor) } else { tensor.clone() }).unwrap()
    };
    // The result of the norm alone, or all of it.
    type Found = (Option<OutlierCodes<DeviceTensor>>, DeviceTensor);
    let run = |widened: bool| -> Result<Found> {
        let [x, r, z, w, b] = [x, &r, &z, w, b].map(|tensor| up(tensor, widened));
        macro_rules! run {
            ($norm:expr, $hidden:expr) => {{
                let norm = $norm;
                if widened {
                    return Ok((None, norm.forward(&x)?));
                }
                let outliers = set_apart(norm.clone(), threshold);
                if $hidden {
                    let (codes, hidden) = outliers.forward_hidden(&x)?;
                    let (result, expected, _) = norm.forward_hidden(&x)?;
                    assert!(same(&numbers(&hidden), &numbers(&expected)), "{problem:?} hidden");
                    return Ok((Some(codes), result));
                }
                Ok((Some(outliers.forward(&x)?), norm.forward(&x)?))
            }};
        }
        match form {
            Form::Rms => run!(RmsNorm::new([cols]).eps(1e-5).weight(&w), false),
            Form::Layer => run!(LayerNorm::new([cols]).weight(&w).bias(&b), false),
            Form::Residual => run!(RmsNorm::new([cols]).eps(1e-5).weight(&w).residual(&r), true),
            Form::Activated => {
                run!(LayerNorm::new([cols]).weight(&w).residual(&r).activation(Activation::GeluTanh), false)
            }
            Form::Gated => run!(RmsNorm::new([cols]).eps(1e-5).weight(&w).output_gate(&z), false),
        }
    };
    let name = || format!("{} {problem:?}", device.backend());
    let results: Vec<f32> = numbers(&run(true).unwrap().1).into_iter().map(|v| v as f32).collect();
    let (codes, scales, columns) = apart(&results, rows, threshold, true);
    let (found, result) = run(false).unwrap_or_else(|error| panic!("{}: {error}", name()));
    let found = found.unwrap();
    assert_eq!(found.columns, columns, "{}: columns", name());
    assert!(same(&numbers(&found.scales), &scales), "{}: scales", name());
    let own = numbers(&found.codes);
    let at = (0..own.len()).find(|&i| own[i] != codes[i]);
    assert!(at.is_none(), "{}: {at:?} {:?} {:?}", name(), at.map(|i| own[i]), at.map(|i| codes[i]));
    let result = numbers(&result);
    let of_row = |row: usize| columns.iter().map(move |col| (row, *col));
    let values: Vec<f64> = (0..rows).flat_map(of_row).map(|(row, col)| result[row * cols + col]).collect();
    let of_values = found.values.view().unwrap();
    assert_eq!((of_values.shape(), of_values.dtype()), (&[rows, columns.len()][..], dtype));
    assert!(same(&numbers(&found.values), &values), "{}: values", name());
}

fn check_usual(problem: &Problem, device: &Device) {
    let Problem { dtype, rows, cols, .. } = *problem;
    let (x, w, b) = (host(&[rows, cols], 0.2, dtype), host(&[cols], 0.9, dtype), host(&[cols], 2.9, dtype));
    check(problem, device, &x, &w, &b);
}

/// Thresholds that make none, few, many and all elements outliers.
const THRESHOLDS: [f64; 4] = [2.0, 3.5, 1e30, 1e-30];

#[test]
fn a_row_by_hand() {
    for device in common::devices() {
        // The norm divides by one.
        let x = HostTensor::from_vec(vec![1.0f32, -1.0, 1.0, 1.0], &[1, 4]).unwrap();
        let w = HostTensor::from_vec(vec![0.5f32, 1.0, 2.0, 7.0], &[4]).unwrap();
        let (x, w) = (device.upload(&x).unwrap(), device.upload(&w).unwrap());
        let found = set_apart(RmsNorm::new([4]).eps(0.0).weight(&w), 6.0).forward(&x).unwrap();
        assert_eq!(numbers(&found.codes), [32.0, -64.0, 127.0, 0.0], "{device:?}");
        assert_eq!(numbers(&found.scales), [f64::from(2.0f32 / 127.0)]);
        assert_eq!((found.columns, numbers(&found.values)), (vec![3], vec![7.0]));
    }
}

#[test]
fn codes_are_those_of_the_float32_result() {
    for device in common::devices() {
        let dtypes: Vec<DType> = common::dtypes(&device).collect();
        let forms = [Form::Rms, Form::Layer, Form::Residual, Form::Activated, Form::Gated];
        let mut shapes = vec![(2, 5000), (5, 130), (4, 768), (7, 1), (1, 1)];
        // Each with a form of its own where kernels are compiled.
        let compiles = common::compiles(&device);
        if !compiles {
            shapes.extend([(3, 97), (61, 64), (2, 20000), (1, 1025), (130, 31)]);
        }
        for (i, (rows, cols)) in shapes.into_iter().enumerate() {
            let form_of = |k: usize| !compiles || k == i;
            for (k, form) in forms.into_iter().enumerate().filter(|(k, _)| form_of(*k)) {
                let dtype = dtypes[(i + k) % dtypes.len()];
                for threshold in THRESHOLDS {
                    check_usual(&Problem { form, dtype, rows, cols, threshold }, &device);
                }
            }
        }
    }
}

#[test]
fn every_dtype_on_the_cpu() {
    for dtype in DType::FLOATS {
        for form in [Form::Rms, Form::Layer, Form::Residual, Form::Activated, Form::Gated] {
            for threshold in [1.75, 3.0] {
                check_usual(&Problem { form, dtype, rows: 37, cols: 203, threshold }, &Device::Cpu);
            }
        }
    }
}

/// NaN makes its row's scale NaN, and is no outlier; infinity is one, and leaves the scale alone; rows of zeros have the least scale.
#[test]
fn special_numbers_have_defined_codes() {
    for device in common::devices() {
        let (rows, cols) = (5, 70);
        let mut x: Vec<f64> = (0..rows * cols).map(|i| common::wave(i, 0.3)).collect();
        x[cols..2 * cols].fill(0.0);
        x[2 * cols + 5] = f64::NAN;
        let mut b: Vec<f64> = (0..cols).map(|i| common::wave(i, 0.9)).collect();
        (b[7], b[11]) = (f64::INFINITY, f64::NEG_INFINITY);
        let x = HostTensor::from_f64(&x, &[rows, cols], DType::F32).unwrap();
        let b = HostTensor::from_f64(&b, &[cols], DType::F32).unwrap();
        let w = host(&[cols], 2.9, DType::F32);
        for threshold in [1.0, 6.0] {
            let problem = Problem { form: Form::Layer, dtype: DType::F32, rows, cols, threshold };
            check(&problem, &device, &x, &w, &b);
        }
        let (x, w, b) = (device.upload(&x).unwrap(), device.upload(&w).unwrap(), device.upload(&b).unwrap());
        let norm = LayerNorm::new([cols]).weight(&w).bias(&b);
        let found = set_apart(norm, 6.0).forward(&x).unwrap();
        let scales = numbers(&found.scales);
        assert_eq!(found.columns, [7, 11], "{device:?}");
        assert!(scales[2].is_nan() && [0, 1, 3, 4].iter().all(|&row| scales[row] < 0.05), "{scales:?}");
        let found = set_apart(RmsNorm::new([cols]), 6.0).forward(&x).unwrap();
        assert!(found.columns.is_empty() && shape(&found.values) == [rows, 0]);
        assert_eq!(numbers(&found.scales)[1], 2f64.powi(-23));
    }
}

/// On the ground floor: inputs, codes and values of any strides, flags that several passes share, zeros where they are asked for.
#[test]
fn passes_share_flags_and_any_strides_will_do() {
    // More rows than the threads that zero a column.
    let (rows, cols, threshold) = (300, 67, 2.0);
    let x = host(&[rows, cols], 0.2, DType::F32);
    for device in common::devices() {
        let up = |tensor: &HostTensor| device.upload(tensor).unwrap();
        let weight = up(&host(&[cols], 0.9, DType::F32));
        let results: Vec<f32> = {
            let all = RmsNorm::new([cols]).weight(&weight).forward(&up(&x)).unwrap();
            numbers(&all).into_iter().map(|v| v as f32).collect()
        };
        let (expected, scales, columns) = apart(&results, rows, threshold, false);
        let (zeroed, _, _) = apart(&results, rows, threshold, true);
        assert!(expected != zeroed && !columns.is_empty() && columns.len() < cols);
        let norm = set_apart(RmsNorm::new([cols]).weight(&weight), threshold);
        assert_eq!(norm.rows_and_cols(&[rows, cols], DType::F32).unwrap(), [rows, cols]);
        let of_x = x.to_f64();
        let transposed: Vec<f64> = (0..rows * cols).map(|i| of_x[i % rows * cols + i / rows]).collect();
        let input = up(&HostTensor::from_f64(&transposed, &[cols, rows], DType::F32).unwrap());
        let layout =
            |first: usize, count: usize| Layout::strided(&[count, cols], &[1, rows as isize], first).unwrap();
        let stream = device.stream();
        let mut flags = device.zeros(&[cols], DType::I32).unwrap();
        let (mut codes, mut of_scales, mut statistics) = (
            device.zeros(&[cols, rows], DType::I8).unwrap(),
            device.zeros(&[rows, 1], DType::F32).unwrap(),
            device.zeros(&[rows, STATISTICS], DType::F32).unwrap(),
        );
        // Two rows, then the others.
        for (first, count) in [(0, 2), (2, rows - 2)] {
            let numbers = |of: usize| Layout::strided(&[count, of], &[of as isize, 1], first * of).unwrap();
            let outputs = OutlierOutputs {
                codes: codes.view_mut().unwrap().with_layout(layout(first, count)).unwrap(),
                scales: of_scales.view_mut().unwrap().with_layout(numbers(1)).unwrap(),
                flags: flags.view_mut().unwrap(),
                statistics: Some(statistics.view_mut().unwrap().with_layout(numbers(STATISTICS)).unwrap()),
                hidden: None,
            };
            let input = input.view().unwrap().with_layout(layout(first, count)).unwrap();
            norm.forward_into(&input, outputs, &stream).unwrap();
        }
        let of_codes = |codes: &DeviceTensor| -> Vec<f64> {
            let codes = numbers(codes);
            (0..rows * cols).map(|i| codes[i % cols * rows + i / cols]).collect()
        };
        assert_eq!(of_codes(&codes), expected, "{device:?}");
        assert_eq!(numbers(&of_scales), scales);
        let flagged: Vec<usize> = (0..cols).filter(|&col| numbers(&flags)[col] == 1.0).collect();
        assert_eq!(flagged, columns);
        let mut view = codes.view_mut().unwrap().with_layout(layout(0, rows)).unwrap();
        zero_columns(&mut view, &flags.view().unwrap(), &stream).unwrap();
        drop(view);
        assert_eq!(of_codes(&codes), zeroed, "{device:?}");
        // Values side by side by columns.
        let count = columns.len();
        let mut values = device.zeros(&[count, rows], DType::F32).unwrap();
        let by_columns = Layout::strided(&[rows, count], &[1, rows as isize], 0).unwrap();
        let mut view = values.view_mut().unwrap().with_layout(by_columns).unwrap();
        let input = input.view().unwrap().with_layout(layout(0, rows)).unwrap();
        norm.values_into(&input, &statistics.view().unwrap(), &columns, &mut view, &stream).unwrap();
        drop(view);
        let values = numbers(&values);
        for (k, col) in columns.iter().enumerate() {
            for row in 0..rows {
                assert_eq!(values[k * rows + row], f64::from(results[row * cols + col]), "{device:?}");
            }
        }
    }
}

/// Rows of several axes, and codes of two of several rows: columns are counted over all axes of a row.
#[test]
fn rows_of_several_axes() {
    let x = host(&[2, 3, 4, 5], 0.2, DType::F32);
    let weight = host(&[4, 5], 0.9, DType::F32);
    let norm = || RmsNorm::new([4, 5]).weight(&weight);
    let found = set_apart(norm(), 1.5).forward(&x).unwrap();
    let result = norm().forward(&x).unwrap().to_f64();
    let results: Vec<f32> = result.iter().map(|&v| v as f32).collect();
    let (codes, scales, columns) = apart(&results, 6, 1.5, true);
    assert!(!columns.is_empty() && columns.windows(2).any(|pair| pair[0] + 1 == pair[1]));
    assert_eq!((found.codes.to_f64(), found.scales.to_f64(), &found.columns), (codes, scales, &columns));
    let values: Vec<f64> = (0..6)
        .flat_map(|row| columns.iter().map(move |col| (row, *col)))
        .map(|(row, col)| result[row * 20 + col])
        .collect();
    assert_eq!(found.values.to_f64(), values);
}

/// The same bits again, and for rows alone: their codes before columns are zeroed, and their scales.
#[test]
fn same_bits_twice_and_in_a_batch() {
    let (rows, cols) = (33, 1030);
    let x = host(&[rows, cols], 0.2, DType::F16);
    let all = x.to_f64();
    let weight = host(&[cols], 0.9, DType::F16);
    for device in common::devices() {
        let weight = device.upload(&weight).unwrap();
        let norm = set_apart(RmsNorm::new([cols]).weight(&weight), 3.0);
        let run = |rows: std::ops::Range<usize>| {
            let shape = [rows.len(), cols];
            let x = HostTensor::from_f64(&all[rows.start * cols..rows.end * cols], &shape, DType::F16);
            let x = device.upload(&x.unwrap()).unwrap();
            let found = norm.forward(&x).unwrap();
            (numbers(&found.codes), numbers(&found.scales), found.columns, numbers(&found.values))
        };
        let whole = run(0..rows);
        assert!(!whole.2.is_empty());
        assert_eq!(whole, run(0..rows), "{device:?}");
        for row in [0, 17, 32] {
            let (codes, scales, columns, values) = run(row..row + 1);
            assert_eq!(scales, [whole.1[row]]);
            assert!(columns.iter().all(|col| whole.2.contains(col)));
            for col in (0..cols).filter(|col| !whole.2.contains(col)) {
                assert_eq!(codes[col], whole.0[row * cols + col], "{device:?} {row} {col}");
            }
            for (at, col) in columns.iter().enumerate() {
                let place = whole.2.iter().position(|other| other == col).unwrap();
                assert_eq!(values[at], whole.3[row * whole.2.len() + place]);
            }
        }
    }
}

#[test]
fn no_rows_flag_nothing() {
    for device in common::devices() {
        let x = device.zeros(&[0, 64], DType::F32).unwrap();
        let found = set_apart(RmsNorm::new([64]), 6.0).forward(&x).unwrap();
        assert!(found.columns.is_empty());
        assert_eq!((shape(&found.codes), shape(&found.scales)), (vec![0, 64], vec![0, 1]));
        assert_eq!(shape(&found.values), [0, 0]);
    }
}
