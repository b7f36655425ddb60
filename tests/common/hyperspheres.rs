//! Steps on the hypersphere, forward and backward, along memory or across it, in place or not.

use normkit::norm::{HypersphereGradients, HypersphereStatistics, HypersphereStep};
use normkit::prelude::*;
use normkit::tensor::{DType, Layout};
use normkit::{DeviceTensor, Error, Result, Stream, Workspace};

/// How a call's tensors lie in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Laid {
    pub(crate) shape: [usize; 2],
    /// The first row of an endless tensor.
    pub(crate) first: usize,
    pub(crate) is_transposed: bool,
    /// Of the stream, and of the sublayer's output.
    pub(crate) dtypes: [DType; 2],
}

impl Laid {
    fn layout(&self) -> Layout {
        let [rows, cols] = self.shape;
        match self.is_transposed {
            true => Layout::strided(&[rows, cols], &[1, rows as isize], 0).unwrap(),
            false => Layout::contiguous(&[rows, cols]),
        }
    }

    /// Output and gradients, row by row, that of alpha, and statistics.
    pub(crate) fn run(&self, stream: &Stream<'_>, in_place: bool) -> Result<[Vec<u64>; 7]> {
        let ([rows, cols], device) = (self.shape, stream.device());
        let place = |i: usize| if self.is_transposed { i % rows * cols + i / rows } else { i };
        let [dtype, other] = self.dtypes;
        let of = |phase: f64, dtype| {
            let values: Vec<f64> =
                (0..rows * cols).map(|i| wave(self.first * cols + place(i), phase)).collect();
            device.upload(&HostTensor::from_f64(&values, &[rows * cols], dtype).unwrap()).unwrap()
        };
        let (x, mut r, mut dh) = (of(0.2, other), of(1.4, dtype), of(2.2, dtype));
        let alpha: Vec<f64> = (0..cols).map(|i| 0.4 * wave(i, 0.9)).collect();
        let alpha = device.upload(&HostTensor::from_f64(&alpha, &[cols], DType::F32).unwrap()).unwrap();
        let zeros = |shape: &[usize], dtype| device.zeros(shape, dtype).unwrap();
        let (mut h, mut dx, mut dr) =
            (zeros(&[rows * cols], dtype), zeros(&[rows * cols], other), zeros(&[rows * cols], dtype));
        let (mut saved, mut dalpha) =
            ([(); 3].map(|()| zeros(&[rows, 4], dtype.compute())), zeros(&[cols], DType::F32));
        let step = HypersphereStep::new(&alpha).alpha_scale(1.5);
        let copy = |tensor: &DeviceTensor| device.upload(&tensor.read().unwrap()).unwrap();
        let original = copy(&r);
        let branch = x.view().unwrap().with_layout(self.layout()).unwrap();
        {
            let [a, b, c] = saved.each_mut().map(|tensor| Some(tensor.view_mut().unwrap()));
            let statistics = HypersphereStatistics { input: a, branch: b, output: c };
            let mut memory = if in_place { r.view_mut().unwrap() } else { h.view_mut().unwrap() };
            let (from, to) = memory.in_place();
            let from = if in_place { from } else { original.view().unwrap() };
            let input = from.with_layout(self.layout()).unwrap();
            let mut to = to.with_layout(self.layout()).unwrap();
            step.forward_into(&input, &branch, &mut to, statistics, stream)?;
        }
        {
            let input = original.view().unwrap().with_layout(self.layout()).unwrap();
            let statistics = saved.each_ref().map(|tensor| tensor.view().unwrap());
            let kept = copy(&dh);
            let mut memory = if in_place { dh.view_mut().unwrap() } else { dr.view_mut().unwrap() };
            let (from, to) = memory.in_place();
            let from = if in_place { from } else { kept.view().unwrap() };
            let gradient = from.with_layout(self.layout()).unwrap();
            let targets = HypersphereGradients {
                branch: Some(dx.view_mut().unwrap().with_layout(self.layout()).unwrap()),
                input: Some(to.with_layout(self.layout()).unwrap()),
                alpha: Some(dalpha.view_mut().unwrap()),
            };
            let workspace = &mut Workspace::new();
            step.backward_into(
                &gradient,
                &input,
                &branch,
                statistics.each_ref(),
                targets,
                workspace,
                stream,
            )?;
        }
        let in_rows = |tensor: &DeviceTensor| {
            let found = bits_of(tensor);
            let mut rows = vec![0; found.len()];
            found.into_iter().enumerate().for_each(|(i, bits)| rows[place(i)] = bits);
            rows
        };
        let (h, dr) = if in_place { (&r, &dh) } else { (&h, &dr) };
        let [a, b, c] = saved.each_ref().map(bits_of);
        Ok([in_rows(h), in_rows(&dx), in_rows(dr), bits_of(&dalpha), a, b, c])
    }
}

/// Rows of one leaf and of several, along memory and across it, of all dtypes.
#[allow(dead_code, reason = "one of the tests that share it has its own")]
pub(crate) fn all() -> Vec<Laid> {
    let (f16, bf16, f32, f64) = (DType::F16, DType::BF16, DType::F32, DType::F64);
    let of = |shape, dtypes, is_transposed| Laid { shape, first: 0, is_transposed, dtypes };
    vec![
        of([37, 70], [f32; 2], false),
        of([300, 24], [f32; 2], false),
        of([9, 1024], [bf16; 2], false),
        of([7, 515], [f32, f16], false),
        of([5, 200], [f64; 2], false),
        of([7, 130], [f64, f32], false),
        of([3, 9001], [f32; 2], false),
        of([2, 20_000], [f16, bf16], false),
        of([40, 65], [f32, bf16], true),
        of([600, 1], [f32; 2], false),
    ]
}

/// Names the results that differ from the CPU's. Rows of more than four leaves may be more than a forced geometry can take.
#[allow(dead_code, reason = "as above")]
pub(crate) fn differences(problem: &Laid, stream: &Stream<'_>, what: &str) -> Vec<String> {
    let mut differing = Vec::new();
    for in_place in [false, true] {
        let cpu = problem.run(&normkit::Device::Cpu.stream(), in_place).expect("the CPU takes all");
        let found = match problem.run(stream, in_place) {
            Err(Error::Limit { .. }) if problem.shape[1] > 4 * 4096 && what.contains("two blocks") => {
                continue;
            }
            found => found.unwrap_or_else(|error| panic!("{what}, {problem:?}: {error}")),
        };
        let names = ["output", "grad_branch", "grad_input", "grad_alpha", "input's", "branch's", "output's"];
        for ((name, expected), found) in names.into_iter().zip(cpu).zip(found) {
            let count = expected.iter().zip(&found).filter(|(a, b)| a != b).count();
            if count > 0 || expected.len() != found.len() {
                differing
                    .push(format!("{what}, {problem:?}, {in_place}: {name}: {count} of {}", expected.len()));
            }
        }
    }
    differing
}

fn wave(i: usize, phase: f64) -> f64 {
    (1.3 * i as f64 + phase).sin() + 0.3 * (0.37 * (i * i % 91) as f64 + phase).cos()
}

fn bits_of(tensor: &DeviceTensor) -> Vec<u64> {
    let numbers = tensor.read().unwrap().to_f64();
    numbers.into_iter().map(|x| if x.is_nan() { u64::MAX } else { x.to_bits() }).collect()
}
