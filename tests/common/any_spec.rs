//! Free specs on free layouts, and everything that can be computed of one: what the schedules of a backend are held
//! to against those of another.

use normkit::norm::{Parameters, steps};
use normkit::prelude::*;
use normkit::spec::{Affine, EpsPosition, Fusion, MOMENTS, Norm, SUMS, Spec, Statistic};
use normkit::tensor::{DType, Layout, ViewMut};
use normkit::{DeviceTensor, Gradients, Method, Result, Stream};

/// Any spec as a method.
pub(crate) struct AnySpec<'a> {
    norm: Norm,
    parameters: Parameters<'a>,
}

impl Method for AnySpec<'_> {
    fn name(&self) -> &'static str {
        "any_spec"
    }
    fn lower(&self, _: &[usize], _: DType) -> Result<Spec> {
        Ok(Spec::Norm(self.norm.clone()))
    }
    fn parameters(&self) -> &Parameters<'_> {
        &self.parameters
    }
}

/// What to compute, on what data.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) shape: Vec<usize>,
    pub(crate) reduced: Vec<usize>,
    pub(crate) affine: Vec<usize>,
    pub(crate) statistic: Statistic,
    pub(crate) eps_position: EpsPosition,
    pub(crate) eps: f64,
    pub(crate) dtype: DType,
    /// The axes as they follow each other in memory, slowest first.
    pub(crate) order: Vec<usize>,
    pub(crate) mask: bool,
    pub(crate) weight: bool,
    pub(crate) frozen: bool,
    pub(crate) round: bool,
    /// Added to the data, and what it is multiplied by.
    pub(crate) values: (f64, f64),
    /// Added to the last number, to others in proportion: the first of a row then say little about its mean.
    pub(crate) rise: f64,
    /// What the output's gradient is multiplied by.
    pub(crate) gradient: f64,
}

impl Problem {
    pub(crate) fn new(shape: &[usize], reduced: &[usize], affine: &[usize], statistic: Statistic) -> Self {
        let norm = matches!(statistic, Statistic::Norm(_));
        Problem {
            shape: shape.to_vec(),
            reduced: reduced.to_vec(),
            affine: affine.to_vec(),
            statistic,
            eps_position: if norm { EpsPosition::Floor } else { EpsPosition::Inside },
            eps: 1e-5,
            dtype: DType::F32,
            order: (0..shape.len()).collect(),
            mask: false,
            weight: true,
            frozen: false,
            round: false,
            values: (0.3, 1.0),
            rise: 0.0,
            gradient: 1.0,
        }
    }

    fn norm(&self) -> Norm {
        let size = |axes: &[usize]| axes.iter().map(|&axis| self.shape[axis]).collect::<Vec<_>>();
        Norm {
            shape: self.shape.iter().copied().collect(),
            reduced: self.reduced.iter().copied().collect(),
            affine: Affine {
                axes: self.affine.iter().copied().collect(),
                shape: size(&self.affine).into_iter().collect(),
            },
            statistic: self.statistic,
            prefix: size(&self.reduced).iter().product(),
            eps: self.eps,
            eps_position: self.eps_position,
            weight_offset: 0.0,
            round_normalized: self.round,
            frozen: self.frozen,
            fusion: Fusion::default(),
        }
    }

    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The layout of input and output.
    fn layout(&self) -> Layout {
        let mut strides = vec![0; self.shape.len()];
        let mut stride = 1;
        for &axis in self.order.iter().rev() {
            strides[axis] = stride;
            stride *= self.shape[axis] as isize;
        }
        Layout::strided(&self.shape, &strides, 0).unwrap()
    }
}

fn upload(device: &Device, values: &[f64], shape: &[usize], dtype: DType) -> DeviceTensor {
    device.upload(&HostTensor::from_f64(values, shape, dtype).unwrap()).unwrap()
}

fn numbers(len: usize, seed: usize) -> Vec<f64> {
    (0..len).map(|i| f64::from(((i + 1) * (2 * seed + 7919) % 6007) as f32 / 1001.0 - 3.0)).collect()
}

/// The elements' bits, all NaN alike.
fn bits(tensor: &DeviceTensor) -> Vec<u64> {
    tensor
        .read()
        .unwrap()
        .to_f64()
        .into_iter()
        .map(|x| if x.is_nan() { u64::MAX } else { x.to_bits() })
        .collect()
}

