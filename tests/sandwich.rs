//! Both norms around a residual in one pass: the bits of two passes where those lose nothing, nearer to the exact result where they
//! do.

mod common;

use normkit::norm::{Cast, HiddenFrom, Sandwich, SandwichGradients, SandwichGrads, SandwichStatistics};
use normkit::prelude::*;
use normkit::spec::EpsPosition;
use normkit::tensor::DType;
use normkit::{DeviceTensor, Error, Method, Workspace};

fn tensor(shape: &[usize], phase: f64, dtype: DType) -> HostTensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|i| 2.0 * common::wave(i, phase)).collect();
    HostTensor::from_f64(&values, shape, dtype).unwrap()
}

/// A weight or a bias: around 1 or around 0.
fn parameter(cols: usize, middle: f64, phase: f64, dtype: DType) -> HostTensor {
    let values: Vec<f64> = (0..cols).map(|i| middle + 0.3 * common::wave(i, phase)).collect();
    HostTensor::from_f64(&values, &[cols], dtype).unwrap()
}

fn numbers(tensor: &DeviceTensor) -> Vec<f64> {
    tensor.read().unwrap().to_f64()
}

fn bits(tensor: &DeviceTensor) -> Vec<u64> {
    numbers(tensor).into_iter().map(f64::to_bits).collect()
}

/// The sum, rounded to the dtype of both: exact in float64 where they are float32, and float64's own.
fn sum(device: &Device, a: &DeviceTensor, b: &DeviceTensor) -> DeviceTensor {
    let (a, b) = (a.read().unwrap(), b.read().unwrap());
    let both: Vec<f64> = a.to_f64().iter().zip(b.to_f64()).map(|(a, b)| a + b).collect();
    device.upload(&HostTensor::from_f64(&both, a.shape(), a.dtype()).unwrap()).unwrap()
}

/// Operands of a call, on a device.
struct Operands {
    x: DeviceTensor,
    r: DeviceTensor,
    dy: DeviceTensor,
    dh: DeviceTensor,
    /// Weight and bias of the norm after, and of the norm before.
    parameters: [DeviceTensor; 4],
}

impl Operands {
    fn new(device: &Device, shape: &[usize], dtype: DType) -> Self {
        let up = |tensor: HostTensor| device.upload(&tensor).unwrap();
        let cols = *shape.last().unwrap();
        let of = |phase| up(tensor(shape, phase, dtype));
        Operands {
            x: of(0.2),
            r: of(1.4),
            dy: of(2.2),
            dh: of(3.1),
            parameters: [(1.0, 0.9), (0.0, 1.9), (1.0, 2.9), (0.0, 3.9)]
                .map(|(middle, phase)| up(parameter(cols, middle, phase, dtype))),
        }
    }

    /// The same numbers in another dtype.
    fn of(&self, device: &Device, dtype: DType) -> Self {
        let wide = |tensor: &DeviceTensor| {
            let host = tensor.read().unwrap();
            device.upload(&HostTensor::from_f64(&host.to_f64(), host.shape(), dtype).unwrap()).unwrap()
        };
        Operands {
            x: wide(&self.x),
            r: wide(&self.r),
            dy: wide(&self.dy),
            dh: wide(&self.dh),
            parameters: self.parameters.each_ref().map(wide),
        }
    }
}

fn rms<'a>(cols: usize, [weight, bias]: [&'a DeviceTensor; 2]) -> RmsNorm<'a> {
    RmsNorm::new([cols]).eps(1e-6).weight(weight).bias(bias)
}

fn layer<'a>(cols: usize, [weight, bias]: [&'a DeviceTensor; 2]) -> LayerNorm<'a> {
    LayerNorm::new([cols]).eps(1e-5).weight(weight).bias(bias)
}

