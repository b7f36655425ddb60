//! Norms in separate steps: *moments*, *merge*, *finish* and *apply*, and backward *sums*, *merge* and *apply*. In a row
//! they give the bits of the whole; over the parts of a batch, what the definition gives for the whole batch.

mod common;

use common::{on, wave};
use ndarray::{Array1, Array2};
use normkit::norm::steps;
use normkit::oracle::{self, Dd, Expected, Index, Problem, Real, round};
use normkit::prelude::*;
use normkit::spec::{MOMENTS, STATISTICS, SUMS, Spec};
use normkit::tensor::DType;
use normkit::{DeviceTensor, Gradients};

/// What the steps of backward give for the parts of a batch.
struct Backward {
    grad_inputs: Vec<HostTensor>,
    /// Of each part.
    grad_weights: Vec<HostTensor>,
    grad_biases: Vec<HostTensor>,
}

/// The parts of a batch `[N, C, L]`, cut along the samples.
fn cut(batch: &HostTensor, sizes: &[usize]) -> Vec<HostTensor> {
    let (shape, values) = (batch.shape(), batch.to_f64());
    let sample: usize = shape[1..].iter().product();
    let mut at = 0;
    sizes
        .iter()
        .map(|&size| {
            let part = &values[at * sample..(at + size) * sample];
            at += size;
            let mut shape = shape.to_vec();
            shape[0] = size;
            HostTensor::from_f64(part, &shape, batch.dtype()).unwrap()
        })
        .collect()
}

/// The output of each part, normalized with the statistics of all; and those statistics.
fn forward(norm: &impl Method, parts: &[DeviceTensor]) -> (Vec<HostTensor>, DeviceTensor) {
    let moments: Vec<_> = parts.iter().map(|part| steps::moments(norm, part).unwrap()).collect();
    let merged = steps::merge_moments(norm, &parts[0], &moments).unwrap();
    let statistics = steps::finish(norm, &parts[0], &merged).unwrap();
    let output = |part| steps::apply::<DeviceTensor>(norm, part, &statistics).unwrap().read().unwrap();
    (parts.iter().map(output).collect(), statistics)
}

fn backward(
    norm: &impl Method,
    grads: &[DeviceTensor],
    parts: &[DeviceTensor],
    statistics: &DeviceTensor,
) -> Backward {
    let (device, dtype) = (parts[0].device(), statistics.view().unwrap().dtype());
    let (stream, statistics) = (device.stream(), statistics.view().unwrap());
    let rows = statistics.shape()[0];
    let like = |view: &Option<normkit::tensor::View<'_>>| {
        view.as_ref().map(|view| device.zeros(view.shape(), view.dtype()).unwrap())
    };
    let mut result = Backward { grad_inputs: Vec::new(), grad_weights: Vec::new(), grad_biases: Vec::new() };
    let mut sums = Vec::new();
    for (g, x) in grads.iter().zip(parts) {
        let mut part = device.zeros(&[rows, SUMS], dtype).unwrap();
        let parameters = norm.parameters();
        let (mut weight, mut bias) = (like(&parameters.weight), like(&parameters.bias));
        let targets = Gradients {
            weight: weight.as_mut().map(|t| t.view_mut().unwrap()),
            bias: bias.as_mut().map(|t| t.view_mut().unwrap()),
            ..Gradients::default()
        };
        steps::backward_sums_into(
            norm,
            &g.view().unwrap(),
            &x.view().unwrap(),
            &statistics,
            &mut part.view_mut().unwrap(),
            targets,
            &mut Workspace::new(),
            &stream,
        )
        .unwrap();
        sums.push(part);
        result.grad_weights.extend(weight.map(|t| t.read().unwrap()));
        result.grad_biases.extend(bias.map(|t| t.read().unwrap()));
    }
    let views: Vec<_> = sums.iter().map(|part| part.view().unwrap()).collect();
    let mut merged = device.zeros(&[rows, SUMS], dtype).unwrap();
    steps::merge_sums_into(&views, &mut merged.view_mut().unwrap(), &stream).unwrap();
    for (g, x) in grads.iter().zip(parts) {
        let mut grad_input = device.zeros(x.view().unwrap().shape(), x.view().unwrap().dtype()).unwrap();
        steps::backward_apply_into(
            norm,
            &g.view().unwrap(),
            &x.view().unwrap(),
            &statistics,
            &merged.view().unwrap(),
            &mut grad_input.view_mut().unwrap(),
            &stream,
        )
        .unwrap();
        result.grad_inputs.push(grad_input.read().unwrap());
    }
    result
}

