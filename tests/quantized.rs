//! Results as codes of 8 bits: those of quantizing the float32 result, bit for bit, and refusals of what makes no sense.

mod common;

use common::named;
use normkit::norm::{Codes, Quantized};
use normkit::prelude::*;
use normkit::spec::{Activation, Scaling};
use normkit::tensor::{DType, Element, F8E4M3, F8E5M2, Layout, View, ViewMut};
use normkit::{DeviceTensor, Result};

/// The rules, from their text: codes and scales of `rows` rows of float32 results.
fn quantized(
    values: &[f32],
    rows: usize,
    dtype: DType,
    scaling: Scaling,
    bound: Option<f64>,
) -> (Vec<f64>, Vec<f32>) {
    let (largest, least) = match dtype {
        DType::I8 => (127.0f32, 2f32.powi(-23)),
        DType::F8E4M3 => (448.0, 1.0 / (512.0 * 448.0)),
        _ => (57344.0, 1.0 / (512.0 * 57344.0)),
    };
    let cols = values.len() / rows;
    let block = if let Scaling::Block(block) = scaling { block } else { cols };
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for part in values.chunks(cols).flat_map(|row| row.chunks(block)) {
        let scale = match scaling {
            Scaling::Static(scale) => scale as f32,
            _ if part.iter().any(|v| v.is_nan()) => f32::NAN,
            _ => {
                let most = part.iter().fold(0.0f32, |most, v| most.max(v.abs()));
                (most.min(bound.unwrap_or(f64::INFINITY) as f32) / largest).max(least)
            }
        };
        scales.push(scale);
        codes.extend(part.iter().map(|v| {
            let exact = f64::from(v / scale);
            match dtype {
                DType::I8 => <i8 as Element>::from_f64(exact).to_f64(),
                DType::F8E4M3 => F8E4M3::from_f64(exact).to_f64(),
                _ => F8E5M2::from_f64(exact).to_f64(),
            }
        }));
    }
    (codes, scales)
}

fn numbers(tensor: &DeviceTensor) -> Vec<f64> {
    tensor.read().unwrap().to_f64()
}

fn same(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan())
}

fn host(shape: &[usize], phase: f64, dtype: DType) -> HostTensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|i| 2.0 * common::wave(i, phase)).collect();
    HostTensor::from_f64(&values, shape, dtype).unwrap()
}

/// The same numbers as float32, or as they are in float64.
fn wide(tensor: &HostTensor) -> HostTensor {
    HostTensor::from_f64(&tensor.to_f64(), tensor.shape(), tensor.dtype().compute()).unwrap()
}

/// What is run: a norm with its operands on the device, given the input's dtype or the wide one.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Rms,
    Layer,
    /// A residual before, whose sum is written too.
    Residual,
    /// A residual before and a gate after.
    Gated,
    Activated,
}

const FORMS: [Form; 5] = [Form::Rms, Form::Layer, Form::Residual, Form::Gated, Form::Activated];

/// A problem: what is quantized how.
#[derive(Debug, Clone, Copy)]
struct Problem {
    form: Form,
    dtype: DType,
    rows: usize,
    cols: usize,
    codes: DType,
    scaling: Scaling,
    bound: Option<f64>,
}