pub(crate) type Results = Vec<(&'static str, Vec<u64>)>;

/// Everything that can be computed of a problem on a stream.
pub(crate) fn results(problem: &Problem, stream: &Stream<'_>) -> Results {
    let device = stream.device();
    let Problem { shape, affine, dtype, .. } = problem;
    let (len, layout) = (problem.len(), problem.layout());
    let (offset, factor) = problem.values;
    let values = |seed| numbers(len, seed).into_iter().map(|x| x * factor).collect::<Vec<_>>();
    let compute = dtype.compute();
    let flat = |values: &[f64], dtype| upload(&device, values, &[values.len()], dtype);
    let risen = |(i, x): (usize, f64)| x + offset + problem.rise * i as f64 / len as f64;
    let x = flat(&values(1).into_iter().enumerate().map(risen).collect::<Vec<_>>(), *dtype);
    let g: Vec<f64> = numbers(len, 2).into_iter().map(|g| g * problem.gradient).collect();
    let g = flat(&g, *dtype);
    let sizes: Vec<usize> = affine.iter().map(|&axis| shape[axis]).collect();
    let count: usize = sizes.iter().product();
    let w = flat(&numbers(count, 3), compute);
    let b = flat(&numbers(count, 4), *dtype);
    let m = flat(&(0..len).map(|i| f64::from(u8::from(i * 7 % 11 > 3))).collect::<Vec<_>>(), DType::F32);
    let own = Layout::contiguous(&sizes);
    let mut parameters = Parameters::default();
    if problem.weight {
        parameters.weight = Some(w.view().unwrap().with_layout(own.clone()).unwrap());
    }
    parameters.bias = Some(b.view().unwrap().with_layout(own.clone()).unwrap());
    if problem.mask {
        parameters.mask = Some(m.view().unwrap().with_layout(Layout::contiguous(shape)).unwrap());
    }
    let method = AnySpec { norm: problem.norm(), parameters };
    let rows = Spec::Norm(method.norm.clone()).rows();
    let input = x.view().unwrap().with_layout(layout.clone()).unwrap();
    let grad = g.view().unwrap().with_layout(layout.clone()).unwrap();
    let full = || device.zeros(&[len], *dtype).unwrap();
    let per_row = |n: usize| device.zeros(&[rows, n], compute).unwrap();
    let (mut y, mut again, mut dx, mut dx_again) = (full(), full(), full(), full());
    let (mut statistics, mut finished) = (per_row(4), per_row(4));
    let (mut moments, mut sums, mut twice) = (per_row(MOMENTS), per_row(SUMS), per_row(MOMENTS));
    let (mut dw, mut db) =
        (device.zeros(&[count], compute).unwrap(), device.zeros(&[count], *dtype).unwrap());
    fn target<'v>(tensor: &'v mut DeviceTensor, layout: &Layout) -> ViewMut<'v> {
        tensor.view_mut().unwrap().with_layout(layout.clone()).unwrap()
    }
    method
        .forward_into(&input, &mut target(&mut y, &layout), Some(&mut statistics.view_mut().unwrap()), stream)
        .unwrap();
    steps::moments_into(&method, &input, &mut moments.view_mut().unwrap(), stream).unwrap();
    let of_moments = moments.view().unwrap();
    let parts = [of_moments.clone(), of_moments.clone()];
    steps::merge_moments_into(&method, shape, &parts, &mut twice.view_mut().unwrap(), stream).unwrap();
    let mut target_of_rows = finished.view_mut().unwrap();
    steps::finish_into(&method, (shape, *dtype), &of_moments, &mut target_of_rows, stream).unwrap();
    drop(target_of_rows);
    let of_row = finished.view().unwrap();
    steps::apply_into(&method, &input, &of_row, &mut target(&mut again, &layout), stream).unwrap();
    let mut workspace = Workspace::new();
    let grads = Gradients {
        input: Some(target(&mut dx, &layout)),
        weight: problem.weight.then(|| target(&mut dw, &own)),
        bias: Some(target(&mut db, &own)),
        ..Gradients::default()
    };
    let saved = statistics.view().unwrap();
    method.backward_into(&grad, &input, Some(&saved), grads, &mut workspace, stream).unwrap();
    let nothing = Gradients::default();
    let mut of_sums = sums.view_mut().unwrap();
    steps::backward_sums_into(&method, &grad, &input, &saved, &mut of_sums, nothing, &mut workspace, stream)
        .unwrap();
    let of_sums = sums.view().unwrap();
    let mut to = target(&mut dx_again, &layout);
    steps::backward_apply_into(&method, &grad, &input, &saved, &of_sums, &mut to, stream).unwrap();
    vec![
        ("statistics", bits(&statistics)),
        ("output", bits(&y)),
        ("moments", bits(&moments)),
        ("merged moments", bits(&twice)),
        ("finished statistics", bits(&finished)),
        ("output from steps", bits(&again)),
        ("grad_weight", bits(&dw)),
        ("grad_bias", bits(&db)),
        ("sums", bits(&sums)),
        ("grad_input", bits(&dx)),
        ("grad_input from steps", bits(&dx_again)),
    ]
}

/// What differs between two lots of results.
pub(crate) fn differences(expected: &Results, found: &Results, what: &str) -> Vec<String> {
    let pairs = expected.iter().zip(found);
    pairs
        .filter_map(|((name, expected), (_, found))| {
            let at = expected.iter().zip(found).position(|(a, b)| a != b)?;
            let count = expected.iter().zip(found).filter(|(a, b)| a != b).count();
            let (a, b) = (f64::from_bits(expected[at]), f64::from_bits(found[at]));
            Some(format!("{what}: {name}: {count} of {}, first {at}: {a:e}, {b:e}", expected.len()))
        })
        .collect()
}

