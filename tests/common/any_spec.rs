//! Free specs on free layouts, and everything that can be computed of one: what the schedules of a backend are held
//! to against those of another.

mod problems;
#[allow(unused_imports, reason = "shared with tests that have lists of their own")]
pub(crate) use problems::*;

use normkit::norm::{Parameters, RotaryTables, steps};
use normkit::prelude::*;
use normkit::spec::{
    Affine, Branch, Epilogue, EpsPosition, Fusion, MOMENTS, Norm, Prologue, SUMS, Spec, Statistic,
};
use normkit::tensor::{DType, Layout, View, ViewMut};
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
    /// What surrounds the norm, and the dtype of its other operands. The prologue's lies in memory as the input does, the
    /// epilogue's in the order of the axes.
    pub(crate) fusion: Fusion,
    pub(crate) other: DType,
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
            fusion: Fusion::default(),
            other: DType::F32,
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
            fusion: self.fusion,
        }
    }

    /// Cosines and sines of a rotary epilogue: different for each row, or, of an odd number of rows, chosen by positions.
    fn tables(&self, device: &Device) -> Vec<DeviceTensor> {
        let Epilogue::Rotary { dims, .. } = self.fusion.epilogue else { return Vec::new() };
        let mut shape = self.shape.clone();
        *shape.last_mut().unwrap() = dims / 2;
        let rows: usize = shape[..shape.len() - 1].iter().product();
        let mut positions = None;
        if rows % 2 == 1 {
            // Eleven rows to choose from.
            let chosen: Vec<f64> = (0..rows).map(|row| f64::from((row * 7 % 11) as u32)).collect();
            let dtype = if rows.is_multiple_of(3) { DType::I32 } else { DType::I64 };
            positions = Some(upload(device, &chosen, &shape[..shape.len() - 1], dtype));
            shape = vec![11, dims / 2];
        }
        let len = shape.iter().product();
        let tables = [8, 9].map(|seed| upload(device, &numbers(len, seed), &shape, self.other));
        tables.into_iter().chain(positions).collect()
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
    let others = [5, 6].map(|seed| flat(&numbers(len, seed), problem.other));
    parameters.fusion = problem.fusion;
    if problem.fusion.prologue.operand().is_some() {
        parameters.before = Some(others[0].view().unwrap().with_layout(layout.clone()).unwrap());
    }
    if problem.fusion.epilogue.operand().is_some() {
        parameters.after = Some(others[1].view().unwrap().with_layout(Layout::contiguous(shape)).unwrap());
    }
    let of_branch = [10, 11].map(|seed| flat(&numbers(count, seed), *dtype));
    let [c, s] =
        of_branch.each_ref().map(|tensor| Some(tensor.view().unwrap().with_layout(own.clone()).unwrap()));
    parameters.branch_bias = c.filter(|_| problem.fusion.branch.bias);
    parameters.branch_scale = s.filter(|_| problem.fusion.branch.scale);
    let tables = problem.tables(&device);
    if let [cos, sin, positions @ ..] = &tables[..] {
        let (cos, sin) = (cos.view().unwrap(), sin.view().unwrap());
        let positions = positions.first().map(|positions| positions.view().unwrap());
        parameters.tables = Some(Box::new(RotaryTables { cos, sin, positions }));
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
    let of_fusion = if problem.fusion.is_none() {
        Vec::new()
    } else {
        beside(problem, &method, [&x, &g], &saved, stream)
    };
    let of_norm = vec![
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
    ];
    [of_norm, of_fusion].concat()
}

fn target<'v>(tensor: &'v mut DeviceTensor, layout: &Layout) -> ViewMut<'v> {
    tensor.view_mut().unwrap().with_layout(layout.clone()).unwrap()
}

