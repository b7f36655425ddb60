//! P5: every method has a gradient for everything it was given, and it is the slope of the output.

mod common;

use common::wave;
use normkit::prelude::*;
use normkit::spec::EpsPosition;
use normkit::tensor::DType;
use normkit::{Gradients, Result, Saved};

const ROWS: usize = 4;
const COLS: usize = 11;

/// The numbers a loss depends on.
#[derive(Clone)]
struct Operands {
    input: Vec<f64>,
    weight: Vec<f64>,
    bias: Vec<f64>,
    alpha: Vec<f64>,
}

/// The same as tensors.
struct Tensors {
    input: HostTensor,
    weight: HostTensor,
    bias: HostTensor,
    alpha: HostTensor,
    /// Not differentiated.
    mask: HostTensor,
    mean: HostTensor,
    var: HostTensor,
}

impl Operands {
    fn new() -> Self {
        let wave = |n: usize, phase| (0..n).map(|i| wave(i, phase)).collect();
        let (input, weight, bias) = (wave(ROWS * COLS, 0.1), wave(COLS, 0.9), wave(COLS, 1.7));
        Operands { input, weight, bias, alpha: vec![0.7] }
    }

    fn tensors(&self, dtype: DType) -> Tensors {
        let tensor = |values: &[f64], shape: &[usize]| HostTensor::from_f64(values, shape, dtype).unwrap();
        Tensors {
            input: tensor(&self.input, &[ROWS, COLS]),
            weight: tensor(&self.weight, &[COLS]),
            bias: tensor(&self.bias, &[COLS]),
            alpha: tensor(&self.alpha, &[1]),
            mask: tensor(&(0..ROWS * COLS).map(|i| f64::from(i % 3 != 1)).collect::<Vec<_>>(), &[ROWS, COLS]),
            mean: tensor(&(0..COLS).map(|i| 0.1 * i as f64).collect::<Vec<_>>(), &[COLS]),
            var: tensor(&(0..COLS).map(|i| 1.0 + 0.1 * i as f64).collect::<Vec<_>>(), &[COLS]),
        }
    }
}

/// A method over some tensors.
type Build = for<'a> fn(&'a Tensors) -> Box<dyn Method + 'a>;

fn rms(tensors: &Tensors) -> RmsNorm<'_> {
    RmsNorm::new([COLS]).eps(1e-3).weight(&tensors.weight).bias(&tensors.bias)
}

const METHODS: [(&str, Build); 20] = [
    ("layer_norm", |t| Box::new(LayerNorm::new([COLS]).weight(&t.weight).bias(&t.bias))),
    ("rms_norm", |t| Box::new(rms(t))),
    ("rms_norm, eps outside", |t| Box::new(rms(t).eps(0.2).eps_position(EpsPosition::Outside))),
    ("rms_norm, partial", |t| Box::new(rms(t).partial(0.5))),
    ("rms_norm, partial, eps outside", |t| {
        Box::new(rms(t).partial(0.3).eps(0.2).eps_position(EpsPosition::Outside))
    }),
    ("rms_norm, gemma", |t| Box::new(rms(t).cast(Cast::Gemma))),
    ("rms_norm, weight offset", |t| Box::new(rms(t).weight_offset(-0.4))),
    ("layer_norm, masked", |t| {
        Box::new(LayerNorm::new([COLS]).weight(&t.weight).bias(&t.bias).mask(&t.mask))
    }),
    ("batch_norm", |t| Box::new(BatchNorm::new(COLS).weight(&t.weight).bias(&t.bias))),
    ("batch_norm, masked", |t| Box::new(BatchNorm::new(COLS).weight(&t.weight).bias(&t.bias).mask(&t.mask))),
    ("batch_norm, frozen", |t| {
        let norm = BatchNorm::new(COLS).weight(&t.weight).bias(&t.bias);
        Box::new(norm.frozen(&t.mean, &t.var).unwrap())
    }),
    ("group_norm", |t| Box::new(GroupNorm::new(1, COLS).weight(&t.weight).bias(&t.bias))),
    ("layer_norm_2d", |t| Box::new(LayerNorm2d::new(COLS).weight(&t.weight).bias(&t.bias))),
    ("weight_norm", |t| Box::new(WeightNorm::new(Some(1)).g(&t.weight))),
    ("normalize, p 1", |_| Box::new(Normalize::new().p(1.0))),
    ("normalize, p 3", |_| Box::new(Normalize::new().p(3.0).dim(0))),
    ("normalize, p inf", |_| Box::new(Normalize::new().p(f64::INFINITY))),
    ("qk_norm", |t| {
        let both = QkNorm::l2();
        Box::new(both.query().clone().weight(&t.weight).bias(&t.bias))
    }),
    ("dyt", |t| Box::new(DyT::new([COLS]).alpha(&t.alpha).weight(&t.weight).bias(&t.bias))),
    ("eln", |t| Box::new(Eln::new([COLS]).alpha(&t.alpha).weight(&t.weight).bias(&t.bias))),
];

fn grad_output() -> Vec<f64> {
    (0..ROWS * COLS).map(|i| wave(i, 2.3)).collect()
}