/// A batch `[N, C, L]` of an awkward kind, by name: element (sample, channel, position).
type Kind = (&'static str, fn(usize, usize, usize) -> f64);

const KINDS: [Kind; 6] = [
    ("as in a network", |n, c, l| wave(131 * n + 17 * c + l, 0.4)),
    ("far from zero", |n, c, l| 1e4 + wave(131 * n + 17 * c + l, 0.4)),
    ("parts far apart", |n, c, l| if n < 3 { 0.0 } else { 1e3 } + wave(131 * n + 17 * c + l, 0.4)),
    ("a part of zeros", |n, c, l| if n < 3 { 0.0 } else { wave(131 * n + 17 * c + l, 0.4) }),
    ("a part that is constant", |n, c, l| if n < 3 { 7.0 } else { wave(131 * n + 17 * c + l, 0.4) }),
    ("parts of all magnitudes", |n, c, l| [1e-30, 1e-30, 1.0, 1e30][n % 4] * wave(131 * n + 17 * c + l, 0.4)),
];

const SHAPE: [usize; 3] = [7, 4, 45];
/// Of different sizes, one of them a single sample.
const PARTS: [usize; 3] = [3, 1, 3];

fn batch(kind: Kind, dtype: DType) -> HostTensor {
    let [n, c, l] = SHAPE;
    let at = |i: usize| kind.1(i / (c * l), i / l % c, i % l);
    HostTensor::from_f64(&(0..n * c * l).map(at).collect::<Vec<_>>(), &SHAPE, dtype).unwrap()
}

fn numbers(shape: &[usize], phase: f64, dtype: DType) -> HostTensor {
    let len = shape.iter().product();
    let values: Vec<f64> = (0..len).map(|i| 1.0 + 0.4 * wave(i, phase)).collect();
    HostTensor::from_f64(&values, shape, dtype).unwrap()
}

/// The definition's output and gradients for the whole batch, in row-major order with their bounds.
fn expected(spec: &Spec, dtype: DType, [x, g, weight, bias]: [&HostTensor; 4]) -> [Vec<(Dd, f64)>; 4] {
    let index = Index::of_elements(spec);
    let rows = |t: &HostTensor| {
        let values = t.to_f64();
        Array2::from_shape_fn(index.dim(), |at| Dd::new(values[index.at(at)]))
    };
    let list = |t: &HostTensor| t.to_f64().into_iter().map(Dd::new).collect::<Array1<Dd>>();
    let (x, g, weight, bias) = (rows(x), rows(g), list(weight), list(bias));
    let problem =
        Problem { weight: Some(weight.view()), bias: Some(bias.view()), ..Problem::new(dtype, x.view()) };
    let output = oracle::forward(spec, &problem).unwrap();
    let grads = oracle::backward(spec, &problem, g.view()).unwrap();
    let elements = |e: &Expected<Dd>| {
        let mut flat = vec![(Dd::new(0.0), 0.0); e.value.len()];
        for (row, mags) in e.mag.rows().into_iter().enumerate() {
            let bound = 4.0 * round::ulp(dtype, mags.iter().copied().fold(0.0, f64::max));
            for col in 0..mags.len() {
                flat[index.at((row, col))] = (e.value[(row, col)], bound);
            }
        }
        flat
    };
    let terms = (spec.rows() * spec.cols() / oracle::parameters(spec)) as f64;
    let sums = |e: &Expected<Dd>| {
        let bound = |mag: f64| (4.0 + terms.log2()) * mag * round::ulp(dtype, 1.0) / 2.0;
        e.value.iter().zip(&e.mag).map(|(&value, &mag)| (value, bound(mag))).collect()
    };
    [elements(&output), elements(&grads.input), sums(&grads.weight), sums(&grads.bias)]
}

#[track_caller]
fn assert_within(what: &str, found: &[f64], expected: &[(Dd, f64)]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (&found, &(value, bound))) in found.iter().zip(expected).enumerate() {
        let error = (Dd::new(found) - value).abs().to_f64();
        assert!(error <= bound, "{what}, element {at}: {found} for {}, {}", value.to_f64(), error / bound);
    }
}