/// What a fusion has beside its norm: the hidden value, and all gradients at once, those that may be in place.
fn beside(
    problem: &Problem,
    method: &AnySpec<'_>,
    [x, g]: [&DeviceTensor; 2],
    saved: &View<'_>,
    stream: &Stream<'_>,
) -> Results {
    let (device, layout, len) = (stream.device(), problem.layout(), problem.len());
    let (prologue, across) = (problem.fusion.prologue, Layout::contiguous(&problem.shape));
    let is_residual = matches!(prologue, Prologue::Residual { .. });
    let of_hidden = if is_residual { problem.other } else { problem.dtype };
    let full = |dtype| device.zeros(&[len], dtype).unwrap();
    let input = x.view().unwrap().with_layout(layout.clone()).unwrap();
    let (mut hidden, mut y) = (full(of_hidden), device.upload(&x.read().unwrap()).unwrap());
    let (mut to_hidden, mut to_output) = (target(&mut hidden, &layout), target(&mut y, &layout));
    let (own, mut to_output) = to_output.in_place();
    let wanted = (prologue != Prologue::None).then_some(&mut to_hidden);
    method.forward_hidden_into(&own, &mut to_output, wanted, None, stream).unwrap();

    let count = problem.affine.iter().map(|&axis| problem.shape[axis]).product();
    let sizes: Vec<usize> = problem.affine.iter().map(|&axis| problem.shape[axis]).collect();
    let parameter = |dtype| device.zeros(&[count], dtype).unwrap();
    let (mut dw, mut db) = (parameter(problem.dtype.compute()), parameter(problem.dtype));
    let (mut dc, mut ds) = (parameter(problem.dtype), parameter(problem.dtype));
    let (mut before, mut after) = (full(problem.other), full(problem.other));
    let mut gradients = device.upload(&g.read().unwrap()).unwrap();
    let mut of_h = upload(&device, &numbers(len, 7), &[len], of_hidden);
    let [mut on_output, mut on_hidden] =
        [(&mut gradients, &layout), (&mut of_h, &layout)].map(|(t, l)| target(t, l));
    let ((grad_output, grad_input), (grad_hidden, over_hidden)) =
        (on_output.in_place(), on_hidden.in_place());
    let is_alike = of_hidden == problem.other;
    let mut grads = Gradients {
        input: Some(grad_input),
        weight: problem.weight.then(|| target(&mut dw, &Layout::contiguous(&sizes))),
        bias: Some(target(&mut db, &Layout::contiguous(&sizes))),
        ..Gradients::default()
    };
    let Branch { bias, scale } = problem.fusion.branch;
    grads.branch_bias = bias.then(|| target(&mut dc, &Layout::contiguous(&sizes)));
    grads.branch_scale = scale.then(|| target(&mut ds, &Layout::contiguous(&sizes)));
    if prologue != Prologue::None {
        grads.before = Some(if is_alike { over_hidden } else { target(&mut before, &layout) });
    }
    if problem.fusion.epilogue.operand().is_some() {
        grads.after = Some(target(&mut after, &across));
    }
    let grad_hidden = (prologue != Prologue::None).then_some(&grad_hidden);
    let mut workspace = Workspace::new();
    method
        .backward_hidden_into(&grad_output, grad_hidden, &input, Some(saved), grads, &mut workspace, stream)
        .unwrap();
    let mut all = vec![
        ("hidden", bits(&hidden)),
        ("output in place", bits(&y)),
        ("grad_input in place", bits(&gradients)),
        ("grad_weight beside", bits(&dw)),
        ("grad_bias beside", bits(&db)),
        ("grad_before", bits(if is_alike { &of_h } else { &before })),
        ("grad_after", bits(&after)),
        ("grad_branch_bias", bits(&dc)),
        ("grad_branch_scale", bits(&ds)),
    ];
    if is_residual && of_hidden == problem.dtype {
        // The hidden value in the place of the input and the residual.
        let mut parameters = method.parameters.clone();
        parameters.before = None;
        let method = AnySpec { norm: method.norm.clone(), parameters };
        let grad = g.view().unwrap().with_layout(layout.clone()).unwrap();
        let (mut dx, mut dr) = (full(problem.dtype), full(of_hidden));
        let grads = Gradients {
            input: Some(target(&mut dx, &layout)),
            before: Some(target(&mut dr, &layout)),
            ..Gradients::default()
        };
        let hidden = hidden.view().unwrap().with_layout(layout.clone()).unwrap();
        method.backward_into(&grad, &hidden, Some(saved), grads, &mut workspace, stream).unwrap();
        all.extend([("grad_input of hidden", bits(&dx)), ("grad_before of hidden", bits(&dr))]);
    }
    all
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