/// Gradients of input, weight, bias and alpha; those that `wanted` leaves out are empty.
fn backward(build: Build, tensors: &Tensors, wanted: [bool; 4]) -> Result<[Vec<f64>; 4]> {
    let (method, dtype, stream) = (build(tensors), tensors.input.dtype(), Device::Cpu.stream());
    let g = HostTensor::from_f64(&grad_output(), &[ROWS, COLS], dtype)?;
    let mut output = HostTensor::zeros(&[ROWS, COLS], dtype)?;
    let shape = method.statistics_shape(tensors.input.shape(), dtype)?;
    let mut statistics = shape.map(|shape| HostTensor::zeros(&shape, dtype.compute())).transpose()?;
    let mut saved = statistics.as_mut().map(|s| s.view_mut()).transpose()?;
    method.forward_into(&tensors.input.view()?, &mut output.view_mut()?, saved.as_mut(), &stream)?;
    drop(saved);

    let bound = method.parameters();
    let there = [true, bound.weight.is_some(), bound.bias.is_some(), bound.alpha.is_some()];
    let shapes: [&[usize]; 4] = [&[ROWS, COLS], &[COLS], &[COLS], &[1]];
    let mut grads = Vec::new();
    for index in 0..4 {
        let asked = there[index] && wanted[index];
        grads.push(asked.then(|| HostTensor::zeros(shapes[index], dtype)).transpose()?);
    }
    let [input, weight, bias, alpha] = &mut grads[..] else { unreachable!("four gradients") };
    let view = |tensor| -> Result<_> { Option::map(Option::as_mut(tensor), Tensor::view_mut).transpose() };
    let targets = Gradients {
        input: view(input)?,
        weight: view(weight)?,
        bias: view(bias)?,
        alpha: view(alpha)?,
        ..Gradients::default()
    };
    let statistics = statistics.as_ref().map(|s| s.view()).transpose()?;
    let input = tensors.input.view()?;
    method.backward_into(&g.view()?, &input, statistics.as_ref(), targets, &mut Workspace::new(), &stream)?;
    let mut values = grads.into_iter().map(|grad| grad.map_or_else(Vec::new, |grad| grad.to_f64()));
    Ok(std::array::from_fn(|_| values.next().unwrap_or_default()))
}

fn loss(build: Build, operands: &Operands) -> f64 {
    let tensors = operands.tensors(DType::F64);
    let mut output = HostTensor::zeros(&[ROWS, COLS], DType::F64).unwrap();
    let input = tensors.input.view().unwrap();
    let method = build(&tensors);
    method.forward_into(&input, &mut output.view_mut().unwrap(), None, &Device::Cpu.stream()).unwrap();
    output.to_f64().iter().zip(grad_output()).map(|(y, g)| y * g).sum()
}

#[test]
fn gradients_are_the_slopes_of_the_output() {
    let operands = Operands::new();
    let fields: [fn(&mut Operands) -> &mut Vec<f64>; 4] =
        [|o| &mut o.input, |o| &mut o.weight, |o| &mut o.bias, |o| &mut o.alpha];
    for (name, build) in METHODS {
        let grads = backward(build, &operands.tensors(DType::F64), [true; 4]).unwrap();
        let weight = !name.starts_with("normalize");
        let there = [true, weight, weight && name != "weight_norm", ["dyt", "eln"].contains(&name)];
        assert_eq!(std::array::from_fn(|which| !grads[which].is_empty()), there, "{name}");
        for (which, (grad, field)) in grads.iter().zip(fields).enumerate() {
            for (index, &grad) in grad.iter().enumerate() {
                // Fourth order, so that a step of 1e-3 leaves an error of some 1e-11.
                let at = |steps: f64| {
                    let mut nudged = operands.clone();
                    field(&mut nudged)[index] += steps * 1e-3;
                    loss(build, &nudged)
                };
                let slope = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / 12e-3;
                let error = (grad - slope).abs();
                assert!(error < 1e-8, "{name}: operand {which}[{index}]: {grad} is not the slope {slope}");
            }
        }
    }
}

/// What is not asked for changes nothing in what is.
#[test]
fn each_subset_of_gradients_equals_the_full_run() {
    let operands = Operands::new();
    for dtype in DType::FLOATS {
        let tensors = operands.tensors(dtype);
        for (name, build) in METHODS {
            let all = backward(build, &tensors, [true; 4]).unwrap();
            for subset in 0..16u32 {
                let wanted = std::array::from_fn(|index| subset >> index & 1 == 1);
                let some = backward(build, &tensors, wanted).unwrap();
                for index in 0..4 {
                    let expected: &[f64] = if wanted[index] { &all[index] } else { &[] };
                    assert_eq!(some[index], expected, "{name} {dtype}, gradient {index} of {wanted:?}");
                }
            }
        }
    }
}

/// The first floor returns what the ground floor writes.
#[test]
fn backward_returns_a_gradient_for_every_bound_parameter() {
    let tensors = Operands::new().tensors(DType::F32);
    let g = HostTensor::from_f64(&grad_output(), &[ROWS, COLS], DType::F32).unwrap();
    let norm = LayerNorm::new([COLS]).weight(&tensors.weight).bias(&tensors.bias);
    let (_, saved) = norm.forward_train(&tensors.input).unwrap();
    assert!(Saved::statistics(&saved).is_some());
    let grads = norm.backward(&g, &tensors.input, &saved).unwrap();
    let expected = backward(METHODS[0].1, &tensors, [true; 4]).unwrap();
    assert_eq!(grads.input.to_f64(), expected[0]);
    assert_eq!(grads.weight.unwrap().to_f64(), expected[1]);
    assert_eq!(grads.bias.unwrap().to_f64(), expected[2]);
    assert!(grads.alpha.is_none());
}