/// The parts' numbers one after the other.
fn joined(parts: &[HostTensor]) -> Vec<f64> {
    parts.iter().flat_map(|part| part.to_f64()).collect()
}

/// The parts' gradients added up, as data-parallel training does.
fn added(parts: &[HostTensor]) -> Vec<f64> {
    let mut sum = vec![0.0; parts[0].to_f64().len()];
    parts.iter().for_each(|part| sum.iter_mut().zip(part.to_f64()).for_each(|(s, x)| *s += x));
    sum
}

#[test]
fn parts_of_a_batch_are_normalized_as_the_whole() {
    for device in common::devices() {
        for dtype in common::dtypes(&device).filter(|&dtype| dtype == dtype.compute()) {
            for kind in KINDS {
                // One weight for each channel, and one for each position, which enters the sums.
                for parameters in [vec![4], vec![1, 4, 45]] {
                    let what = format!("{} {dtype} {}, weights {parameters:?}", device.backend(), kind.0);
                    let (weight, bias) = (numbers(&parameters, 0.2, dtype), numbers(&parameters, 1.2, dtype));
                    let (x, g) = (batch(kind, dtype), numbers(&SHAPE, 2.1, dtype));
                    let (w, b) = (on(&device, &weight), on(&device, &bias));
                    let norm = BatchNorm::new(4).weight(&w).bias(&b);
                    let spec = norm.lower(&SHAPE, dtype).unwrap();
                    let [y, dx, dw, db] = expected(&spec, dtype, [&x, &g, &weight, &bias]);

                    let upload = |batch: &HostTensor| -> Vec<DeviceTensor> {
                        cut(batch, &PARTS).iter().map(|part| on(&device, part)).collect()
                    };
                    let (parts, grads) = (upload(&x), upload(&g));
                    let (outputs, statistics) = forward(&norm, &parts);
                    assert_within(&format!("{what}: output"), &joined(&outputs), &y);
                    let found = backward(&norm, &grads, &parts, &statistics);
                    assert_within(&format!("{what}: grad_input"), &joined(&found.grad_inputs), &dx);
                    assert_within(&format!("{what}: grad_weight"), &added(&found.grad_weights), &dw);
                    assert_within(&format!("{what}: grad_bias"), &added(&found.grad_biases), &db);
                }
            }
        }
    }
}

/// A batch in one part, through all steps.
#[test]
fn all_steps_in_a_row_give_the_bits_of_the_whole() {
    for device in common::devices() {
        for dtype in common::dtypes(&device) {
            let shape = [6, 9, 35];
            let values: Vec<f64> = (0..6 * 9 * 35).map(|i| 3.0 + wave(i, 0.7)).collect();
            let x = on(&device, &HostTensor::from_f64(&values, &shape, dtype).unwrap());
            let g = on(&device, &numbers(&shape, 1.4, dtype));
            let (row, channel) = (numbers(&[35], 0.1, dtype), numbers(&[9], 0.1, dtype));
            let (row, channel) = (on(&device, &row), on(&device, &channel));
            // Not `dyn`: the conveniences take any method that has a size.
            check_bits(&LayerNorm::new([35]).weight(&row).bias(&row), &x, &g);
            check_bits(&RmsNorm::new([35]).weight(&row), &x, &g);
            check_bits(&BatchNorm::new(9).weight(&channel).bias(&channel), &x, &g);
            check_bits(&GroupNorm::new(3, 9).weight(&channel).bias(&channel), &x, &g);
            check_bits(&LayerNorm2d::new(9).weight(&channel), &x, &g);
            check_bits(&WeightNorm::new(Some(1)), &x, &g);
            check_bits(&Normalize::new().p(1.0).dim(0), &x, &g);
            check_bits(&Normalize::new().p(f64::INFINITY).dim(2), &x, &g);
        }
    }
}