pub(crate) fn batch_norm_in_both_memory_orders() -> Vec<Problem> {
    let base = Problem::new(&[6, 8, 5, 7], &[0, 2, 3], &[1], Statistic::Moments);
    let last = Problem { order: vec![0, 2, 3, 1], ..base.clone() };
    vec![base, last]
}

pub(crate) fn group_norm_and_norms_of_columns() -> Vec<Problem> {
    vec![
        Problem::new(&[2, 3, 4, 20], &[2, 3], &[1, 2], Statistic::Moments),
        Problem::new(&[5, 40, 6], &[1], &[], Statistic::Norm(2.0)),
    ]
}

pub(crate) fn masks_and_dtypes() -> Vec<Problem> {
    let base = Problem::new(&[9, 33], &[1], &[1], Statistic::Moments);
    vec![
        Problem { mask: true, ..base.clone() },
        Problem { dtype: DType::F16, order: vec![1, 0], ..base.clone() },
        Problem { dtype: DType::BF16, mask: true, statistic: Statistic::MeanSquare, round: true, ..base },
    ]
}

pub(crate) fn rows_out_of_range_and_far_from_zero() -> Vec<Problem> {
    let base = Problem::new(&[20, 40], &[1], &[1], Statistic::Moments);
    vec![
        Problem { values: (1e4, 1e-3), ..base.clone() },
        Problem { values: (0.0, 1e30), statistic: Statistic::MeanSquare, eps: 0.0, ..base.clone() },
        Problem { values: (1e-30, 1e-34), eps: 0.0, ..base },
        // Whole steps of lanes, whose first elements the software adapter has in registers.
        Problem { values: (0.0, 1e30), eps: 0.0, ..Problem::new(&[5, 64], &[1], &[1], Statistic::Moments) },
    ]
}

pub(crate) fn other_norms_and_long_rows() -> Vec<Problem> {
    vec![
        Problem::new(&[7, 50], &[1], &[0], Statistic::Norm(1.0)),
        Problem::new(&[7, 50], &[1], &[0], Statistic::Norm(f64::INFINITY)),
        Problem::new(&[3, 9001], &[1], &[1], Statistic::Moments),
        Problem { frozen: true, ..Problem::new(&[4, 6, 10], &[0, 2], &[1], Statistic::Moments) },
    ]
}

pub(crate) fn powers() -> Vec<Problem> {
    vec![
        Problem::new(&[6, 37], &[1], &[0], Statistic::Norm(3.0)),
        Problem { values: (0.0, 1e20), ..Problem::new(&[6, 5, 7], &[1], &[0], Statistic::Norm(2.5)) },
    ]
}

/// Output and gradients of a method with three parameters.
fn passes(method: &impl Method, x: &DeviceTensor, g: &DeviceTensor) -> Results {
    let (y, saved) = method.forward_train(x).unwrap();
    let grads = method.backward(g, x, &saved).unwrap();
    let names = ["output", "grad_input", "grad_weight", "grad_bias", "grad_alpha"];
    let all = [Some(y), Some(grads.input), grads.weight, grads.bias, grads.alpha];
    names.into_iter().zip(all.map(|tensor| bits(&tensor.unwrap()))).collect()
}

/// The pointwise functions, with parameters along the last axis: everything that a device computes of them.
pub(crate) fn elementwise(device: &Device) -> Results {
    // Arguments some of whose squares overflow, and some that vanish.
    let wide = [1.0, 1e25, 1e-25, 30.0];
    // All over the range in which tanh rises, and where its derivative is still a number.
    let steep = [0.01, 0.5, 1.5, 6.0, 12.0, 60.0, 1e4];
    let mut all = Vec::new();
    for (function, sizes) in [("eln", &wide[..]), ("dyt", &wide), ("dyt", &steep)] {
        let (rows, n) = (301, 11);
        let like = |values: &[f64], shape: &[usize]| upload(device, values, shape, DType::F32);
        let x: Vec<f64> =
            numbers(rows * n, 1).iter().enumerate().map(|(i, x)| x * sizes[i % sizes.len()]).collect();
        let (x, g) = (like(&x, &[rows, n]), like(&numbers(rows * n, 2), &[rows, n]));
        let (w, b) = (like(&numbers(n, 3), &[n]), like(&numbers(n, 4), &[n]));
        let alpha = like(&[0.7], &[1]);
        all.extend(match function {
            "eln" => passes(&Eln::new([n]).alpha(&alpha).weight(&w).bias(&b), &x, &g),
            _ => passes(&DyT::new([n]).alpha(&alpha).weight(&w).bias(&b), &x, &g),
        });
    }
    all
}