/// All norms, operands and results of a problem: its own codes, scales and hidden value, and those that the float32 result gives.
fn check(problem: &Problem, device: &Device, x: &HostTensor) {
    let Problem { form, dtype, rows, cols, codes, scaling, bound } = *problem;
    let shape = [rows, cols];
    let up = |tensor: &HostTensor| device.upload(tensor).unwrap();
    let (r, z, w, b) = (
        host(&shape, 1.4, dtype),
        host(&shape, 0.7, dtype),
        host(&[cols], 0.9, dtype),
        host(&[cols], 2.9, dtype),
    );
    let run = |x: &HostTensor,
               widened: bool|
     -> Result<(DeviceTensor, Option<DeviceTensor>, Option<DeviceTensor>)> {
        let own = |tensor: &HostTensor| up(&if widened { wide(tensor) } else { tensor.clone() });
        let (x, r, z, w, b) = (own(x), own(&r), own(&z), own(&w), own(&b));
        macro_rules! run {
            ($norm:expr, $hidden:expr) => {{
                let norm = $norm;
                if widened {
                    return Ok((norm.forward(&x)?, None, None));
                }
                let mut quantized = Quantized::new(norm.clone(), codes, scaling);
                if let Some(bound) = bound {
                    quantized = quantized.upper_bound(bound);
                }
                if $hidden {
                    let (Codes { codes, scales }, hidden) = quantized.forward_hidden(&x)?;
                    let (_, expected, _) = norm.forward_hidden(&x)?;
                    assert!(same(&numbers(&hidden), &numbers(&expected)), "{problem:?} hidden");
                    return Ok((codes, scales, Some(hidden)));
                }
                let Codes { codes, scales } = quantized.forward(&x)?;
                Ok((codes, scales, None))
            }};
        }
        match form {
            Form::Rms => run!(RmsNorm::new([cols]).eps(1e-5).weight(&w), false),
            Form::Layer => run!(LayerNorm::new([cols]).weight(&w).bias(&b), false),
            Form::Residual => run!(RmsNorm::new([cols]).eps(1e-5).weight(&w).residual(&r), true),
            Form::Gated => {
                run!(RmsNorm::new([cols]).eps(1e-5).weight(&w).residual(&r).output_gate(&z), false)
            }
            Form::Activated => run!(LayerNorm::new([cols]).activation(Activation::Silu), false),
        }
    };
    let (result, _, _) = run(x, true).unwrap();
    let values: Vec<f32> = numbers(&result).into_iter().map(|v| v as f32).collect();
    let (expected, of_scales) = quantized(&values, rows, codes, scaling, bound);
    let (found, scales, _) = run(x, false).unwrap_or_else(|error| panic!("{problem:?}: {error}"));
    let name = || format!("{} {problem:?}", device.backend());
    if let Some(scales) = scales {
        let of_scales: Vec<f64> = of_scales.into_iter().map(f64::from).collect();
        assert!(same(&numbers(&scales), &of_scales), "{}: scales", name());
    }
    let found = numbers(&found);
    let at = (0..found.len()).find(|&i| !same(&found[i..=i], &expected[i..=i]));
    assert!(at.is_none(), "{}: {at:?} {:?} {:?}", name(), at.map(|i| found[i]), at.map(|i| expected[i]));
}

/// Problems that between them have every form, dtype, kind of scale, and length of row; few of each where kernels are compiled.
fn problems(device: &Device) -> Vec<Problem> {
    let mut list = Vec::new();
    let scalings = [
        (Scaling::Row, None),
        (Scaling::Static(0.031), None),
        (Scaling::Block(64), None),
        (Scaling::Row, Some(1.25)),
        (Scaling::Block(128), Some(1.5)),
        (Scaling::Block(32), None),
    ];
    let shapes = [(3, 33), (5, 64), (2, 1000), (4, 768), (1, 1), (2, 5000), (7, 130)];
    let dtypes: Vec<DType> = common::dtypes(device).collect();
    let every = if common::compiles(device) { 1 } else { 8 };
    for (i, form) in FORMS.into_iter().enumerate() {
        for (k, codes) in DType::CODES.into_iter().enumerate() {
            for n in 0..every {
                let at = i * 7 + k * 5 + n;
                let dtype = dtypes[(i + k + n) % dtypes.len()];
                let ((rows, cols), (scaling, bound)) =
                    (shapes[at % shapes.len()], scalings[at % scalings.len()]);
                list.push(Problem { form, dtype, rows, cols, codes, scaling, bound });
            }
        }
    }
    list
}

#[test]
fn codes_are_those_of_the_float32_result() {
    for device in common::devices() {
        for problem in problems(&device) {
            check(&problem, &device, &host(&[problem.rows, problem.cols], 0.2, problem.dtype));
        }
    }
}

/// Every scale with every dtype of codes, where nothing needs to be compiled.
#[test]
fn every_scale_has_its_codes_on_the_cpu() {
    for codes in DType::CODES {
        for dtype in DType::FLOATS {
            for (scaling, bound) in [
                (Scaling::Row, None),
                (Scaling::Row, Some(0.75)),
                (Scaling::Static(0.002), None),
                (Scaling::Block(256), None),
                (Scaling::Block(4096), Some(2.0)),
            ] {
                for (rows, cols) in [(9, 97), (3, 1025), (2, 9000)] {
                    let problem = Problem { form: Form::Residual, dtype, rows, cols, codes, scaling, bound };
                    check(&problem, &Device::Cpu, &host(&[rows, cols], 0.2, dtype));
                }
            }
        }
    }
}

