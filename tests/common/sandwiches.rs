//! Forward passes of norms on both sides of a residual, in whatever way a stream is forced to run them.

use normkit::norm::{Sandwich, SandwichStatistics};
use normkit::prelude::*;
use normkit::spec::EpsPosition;
use normkit::tensor::{DType, Layout, View};
use normkit::{DeviceTensor, Error, Method, Result, Stream};

/// A problem.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around {
    pub(crate) shape: [usize; 2],
    pub(crate) dtype: DType,
    /// Of the residual.
    pub(crate) other: DType,
    /// LayerNorms after the sublayer and before the next one, or else RMSNorms.
    pub(crate) layers: [bool; 2],
    /// The data are `middle + size * wave`.
    pub(crate) values: (f64, f64),
    /// Weights and biases are there.
    pub(crate) affine: bool,
    /// The statistic of the RMSNorms sees a part of the rows.
    pub(crate) partial: bool,
    /// Rows lie apart, their elements side by side; or else columns do.
    pub(crate) transposed: bool,
}

impl Around {
    pub(crate) fn new(shape: [usize; 2], layers: [bool; 2]) -> Self {
        let (dtype, values) = (DType::F32, (0.3, 1.0));
        Around { shape, dtype, other: dtype, layers, values, affine: true, partial: false, transposed: false }
    }
}

/// Rows of one leaf and of several, all kinds of data, dtypes and layouts.
pub(crate) fn all() -> Vec<Around> {
    let of = Around::new;
    let (bf16, f16, f64) = (DType::BF16, DType::F16, DType::F64);
    vec![
        of([37, 70], [false, false]),
        of([19, 300], [true, false]),
        Around { dtype: bf16, other: bf16, ..of([9, 1024], [false, false]) },
        Around { dtype: f16, other: DType::F32, ..of([7, 515], [false, true]) },
        Around { dtype: f64, other: f64, ..of([5, 200], [true, true]) },
        of([3, 9001], [true, true]),
        Around { dtype: bf16, ..of([2, 20_000], [false, true]) },
        Around { partial: true, ..of([5, 650], [false, true]) },
        Around { partial: true, dtype: bf16, ..of([2, 4300], [false, false]) },
        Around { affine: false, ..of([9, 33], [true, false]) },
        Around { transposed: true, ..of([40, 65], [true, false]) },
        // Out of range, far from zero, constant.
        Around { values: (0.0, 1e30), ..of([9, 64], [false, false]) },
        Around { values: (0.0, 1e-30), ..of([9, 64], [true, true]) },
        Around { values: (1e4, 1.0), ..of([9, 769], [true, false]) },
        Around { values: (3.0, 0.0), ..of([5, 5000], [true, true]) },
    ]
}

fn wave(i: usize, phase: f64) -> f64 {
    (1.3 * i as f64 + phase).sin() + 0.3 * (0.37 * (i * i % 91) as f64 + phase).cos()
}

/// One of the norms; eps is inside or outside the root.
fn norm<'a>(
    problem: &Around,
    is_layer: bool,
    [weight, bias]: [View<'a>; 2],
    outside: bool,
) -> Box<dyn Method + 'a> {
    let cols = problem.shape[1];
    if is_layer {
        let norm = LayerNorm::new([cols]);
        return Box::new(if problem.affine { norm.weight_view(weight).bias_view(bias) } else { norm });
    }
    let (position, eps) = if outside { (EpsPosition::Outside, 1e-2) } else { (EpsPosition::Inside, 1e-6) };
    let norm = RmsNorm::new([cols]).eps(eps).eps_position(position);
    let norm = if problem.partial { norm.partial(0.4) } else { norm };
    Box::new(if problem.affine { norm.weight_offset(1.0).weight_view(weight).bias_view(bias) } else { norm })
}