/// Compares a sandwich with its parts, one after the other, bit for bit.
fn compare(what: &str, device: &Device, o: &Operands, after: &dyn Method, before: &dyn Method) {
    let norms = Sandwich::new(after, before);
    let (y, h, saved) = norms.forward_train(&o.x, &o.r).unwrap();
    let (v, of_after) = (&after).forward_train(&o.x).unwrap();
    let sum_of = sum(device, &v, &o.r);
    let (expected, of_before) = (&before).forward_train(&sum_of).unwrap();
    assert_eq!(bits(&h), bits(&sum_of), "{what}: hidden");
    assert_eq!(bits(&y), bits(&expected), "{what}: output");
    assert_eq!(bits(&saved.after), bits(of_after.statistics().unwrap()), "{what}: statistics after");
    assert_eq!(bits(&saved.before), bits(of_before.statistics().unwrap()), "{what}: statistics before");
    let (again, hidden) = norms.forward(&o.x, &o.r).unwrap();
    assert_eq!((bits(&again), bits(&hidden)), (bits(&y), bits(&h)), "{what}: without statistics");

    let outer = (&before).backward(&o.dy, &sum_of, &of_before).unwrap();
    let total = sum(device, &outer.input, &o.dh);
    let inner = (&after).backward(&total, &o.x, &of_after).unwrap();
    let from_residual = norms.backward(&o.dy, Some(&o.dh), &o.x, &o.r, &saved).unwrap();
    let from_hidden = norms.backward_of_hidden(&o.dy, Some(&o.dh), &o.x, &h, &saved).unwrap();
    for (from, grads) in [("residual", from_residual), ("hidden", from_hidden)] {
        let SandwichGrads { input, residual, after_weight, after_bias, before_weight, before_bias } = grads;
        let some = |tensor: &Option<DeviceTensor>| bits(tensor.as_ref().unwrap());
        assert_eq!(bits(&residual), bits(&total), "{what} from {from}: residual");
        assert_eq!(bits(&input), bits(&inner.input), "{what} from {from}: input");
        assert_eq!(some(&after_weight), some(&inner.weight), "{what} from {from}: weight after");
        assert_eq!(some(&after_bias), some(&inner.bias), "{what} from {from}: bias after");
        assert_eq!(some(&before_weight), some(&outer.weight), "{what} from {from}: weight before");
        assert_eq!(some(&before_bias), some(&outer.bias), "{what} from {from}: bias before");
    }
    let alone = norms.backward(&o.dy, None, &o.x, &o.r, &saved).unwrap();
    assert_eq!(bits(&alone.residual), bits(&outer.input), "{what}: without a gradient of the sum");
}

/// Where nothing is rounded in between, norms, statistics and all gradients are bit for bit those of two passes.
#[test]
fn one_pass_gives_the_bits_of_two() {
    for device in common::devices() {
        for dtype in common::dtypes(&device).filter(|&dtype| dtype == dtype.compute()) {
            let shapes = [&[37, 200][..], &[300, 24], &[3, 4100], &[2, 3, 515], &[70, 1]];
            for (index, shape) in shapes.into_iter().enumerate() {
                let cols = *shape.last().unwrap();
                let o = Operands::new(&device, shape, dtype);
                let [w2, b2, w1, b1] = &o.parameters;
                let (after, before) = (rms(cols, [w2, b2]).weight_offset(1.0), rms(cols, [w1, b1]));
                let outside = rms(cols, [w2, b2]).eps(0.1).eps_position(EpsPosition::Outside).partial(0.5);
                let (layer_after, layer_before) = (layer(cols, [w2, b2]), layer(cols, [w1, b1]));
                let kinds: [(&str, &dyn Method, &dyn Method); 3] = [
                    ("layer, rms", &layer_after, &before),
                    ("rms outside, layer", &outside, &layer_before),
                    ("rms, rms", &after, &before),
                ];
                // A software adapter takes seconds to compile a shader: there, one kind of each shape.
                let is_run = |at: usize| device.backend() != "wgpu" || at == index % 3;
                for (at, (kind, after, before)) in kinds.into_iter().enumerate() {
                    let is_partial = at == 1;
                    if is_run(at) && (cols > 1 || !is_partial) {
                        let what = format!("{} {dtype} {shape:?} {kind}", device.backend());
                        compare(&what, &device, &o, after, before);
                    }
                }
            }
        }
    }
}