/// Rows of zeros have the least scale; NaN makes its row's scale NaN and no other's; infinity is NaN to a norm.
#[test]
fn special_rows_have_defined_codes() {
    for device in common::devices() {
        for codes in DType::CODES {
            let (rows, cols) = (4, 70);
            let mut values: Vec<f64> = (0..rows * cols).map(|i| common::wave(i, 0.3)).collect();
            values[cols..2 * cols].fill(0.0);
            values[2 * cols + 5] = f64::NAN;
            let x = HostTensor::from_f64(&values, &[rows, cols], DType::F32).unwrap();
            let problem = Problem {
                form: Form::Rms,
                dtype: DType::F32,
                rows,
                cols,
                codes,
                scaling: Scaling::Row,
                bound: None,
            };
            check(&problem, &device, &x);
            let norm = Quantized::new(RmsNorm::new([cols]), codes, Scaling::Row);
            let Codes { codes: found, scales } = norm.forward(&device.upload(&x).unwrap()).unwrap();
            let (found, scales) = (numbers(&found), numbers(&scales.unwrap()));
            assert_eq!(scales[1], if codes == DType::I8 { 2f64.powi(-23) } else { scales[1] });
            assert!(found[cols..2 * cols].iter().all(|&code| code == 0.0) && scales[1] > 0.0);
            let of_nan = |code: &f64| if codes == DType::I8 { *code == 0.0 } else { code.is_nan() };
            assert!(scales[2].is_nan() && found[2 * cols..3 * cols].iter().all(of_nan));
            assert!(scales[3].is_finite() && found[3 * cols..].iter().any(|&code| code != 0.0));
        }
    }
}

/// Inputs and codes of any strides, codes at an odd address.
#[test]
fn codes_of_any_layout() {
    let (rows, cols) = (5, 67);
    let x = host(&[rows, cols], 0.2, DType::F32);
    let norm = Quantized::new(RmsNorm::new([cols]), DType::I8, Scaling::Block(32));
    let expected = norm.forward(&x).unwrap();
    let x = x.as_slice::<f32>().unwrap().to_vec();
    let transposed: Vec<f32> = (0..rows * cols).map(|i| x[i % rows * cols + i / rows]).collect();
    let layout = Layout::strided(&[rows, cols], &[1, rows as isize], 0).unwrap();
    let input = View::strided(&transposed, layout).unwrap();
    for strides in [[cols as isize + 3, 1], [1, rows as isize], [2, 2 * rows as isize + 1]] {
        let mut memory = vec![77i8; 3 * rows * cols];
        let mut scales = HostTensor::zeros(&[rows, 3], DType::F32).unwrap();
        let layout = Layout::strided(&[rows, cols], &strides, 1).unwrap();
        let mut codes = ViewMut::strided(&mut memory, layout).unwrap();
        let mut of_scales = scales.view_mut().unwrap();
        norm.forward_into(&input, &mut codes, Some(&mut of_scales), None, &Device::Cpu.stream()).unwrap();
        drop(codes);
        let at = |row: usize, col: usize| 1 + row * strides[0] as usize + col * strides[1] as usize;
        let found: Vec<f64> = (0..rows * cols).map(|i| f64::from(memory[at(i / cols, i % cols)])).collect();
        assert_eq!(found, expected.codes.to_f64(), "{strides:?}");
        assert_eq!(&scales, expected.scales.as_ref().unwrap());
        let outside = memory.iter().filter(|&&code| code == 77).count();
        let own = found.iter().filter(|&&code| code == 77.0).count();
        assert_eq!(outside, memory.len() - rows * cols + own, "written outside");
    }
}

/// A scale of a row needs all of its leaves, whatever the order of memory; the rows here lie side by side.
#[test]
fn long_rows_side_by_side_have_one_scale() {
    let (rows, cols) = (12, 5000);
    let x = host(&[rows, cols], 0.2, DType::F32);
    let norm = Quantized::new(RmsNorm::new([cols]), DType::I8, Scaling::Row);
    let expected = norm.forward(&x).unwrap();
    let x = x.as_slice::<f32>().unwrap().to_vec();
    let transposed = (0..rows * cols).map(|i| x[i % rows * cols + i / rows]).collect();
    let transposed = HostTensor::from_vec::<f32>(transposed, &[cols, rows]).unwrap();
    for device in common::devices() {
        let on_device = common::on(&device, &transposed);
        let layout = || Layout::strided(&[rows, cols], &[1, rows as isize], 0).unwrap();
        let input = on_device.view().unwrap().with_layout(layout()).unwrap();
        let mut codes = device.zeros(&[cols, rows], DType::I8).unwrap();
        let mut scales = device.zeros(&[rows, 1], DType::F32).unwrap();
        let mut to = codes.view_mut().unwrap().with_layout(layout()).unwrap();
        let stream = device.stream();
        norm.forward_into(&input, &mut to, Some(&mut scales.view_mut().unwrap()), None, &stream).unwrap();
        drop(to);
        assert_eq!(&scales.read().unwrap(), expected.scales.as_ref().unwrap(), "{device:?}");
        let codes = codes.read().unwrap().to_f64();
        let found: Vec<f64> = (0..rows * cols).map(|i| codes[i % cols * rows + i / cols]).collect();
        assert_eq!(found, expected.codes.to_f64(), "{device:?}");
    }
}