#[track_caller]
fn check_bits(norm: &impl Method, x: &DeviceTensor, g: &DeviceTensor) {
    let name = format!("{} {} {}", x.device().backend(), norm.name(), x.view().unwrap().dtype());
    let (y, saved) = norm.forward_train(x).unwrap();
    let grads = norm.backward(g, x, &saved).unwrap();
    let (outputs, statistics) = forward(norm, std::slice::from_ref(x));
    let whole = saved.statistics().unwrap().read().unwrap();
    assert_eq!(statistics.read().unwrap(), whole, "{name}: statistics");
    assert_eq!(outputs[0], y.read().unwrap(), "{name}: output");
    let found = backward(norm, std::slice::from_ref(g), std::slice::from_ref(x), &statistics);
    assert_eq!(found.grad_inputs[0], grads.input.read().unwrap(), "{name}: grad_input");
    if let Some(weight) = grads.weight {
        assert_eq!(found.grad_weights[0], weight.read().unwrap(), "{name}: grad_weight");
    }
    if let Some(bias) = grads.bias {
        assert_eq!(found.grad_biases[0], bias.read().unwrap(), "{name}: grad_bias");
    }
}

/// `[count, mean, correction, m2, exponent]`, as documented.
#[test]
fn moments_say_what_they_are() {
    for device in common::devices() {
        let values = [1.0, 2.0, 3.0, 6.0, 2e30, 2e30, 4e30, 4e30];
        let x = on(&device, &HostTensor::from_f64(&values, &[2, 4], DType::F32).unwrap());
        let moments = steps::moments(&LayerNorm::new([4]).eps(0.0), &x).unwrap();
        assert_eq!(moments.view().unwrap().shape(), [2, MOMENTS]);
        let numbers = moments.read().unwrap().to_f64();
        for (row, [mean, deviation]) in numbers.chunks(MOMENTS).zip([[3.0, 14.0], [3e30, 4e60]]) {
            let scale = row[4].exp2();
            assert_eq!(row[0], 4.0);
            assert!(((row[1] + row[2]) * scale / mean - 1.0).abs() < 1e-6, "{row:?}");
            assert!((row[3] * scale * scale / deviation - 1.0).abs() < 1e-6, "{row:?}");
        }
        let norm = steps::moments(&Normalize::new().p(1.0), &x).unwrap().read().unwrap().to_f64();
        assert!((norm[3] * norm[4].exp2() / 12.0 - 1.0).abs() < 1e-6, "{norm:?}");
    }
}

/// Three parts merged at once, and two of them before the third, where every operation is exact.
#[test]
fn merging_is_a_union() {
    for device in common::devices() {
        let part = |values: &[f64]| {
            on(&device, &HostTensor::from_f64(values, &[values.len(), 1], DType::F32).unwrap())
        };
        let parts = [part(&[1.0, 3.0]), part(&[5.0, 7.0]), part(&[0.0, 8.0, 4.0, 4.0])];
        let norm = BatchNorm::new(1).eps(0.0);
        let moments = parts.each_ref().map(|part| steps::moments(&norm, part).unwrap());
        let all = steps::merge_moments(&norm, &parts[0], &moments).unwrap();
        let two = steps::merge_moments(&norm, &parts[0], &moments[..2]).unwrap();
        let later = steps::merge_moments(&norm, &parts[0], &[two, moments[2].clone()]).unwrap();
        let numbers = all.read().unwrap().to_f64();
        assert_eq!(numbers, later.read().unwrap().to_f64());
        // 32 / 8 = 4; squares from it: 9 + 1 + 1 + 9 + 16 + 16.
        assert_eq!((numbers[0], numbers[1] + numbers[2], numbers[3]), (8.0, 4.0, 52.0));
        let statistics = steps::finish(&norm, &parts[0], &all).unwrap();
        assert_eq!(statistics.view().unwrap().shape(), [1, STATISTICS]);
    }
}
