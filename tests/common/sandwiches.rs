//! Norms on both sides of a residual, forward and backward, in whatever way a stream is forced to run them.

use normkit::norm::{Cast, HiddenFrom, Sandwich, SandwichGradients, SandwichStatistics};
use normkit::prelude::*;
use normkit::spec::EpsPosition;
use normkit::tensor::{DType, Layout, View};
use normkit::{DeviceTensor, Error, Method, Result, Stream, Workspace};

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
    /// RMSNorms round normalized values.
    pub(crate) rounds: bool,
    /// Rows lie apart, their elements side by side; or else columns do.
    pub(crate) transposed: bool,
}

impl Around {
    pub(crate) fn new(shape: [usize; 2], layers: [bool; 2]) -> Self {
        let (dtype, values) = (DType::F32, (0.3, 1.0));
        Around {
            shape,
            dtype,
            other: dtype,
            layers,
            values,
            affine: true,
            partial: false,
            rounds: false,
            transposed: false,
        }
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
        // Several chunks of rows.
        of([300, 24], [true, false]),
        Around { rounds: true, dtype: bf16, other: bf16, ..of([9, 300], [false, false]) },
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
    let offset = if problem.rounds { 0.0 } else { 1.0 };
    let norm = RmsNorm::new([cols]).weight_offset(offset).eps(eps).eps_position(position);
    let norm = if problem.rounds { norm.cast(Cast::Llama) } else { norm };
    let norm = if problem.partial { norm.partial(0.4) } else { norm };
    Box::new(if problem.affine { norm.weight_view(weight).bias_view(bias) } else { norm })
}

/// Output, stream and statistics of both norms, and all gradients, from the residual and from the stream, as bits.
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
    let norms = Sandwich::new(&*after, &*before);
    let zeros = |shape: &[usize], dtype| device.zeros(shape, dtype).unwrap();
    let (mut y, mut h) = (zeros(&memory, dtype), zeros(&memory, other));
    let mut saved = [(); 2].map(|()| zeros(&[rows, 4], dtype.compute()));
    let layout = match problem.transposed {
        true => Layout::strided(&[rows, cols], &[1, rows as isize], 0).unwrap(),
        false => Layout::contiguous(&[rows, cols]),
    };
    {
        let [of_after, of_before] = saved.each_mut().map(|tensor| Some(tensor.view_mut().unwrap()));
        norms.forward_into(
            &laid_out(&x, &layout),
            &laid_out(&r, &layout),
            &mut y.view_mut().unwrap().with_layout(layout.clone()).unwrap(),
            Some(&mut h.view_mut().unwrap().with_layout(layout.clone()).unwrap()),
            SandwichStatistics { after: of_after, before: of_before },
            stream,
        )?;
    }
    let mut all = vec![("output", bits(&y)), ("hidden", bits(&h))];
    all.extend(["statistics after", "statistics before"].into_iter().zip(saved.each_ref().map(bits)));
    for from_hidden in [false, true] {
        // In place where the residual is given: gradients of the input and of the residual take the place of the others.
        let mut of_y = upload(&memory, dtype, &|i| wave(place(i), 2.2));
        let mut of_h = upload(&memory, other, &|i| wave(place(i), 3.1));
        let [mut dx, mut dr] = [zeros(&memory, dtype), zeros(&memory, other)];
        let mut of_parameters = [(); 4].map(|()| zeros(&[cols], dtype));
        {
            let [w2, b2, w1, b1] = of_parameters
                .each_mut()
                .map(|tensor| Some(tensor.view_mut().unwrap()).filter(|_| problem.affine));
            let [mut y_memory, mut h_memory, mut x_memory, mut r_memory] =
                [&mut of_y, &mut of_h, &mut dx, &mut dr].map(|tensor| tensor.view_mut().unwrap());
            let ((dy, to_x), (dh, to_r)) = (y_memory.in_place(), h_memory.in_place());
            let [dy, dh] = [dy, dh].map(|view| view.with_layout(layout.clone()).unwrap());
            let [input, residual] = match from_hidden {
                false => [to_x, to_r],
                true => [x_memory.reborrow(), r_memory.reborrow()],
            }
            .map(|view| view.with_layout(layout.clone()).unwrap());
            let targets = SandwichGradients {
                input: Some(input),
                residual: Some(residual),
                after_weight: w2,
                after_bias: b2,
                before_weight: w1,
                before_bias: b1,
            };
            let sum = if from_hidden { laid_out(&h, &layout) } else { laid_out(&r, &layout) };
            let from = if from_hidden { HiddenFrom::Hidden(&sum) } else { HiddenFrom::Residual(&sum) };
            let statistics = saved.each_ref().map(|tensor| tensor.view().unwrap());
            let workspace = &mut Workspace::new();
            norms.backward_into(
                &dy,
                Some(&dh),
                &laid_out(&x, &layout),
                from,
                statistics.each_ref(),
                targets,
                workspace,
                stream,
            )?;
        }
        let [to_x, to_r] = if from_hidden { [&dx, &dr] } else { [&of_y, &of_h] };
        let names = ["input", "residual", "weight after", "bias after", "weight before", "bias before"];
        let [w2, b2, w1, b1] = &of_parameters;
        all.extend(names.into_iter().zip([to_x, to_r, w2, b2, w1, b1].map(bits)));
    }
    Ok(all)
}

fn laid_out<'t>(tensor: &'t DeviceTensor, layout: &Layout) -> View<'t> {
    tensor.view().unwrap().with_layout(layout.clone()).unwrap()
}

fn bits(tensor: &DeviceTensor) -> Vec<u64> {
    let numbers = tensor.read().unwrap().to_f64();
    numbers.into_iter().map(|x| if x.is_nan() { u64::MAX } else { x.to_bits() }).collect()
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