/// Norms of heads have a scale for each.
#[test]
fn rows_of_heads_have_scales_of_their_own() {
    let x = host(&[3, 4, 16], 0.2, DType::F32);
    let codes = Quantized::new(RmsNorm::new([16]), DType::F8E4M3, Scaling::Row).forward(&x).unwrap();
    assert_eq!(codes.scales.unwrap().shape(), [12, 1]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let x = host(&[4, 64], 0.2, DType::F32);
    let norm = || RmsNorm::new([64]);
    let scale = |scale| named(Quantized::new(norm(), DType::I8, Scaling::Static(scale)).forward(&x));
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-60, 1e60] {
        assert_eq!(scale(bad), "scale");
    }
    for block in [0, 1, 16, 48, 33, 96, 8192] {
        assert_eq!(named(Quantized::new(norm(), DType::I8, Scaling::Block(block)).forward(&x)), "block");
    }
    let row = || Quantized::new(norm(), DType::I8, Scaling::Row);
    for bound in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(named(row().upper_bound(bound).forward(&x)), "upper_bound");
    }
    let fixed = Quantized::new(norm(), DType::I8, Scaling::Static(0.1));
    assert_eq!(named(fixed.clone().upper_bound(1.0).forward(&x)), "upper_bound");
    for dtype in [DType::F32, DType::I32, DType::BF16] {
        assert_eq!(named(Quantized::new(norm(), dtype, Scaling::Row).forward(&x)), "dtype");
    }
    // Not over the last axes, or no norm at all.
    assert_eq!(named(Quantized::new(BatchNorm::new(64), DType::I8, Scaling::Row).forward(&x)), "method");
    assert_eq!(named(Quantized::new(Normalize::new().dim(0), DType::I8, Scaling::Row).forward(&x)), "method");
    let alpha = HostTensor::from_vec(vec![0.5f32], &[1]).unwrap();
    let dyt = DyT::new([64]).alpha(&alpha);
    assert_eq!(named(Quantized::new(dyt, DType::I8, Scaling::Row).forward(&x)), "method");

    let stream = Device::Cpu.stream();
    let view = x.view().unwrap();
    let mut codes = HostTensor::zeros(&[4, 64], DType::I8).unwrap();
    let mut scales = HostTensor::zeros(&[4, 1], DType::F32).unwrap();
    let run = |norm: &Quantized<RmsNorm<'_>>, codes: &mut HostTensor, scales: Option<&mut HostTensor>| {
        let mut of_scales = scales.map(|scales| scales.view_mut().unwrap());
        norm.forward_into(&view, &mut codes.view_mut().unwrap(), of_scales.as_mut(), None, &stream)
    };
    run(&row(), &mut codes, Some(&mut scales)).unwrap();
    assert_eq!(named(run(&row(), &mut codes, None)), "scales");
    assert_eq!(named(run(&fixed, &mut codes, Some(&mut scales))), "scales");
    let mut other = HostTensor::zeros(&[4, 64], DType::F8E4M3).unwrap();
    assert_eq!(named(run(&row(), &mut other, Some(&mut scales))), "codes");
    let mut short = HostTensor::zeros(&[4, 63], DType::I8).unwrap();
    assert_eq!(named(run(&row(), &mut short, Some(&mut scales))), "codes");
    let mut flat = HostTensor::zeros(&[4], DType::F32).unwrap();
    assert_eq!(named(run(&row(), &mut codes, Some(&mut flat))), "scales");
    // Codes are no input, no weight and no residual.
    assert_eq!(named(norm().forward(&codes)), "input");
    let weight = HostTensor::zeros(&[64], DType::I8).unwrap();
    assert_eq!(named(norm().weight(&weight).forward(&x)), "weight");
    assert_eq!(named(norm().residual(&codes).forward(&x)), "residual");
}