/// Output, stream and statistics of both norms, as bits.
pub(crate) fn results(problem: &Around, stream: &Stream<'_>) -> Result<Vec<(&'static str, Vec<u64>)>> {
    let &Around { shape: [rows, cols], dtype, other, layers, values: (middle, size), .. } = problem;
    let device = stream.device();
    let upload = |shape: &[usize], dtype, value: &dyn Fn(usize) -> f64| {
        let values: Vec<f64> = (0..shape.iter().product()).map(value).collect();
        device.upload(&HostTensor::from_f64(&values, shape, dtype).unwrap()).unwrap()
    };
    let memory = if problem.transposed { [cols, rows] } else { [rows, cols] };
    let place = |i: usize| if problem.transposed { i % rows * cols + i / rows } else { i };
    let x = upload(&memory, dtype, &|i| middle + size * wave(place(i), 0.2));
    let r = upload(&memory, other, &|i| wave(place(i), 1.4));
    let parameter = |middle: f64, phase| upload(&[cols], dtype, &|i| middle + 0.3 * wave(i, phase));
    let parameters = [parameter(1.0, 0.9), parameter(0.1, 1.9), parameter(1.0, 2.9), parameter(-0.1, 3.9)];
    let views = parameters.each_ref().map(|tensor| tensor.view().unwrap());
    let [w2, b2, w1, b1] = views;
    let (after, before) =
        (norm(problem, layers[0], [w2, b2], true), norm(problem, layers[1], [w1, b1], false));
    let zeros = |shape: &[usize], dtype| device.zeros(shape, dtype).unwrap();
    let (mut y, mut h) = (zeros(&memory, dtype), zeros(&memory, other));
    let mut statistics = [(); 2].map(|()| zeros(&[rows, 4], dtype.compute()));
    let layout = match problem.transposed {
        true => Layout::strided(&[rows, cols], &[1, rows as isize], 0).unwrap(),
        false => Layout::contiguous(&[rows, cols]),
    };
    {
        let [of_after, of_before] = statistics.each_mut().map(|tensor| Some(tensor.view_mut().unwrap()));
        Sandwich::new(&*after, &*before).forward_into(
            &x.view().unwrap().with_layout(layout.clone()).unwrap(),
            &r.view().unwrap().with_layout(layout.clone()).unwrap(),
            &mut y.view_mut().unwrap().with_layout(layout.clone()).unwrap(),
            Some(&mut h.view_mut().unwrap().with_layout(layout.clone()).unwrap()),
            SandwichStatistics { after: of_after, before: of_before },
            stream,
        )?;
    }
    let bits = |tensor: &DeviceTensor| {
        let numbers = tensor.read().unwrap().to_f64();
        numbers.into_iter().map(|x| if x.is_nan() { u64::MAX } else { x.to_bits() }).collect()
    };
    let [after, before] = statistics;
    Ok([("output", y), ("hidden", h), ("statistics after", after), ("statistics before", before)]
        .map(|(name, tensor)| (name, bits(&tensor)))
        .into())
}

/// Names the results that differ. Rows of more than four leaves may be more than a forced geometry can take.
pub(crate) fn differences(problem: &Around, stream: &Stream<'_>, what: &str) -> Vec<String> {
    let cpu = results(problem, &normkit::Device::Cpu.stream()).expect("the CPU takes all");
    let found = match results(problem, stream) {
        Err(Error::Limit { .. }) if problem.shape[1] > 4 * 4096 && what.contains("two blocks") => {
            return Vec::new();
        }
        found => found.unwrap_or_else(|error| panic!("{what}, {problem:?}: {error}")),
    };
    let mut differing = Vec::new();
    for ((name, expected), (_, found)) in cpu.into_iter().zip(found) {
        let count = expected.iter().zip(&found).filter(|(a, b)| a != b).count();
        if count > 0 || expected.len() != found.len() {
            differing.push(format!("{what}, {problem:?}: {name}: {count} of {}", expected.len()));
        }
    }
    differing
}