/// The squared distance of a result from that of float64.
fn distance(found: &DeviceTensor, exact: &DeviceTensor) -> f64 {
    numbers(found).iter().zip(numbers(exact)).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// In 16 bits the sum and what is added to it are not rounded on the way: the input of the next sublayer, the stream and the
/// gradients are nearer to the exact ones than those of two passes.
#[test]
fn one_pass_is_nearer_than_two() {
    for device in common::devices() {
        for dtype in [DType::F16, DType::BF16] {
            let shape = [37, 200];
            let o = Operands::new(&device, &shape, dtype);
            let widest = if device.backend() == "wgpu" { DType::F32 } else { DType::F64 };
            let exact = o.of(&device, widest);
            let run = |o: &Operands| {
                let [w2, b2, w1, b1] = &o.parameters;
                let norms = Sandwich::new(rms(shape[1], [w2, b2]), rms(shape[1], [w1, b1]));
                let (y, h, saved) = norms.forward_train(&o.x, &o.r).unwrap();
                let grads = norms.backward(&o.dy, Some(&o.dh), &o.x, &o.r, &saved).unwrap();
                [y, h, grads.input, grads.residual]
            };
            let (fused, exact) = (run(&o), run(&exact));
            let [w2, b2, w1, b1] = &o.parameters;
            let (after, before) = (rms(shape[1], [w2, b2]), rms(shape[1], [w1, b1]));
            // As two calls: the norm with its residual after it, then the other norm.
            let (h, of_after) = after.clone().output_residual(&o.r).forward_train(&o.x).unwrap();
            let (y, of_before) = before.forward_train(&h).unwrap();
            let outer = before.clone().of_hidden(1.0, 1.0);
            let outer = outer.backward_hidden(&o.dy, Some(&o.dh), &h, &of_before).unwrap();
            let inner = after.backward(&outer.input, &o.x, &of_after).unwrap();
            let parts = [y, h, inner.input, outer.input];
            // The stream and the residual's gradient are rounded once either way, the latter from a nearer norm.
            for (index, most) in [0.8, 1.0, 0.4, 1.0].into_iter().enumerate() {
                let [fused, parts] = [&fused, &parts].map(|all| distance(&all[index], &exact[index]));
                assert!(fused <= most * parts, "{dtype} result {index}: {fused:e} and {parts:e}");
            }
        }
    }
}

/// A result in 16 bits is that of float32 operands of the same numbers, rounded once: nothing on the way is rounded.
#[test]
fn results_in_16_bits_are_rounded_once() {
    for device in common::devices() {
        for dtype in [DType::F16, DType::BF16] {
            for shape in [[37, 200], [5, 4100]] {
                let o = Operands::new(&device, &shape, dtype);
                let in_float32 = o.of(&device, DType::F32);
                let run = |o: &Operands| {
                    let [w2, b2, w1, b1] = &o.parameters;
                    let norms = Sandwich::new(layer(shape[1], [w2, b2]), rms(shape[1], [w1, b1]));
                    let (y, h, saved) = norms.forward_train(&o.x, &o.r).unwrap();
                    let grads = norms.backward(&o.dy, Some(&o.dh), &o.x, &o.r, &saved).unwrap();
                    let of_parameters =
                        [grads.after_weight, grads.after_bias, grads.before_weight, grads.before_bias];
                    let [a, b, c, d] = of_parameters.map(Option::unwrap);
                    [y, h, grads.input, grads.residual, a, b, c, d, saved.after, saved.before]
                };
                for (index, (found, expected)) in run(&o).iter().zip(&run(&in_float32)).enumerate() {
                    let (found, expected) = (found.read().unwrap(), expected.read().unwrap());
                    let rounded =
                        HostTensor::from_f64(&expected.to_f64(), expected.shape(), found.dtype()).unwrap();
                    let count =
                        found.to_f64().iter().zip(rounded.to_f64()).filter(|(a, b)| **a != *b).count();
                    assert_eq!(count, 0, "{dtype} {shape:?} result {index}");
                }
            }
        }
    }
}

/// Where the stream takes the place of the residual, the output that of the input, and gradients those of gradients.
#[test]
fn results_may_take_the_place_of_operands() {
    let devices = common::devices();
    let all = devices.iter().flat_map(|device| common::dtypes(device).map(move |dtype| (device, dtype)));
    for (device, dtype) in all {
        let (stream, shape) = (device.stream(), [37, 200]);
        let o = Operands::new(device, &shape, dtype);
        let Operands { x, r, dy, dh, .. } = &o;
        let norms = Sandwich::new(RmsNorm::new([200]).eps(1e-6), LayerNorm::new([200]));
        let (y, h, saved) = norms.forward_train(x, r).unwrap();
        let grads = norms.backward(dy, Some(dh), x, r, &saved).unwrap();
        let copy = |tensor: &DeviceTensor| device.upload(&tensor.read().unwrap()).unwrap();

        let (mut x_to_y, mut r_to_h) = (copy(x), copy(r));
        {
            let (mut x_memory, mut r_memory) = (x_to_y.view_mut().unwrap(), r_to_h.view_mut().unwrap());
            let ((from, mut to), (residual, mut hidden)) = (x_memory.in_place(), r_memory.in_place());
            let none = SandwichStatistics::default();
            norms.forward_into(&from, &residual, &mut to, Some(&mut hidden), none, &stream).unwrap();
        }
        assert_eq!((bits(&x_to_y), bits(&r_to_h)), (bits(&y), bits(&h)), "{dtype}");

        let (mut dy_to_dx, mut dh_to_dr) = (copy(dy), copy(dh));
        {
            let (mut dy_memory, mut dh_memory) = (dy_to_dx.view_mut().unwrap(), dh_to_dr.view_mut().unwrap());
            let ((of_y, to_x), (of_h, to_r)) = (dy_memory.in_place(), dh_memory.in_place());
            let targets = SandwichGradients { input: Some(to_x), residual: Some(to_r), ..Default::default() };
            norms
                .backward_into(
                    &of_y,
                    Some(&of_h),
                    &x.view().unwrap(),
                    HiddenFrom::Residual(&r.view().unwrap()),
                    [&saved.after.view().unwrap(), &saved.before.view().unwrap()],
                    targets,
                    &mut Workspace::new(),
                    &stream,
                )
                .unwrap();
        }
        let expected = (bits(&grads.input), bits(&grads.residual));
        assert_eq!((bits(&dy_to_dx), bits(&dh_to_dr)), expected, "{dtype}");
    }
}

/// Each gradient is what it is whichever others are asked for.
#[test]
fn a_gradient_does_not_depend_on_which_others_are_wanted() {
    for device in common::devices() {
        // A kernel of the host driver takes a while to compile: there, each alone, and all but one.
        let is_some = |wanted: &u32| device.backend() == "cpu" || [1, 5].contains(&wanted.count_ones());
        for dtype in [DType::F32, DType::BF16] {
            compare_wanted(&device, dtype, (0..1 << 6).filter(is_some));
        }
    }
}

fn compare_wanted(device: &Device, dtype: DType, all_wanted: impl Iterator<Item = u32>) {
    let o = Operands::new(device, &[300, 70], dtype);
    let [w2, b2, w1, b1] = &o.parameters;
    let norms = Sandwich::new(layer(70, [w2, b2]), rms(70, [w1, b1]));
    let (_, _, saved) = norms.forward_train(&o.x, &o.r).unwrap();
    let all = norms.backward(&o.dy, Some(&o.dh), &o.x, &o.r, &saved).unwrap();
    let expected = [
        Some(all.input),
        Some(all.residual),
        all.after_weight,
        all.after_bias,
        all.before_weight,
        all.before_bias,
    ]
    .map(Option::unwrap);
    for wanted in all_wanted {
        let mut found = expected.each_ref().map(|tensor| {
            let host = tensor.read().unwrap();
            device.upload(&HostTensor::zeros(host.shape(), host.dtype()).unwrap()).unwrap()
        });
        let mut views = found.each_mut().map(|tensor| Some(tensor.view_mut().unwrap()));
        let mut take = |index: usize| views[index].take().filter(|_| wanted >> index & 1 == 1);
        let grads = SandwichGradients {
            input: take(0),
            residual: take(1),
            after_weight: take(2),
            after_bias: take(3),
            before_weight: take(4),
            before_bias: take(5),
        };
        norms
            .backward_into(
                &o.dy.view().unwrap(),
                Some(&o.dh.view().unwrap()),
                &o.x.view().unwrap(),
                HiddenFrom::Residual(&o.r.view().unwrap()),
                [&saved.after.view().unwrap(), &saved.before.view().unwrap()],
                grads,
                &mut Workspace::new(),
                &device.stream(),
            )
            .unwrap();
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            if wanted >> index & 1 == 1 {
                assert_eq!(bits(found), bits(expected), "gradient {index} of {wanted:06b}");
            } else {
                assert!(numbers(found).iter().all(|&x| x == 0.0), "gradient {index} of {wanted:06b}");
            }
        }
    }
}

/// Normalized values were rounded to the dtype of the sublayer's output, which that of the stream does not say.
#[test]
fn what_a_backend_lacks_it_refuses() {
    for device in common::devices() {
        let x = device.upload(&tensor(&[3, 4], 0.2, DType::F32)).unwrap();
        let narrow = device.upload(&tensor(&[3, 4], 0.2, DType::BF16)).unwrap();
        let norms = Sandwich::new(RmsNorm::new([4]), RmsNorm::new([4]).cast(Cast::Llama));
        let (y, h, saved) = norms.forward_train(&narrow, &x).unwrap();
        assert!(norms.backward(&y, Some(&h), &narrow, &x, &saved).is_ok());
        let of_hidden = norms.backward_of_hidden(&y, Some(&h), &narrow, &h, &saved);
        let is_refused = matches!(of_hidden, Err(Error::Unsupported { .. }));
        assert_eq!(is_refused, !["cpu", "wgpu"].contains(&device.backend()), "{of_hidden:?}");
    }
}
