//! The branch of a residual, shifted and scaled: the one pass gives the bits of its parts, and refuses what makes no sense.

mod common;

use common::named;
use normkit::norm::{Quantized, steps};
use normkit::prelude::*;
use normkit::spec::{Dropout, Scaling};
use normkit::tensor::{DType, Layout};
use normkit::{DeviceTensor, Gradients, Method};

fn host(shape: &[usize], phase: f64, dtype: DType) -> HostTensor {
    let len = shape.iter().product();
    let values: Vec<f64> = (0..len).map(|i| 2.0 * common::wave(i, phase)).collect();
    HostTensor::from_f64(&values, shape, dtype).unwrap()
}

fn bits(tensor: &DeviceTensor) -> Vec<u64> {
    tensor.read().unwrap().to_f64().into_iter().map(f64::to_bits).collect()
}

/// `f` of each element and of its number along axis `axis`, rounded to the tensor's dtype: exact before that where it is one
/// operation.
fn map(tensor: &DeviceTensor, axis: usize, f: impl Fn(f64, usize) -> f64) -> DeviceTensor {
    let tensor_on_host = tensor.read().unwrap();
    let shape = tensor_on_host.shape();
    let (inside, size): (usize, usize) = (shape[axis + 1..].iter().product(), shape[axis]);
    let values: Vec<f64> =
        tensor_on_host.to_f64().iter().enumerate().map(|(i, &x)| f(x, i / inside % size)).collect();
    let mapped = HostTensor::from_f64(&values, shape, tensor_on_host.dtype()).unwrap();
    tensor.device().upload(&mapped).unwrap()
}

/// Element by element, `f` of two tensors.
fn zip(a: &DeviceTensor, b: &DeviceTensor, f: impl Fn(f64, f64) -> f64) -> DeviceTensor {
    let (a_on_host, b) = (a.read().unwrap(), b.read().unwrap().to_f64());
    let values: Vec<f64> = a_on_host.to_f64().iter().zip(b).map(|(&a, b)| f(a, b)).collect();
    let zipped = HostTensor::from_f64(&values, a_on_host.shape(), a_on_host.dtype()).unwrap();
    a.device().upload(&zipped).unwrap()
}

/// The sum over rows, in the order of a bias's gradient: that of the norm when the output has these gradients.
fn summed(norm: &impl Method, terms: &DeviceTensor) -> Vec<u64> {
    let (_, saved) = norm.forward_train(terms).unwrap();
    bits(&norm.backward(terms, terms, &saved).unwrap().bias.unwrap())
}

/// Where every step is rounded to float32 or float64, the pass gives the bits of its steps: the shifted and scaled input as a
/// tensor, and sums in the order of a bias's gradient.
#[test]
fn a_branch_gives_the_bits_of_its_parts() {
    // Columns, some of them with chunks of three row leaves, whose order shows; channels that are rows, and that are part of one.
    for (shape, axis) in
        [(&[37, 200][..], 1), (&[2, 4099], 1), (&[8300, 6], 1), (&[9, 6, 35], 1), (&[3, 4, 70], 1)]
    {
        // A software adapter compiles for seconds: one of each kind.
        let is_taken = |device: &Device| device.backend() != "wgpu" || [37, 3].contains(&shape[0]);
        for device in common::devices().into_iter().filter(is_taken) {
            for dtype in common::dtypes(&device).filter(|&dtype| dtype == dtype.compute()) {
                let up = |shape: &[usize], phase| device.upload(&host(shape, phase, dtype)).unwrap();
                let [x, r, g, more] = [0.2, 1.4, 2.2, 3.1].map(|phase| up(shape, phase));
                let size = &shape[axis..axis + 1];
                let [w, b, c, s] = [0.9, 0.1, 0.5, 1.3].map(|phase| up(size, phase));
                let (of_c, of_s) = (c.read().unwrap().to_f64(), s.read().unwrap().to_f64());
                let u = map(&x, axis, |x, col| x + of_c[col]);
                let v = map(&u, axis, |u, col| of_s[col] * u);
                macro_rules! check {
                    ($norm:expr) => {{
                        let plain = $norm.weight(&w).bias(&b);
                        let fused = plain.clone().residual(&r).branch_bias(&c).branch_scale(&s);
                        let what = format!("{device:?} {shape:?} {dtype}");
                        let parts = plain.clone().residual(&r);
                        let (y, h, saved) = fused.forward_hidden(&x).unwrap();
                        let (expected, sum, of_parts) = parts.forward_hidden(&v).unwrap();
                        assert_eq!((bits(&y), bits(&h)), (bits(&expected), bits(&sum)), "{what}");

                        let grads = fused.backward_hidden(&g, Some(&more), &x, &saved).unwrap();
                        let from_parts = parts.backward_hidden(&g, Some(&more), &v, &of_parts).unwrap();
                        let d = from_parts.input;
                        let dx = map(&d, axis, |d, col| of_s[col] * d);
                        assert_eq!(bits(&grads.input), bits(&dx), "{what}");
                        assert_eq!(bits(&grads.before.unwrap()), bits(&from_parts.before.unwrap()), "{what}");
                        let (dw, db) = (from_parts.weight.unwrap(), from_parts.bias.unwrap());
                        assert_eq!(bits(&grads.weight.unwrap()), bits(&dw), "{what}");
                        assert_eq!(bits(&grads.bias.unwrap()), bits(&db), "{what}");
                        assert_eq!(bits(&grads.branch_bias.unwrap()), summed(&plain, &dx), "{what}");
                        let terms = zip(&d, &u, |d, u| d * u);
                        assert_eq!(bits(&grads.branch_scale.unwrap()), summed(&plain, &terms), "{what}");

                        // The hidden value in the place of input and residual: all but the scale's gradient.
                        let alone = plain.clone().of_hidden(1.0, 1.0).branch_bias(&c);
                        let grads = alone.backward_hidden(&g, Some(&more), &h, &saved).unwrap();
                        assert_eq!(bits(&grads.input), bits(&d), "{what}");
                        assert_eq!(bits(&grads.branch_bias.unwrap()), summed(&plain, &d), "{what}");
                    }};
                }
                match shape {
                    [_, cols] => check!(LayerNorm::new([*cols])),
                    [9, ..] => check!(BatchNorm::new(shape[1])),
                    _ => check!(GroupNorm::new(2, shape[1])),
                }
            }
        }
    }
}

/// A gate of each sample, as of a diffusion transformer's blocks, and one of each token.
#[test]
fn a_scale_of_each_sample_is_one_that_varies_along_other_axes() {
    let shape = [3, 5, 8];
    for device in common::devices() {
        let up = |shape: &[usize], phase| device.upload(&host(shape, phase, DType::F32)).unwrap();
        let [x, r, g] = [0.2, 1.4, 2.2].map(|phase| up(&shape, phase));
        for of_scale in [[3, 1, 8], [3, 5, 1], [1, 1, 8]] {
            let s = up(&of_scale, 0.7);
            let scale = s.read().unwrap().to_f64();
            let at = |i: usize| {
                let index = [i / 40, i / 8 % 5, i % 8];
                (0..3).fold(0, |at, axis| at * of_scale[axis] + index[axis].min(of_scale[axis] - 1))
            };
            let repeated: Vec<f64> = (0..120).map(|i| scale[at(i)]).collect();
            let repeated =
                device.upload(&HostTensor::from_f64(&repeated, &shape, DType::F32).unwrap()).unwrap();
            let v = zip(&x, &repeated, |x, s| s * x);
            let norm = LayerNorm::new([8]).broadcast_parameters().residual(&r);
            let (y, h, saved) = norm.clone().branch_scale(&s).forward_hidden(&x).unwrap();
            let (expected, sum, of_parts) = norm.forward_hidden(&v).unwrap();
            assert_eq!((bits(&y), bits(&h)), (bits(&expected), bits(&sum)), "{device:?} {of_scale:?}");
            let grads = norm.clone().branch_scale(&s).backward(&g, &x, &saved).unwrap();
            let d = norm.backward(&g, &v, &of_parts).unwrap().input;
            assert_eq!(
                bits(&grads.input),
                bits(&zip(&d, &repeated, |d, s| s * d)),
                "{device:?} {of_scale:?}"
            );
            let mut sums = vec![0.0; scale.len()];
            let terms = zip(&d, &x, |d, x| d * x).read().unwrap().to_f64();
            terms.iter().enumerate().for_each(|(i, term)| sums[at(i)] += term);
            let found = grads.branch_scale.unwrap().read().unwrap();
            assert_eq!(found.shape(), of_scale);
            for (found, sum) in found.to_f64().into_iter().zip(sums) {
                assert!((found - sum).abs() < 1e-5, "{device:?} {of_scale:?}: {found} {sum}");
            }
        }
    }
}

/// What dropout leaves out may be anything, and nothing of it is in any result.
#[test]
fn elements_that_dropout_leaves_out_are_not_in_the_gradients() {
    let shape = [37, 200];
    let dropout = Dropout { probability: 0.4, seed: 11, offset: 2 };
    let Dropout { probability, seed, offset } = dropout;
    for device in common::devices() {
        let up = |tensor: &HostTensor| device.upload(tensor).unwrap();
        let values = host(&shape, 0.2, DType::F32);
        let with = |left_out: f64| {
            let each = values.to_f64().into_iter().enumerate();
            let each: Vec<f64> =
                each.map(|(i, x)| if dropout.keeps(i as u64) { x } else { left_out }).collect();
            up(&HostTensor::from_f64(&each, &shape, DType::F32).unwrap())
        };
        let [r, g] = [1.4, 2.2].map(|phase| up(&host(&shape, phase, DType::F32)));
        let [c, s] = [0.5, 1.3].map(|phase| up(&host(&shape[1..], phase, DType::F32)));
        let norm = RmsNorm::new([200]).residual(&r).branch_bias(&c).branch_scale(&s);
        let norm = norm.dropout(probability, seed, offset);
        let run = |x: DeviceTensor| {
            let (y, h, saved) = norm.forward_hidden(&x).unwrap();
            let grads = norm.backward_hidden(&g, Some(&g), &x, &saved).unwrap();
            let of_branch = [grads.branch_bias, grads.branch_scale].map(|gradient| bits(&gradient.unwrap()));
            (bits(&y), bits(&h), bits(&grads.input), of_branch)
        };
        let (zeros, anything) = (run(with(0.0)), run(with(f64::NAN)));
        assert_eq!(zeros, anything, "{device:?}");
        let zero = |bits: u64| f64::from_bits(bits) == 0.0;
        assert!((0..shape[0] * shape[1]).all(|i| dropout.keeps(i as u64) || zero(zeros.2[i])), "{device:?}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let zeros = |shape: &[usize], dtype| HostTensor::zeros(shape, dtype).unwrap();
    let (x, c) = (zeros(&[3, 4], DType::F32), zeros(&[4], DType::F32));
    let norm = || RmsNorm::new([4]);
    assert_eq!(named(norm().branch_bias(&c).forward(&x)), "branch_bias");
    assert_eq!(named(norm().branch_scale(&c).forward(&x)), "branch_scale");
    assert_eq!(named(norm().input_gate(&x).branch_scale(&c).forward(&x)), "branch_scale");
    for wrong in [zeros(&[3], DType::F32), zeros(&[3, 4], DType::F32), zeros(&[4], DType::F64)] {
        assert_eq!(named(norm().residual(&x).branch_bias(&wrong).forward(&x)), "branch_bias");
        assert_eq!(named(norm().residual(&x).branch_scale(&wrong).forward(&x)), "branch_scale");
        let (_, saved) = norm().residual(&x).forward_train(&x).unwrap();
        assert_eq!(named(norm().residual(&x).branch_scale(&wrong).backward(&x, &x, &saved)), "branch_scale");
    }
    // A view that is bound, but not by a builder call.
    let of_both = norm().residual(&x).branch_scale(&c);
    let (_, saved) = of_both.forward_train(&x).unwrap();
    let of_hidden = norm().of_hidden(1.0, 1.0).branch_scale(&c);
    assert_eq!(named(of_hidden.backward(&x, &x, &saved)), "grad_branch_scale");
    let saved = saved.statistics().unwrap();
    let (stream, mut workspace) = (Device::Cpu.stream(), Workspace::new());
    let (view, statistics) = (x.view().unwrap(), saved.view().unwrap());
    // The input's gradient alone does not need the input.
    let mut dx = zeros(&[3, 4], DType::F32);
    let grads = Gradients { input: Some(dx.view_mut().unwrap()), ..Gradients::default() };
    of_hidden.backward_into(&view, &view, Some(&statistics), grads, &mut workspace, &stream).unwrap();
    // Gradients of what is not bound, and of the branch without all of the sums.
    let mut target = zeros(&[4], DType::F32);
    let grads = Gradients { branch_bias: Some(target.view_mut().unwrap()), ..Gradients::default() };
    let result = of_both.backward_into(&view, &view, Some(&statistics), grads, &mut workspace, &stream);
    assert_eq!(named(result), "grad_branch_bias");
    let grads = Gradients { branch_scale: Some(target.view_mut().unwrap()), ..Gradients::default() };
    let mut sums = zeros(&[3, normkit::spec::SUMS], DType::F32);
    let mut sums = sums.view_mut().unwrap();
    let result = steps::backward_sums_into(
        &of_both,
        &view,
        &view,
        &statistics,
        &mut sums,
        grads,
        &mut workspace,
        &stream,
    );
    assert_eq!(named(result), "grad_branch_scale");
    // The gradient of the scale over the scale.
    let mut own = zeros(&[4], DType::F32);
    let mut memory = own.view_mut().unwrap();
    let (scale, to) = memory.in_place();
    let overlapping = norm().residual(&x).branch_scale_view(scale);
    let grads = Gradients { branch_scale: Some(to), ..Gradients::default() };
    let result = overlapping.backward_into(&view, &view, Some(&statistics), grads, &mut workspace, &stream);
    assert_eq!(named(result), "grad_branch_scale");
}

/// As many bindings as every WebGPU device has: the sum is written by a launch of its own, after the output where it takes the place of
/// what that is made of.
#[cfg(feature = "wgpu")]
#[test]
fn the_usual_sum_fits_few_bindings() {
    use normkit::backend::wgpu::{Options, WgpuDevice};
    let few = Options { max_buffers: Some(8), ..Options::default() };
    let device = Device::Wgpu(WgpuDevice::with_options(&few).expect("an adapter"));
    let [x, r] = [0.2, 1.4].map(|phase| host(&[9, 70], phase, DType::F32));
    let [w, b, c, s] = [0.9, 0.1, 0.5, 1.3].map(|phase| host(&[70], phase, DType::F32));
    let expected = LayerNorm::new([70]).weight(&w).bias(&b).residual(&r).branch_bias(&c).branch_scale(&s);
    let (y, h, saved) = expected.forward_hidden(&x).unwrap();
    let of_rows = saved.statistics().unwrap().read().unwrap().to_f64();
    let expected = [y.to_f64(), h.to_f64(), of_rows];
    {
        let [x, r, w, b, c, s] = [&x, &r, &w, &b, &c, &s].map(|x| device.upload(x).unwrap());
        let norm = LayerNorm::new([70]).weight(&w).bias(&b).branch_bias(&c).branch_scale(&s).residual(&r);
        let (y, h, saved) = norm.forward_hidden(&x).unwrap();
        let found = [&y, &h, saved.statistics().unwrap()].map(|x| x.read().unwrap().to_f64());
        assert_eq!(found, expected);
    }
    // Backward, with the gradient that the sum has of its own.
    let gradients = |grads: normkit::Grads<DeviceTensor>| {
        let normkit::Grads { input, weight, bias, before, branch_bias, branch_scale, .. } = grads;
        let rest = [weight, bias, before, branch_bias, branch_scale].map(Option::unwrap);
        [vec![bits(&input)], rest.iter().map(bits).collect()].concat()
    };
    let [g, more] = [2.2, 3.1].map(|phase| host(&[9, 70], phase, DType::F32));
    let on = |device: &Device| {
        let [x, r, g, more] = [&x, &r, &g, &more].map(|x| device.upload(x).unwrap());
        let [w, b, c, s] = [&w, &b, &c, &s].map(|x| device.upload(x).unwrap());
        let norm = LayerNorm::new([70]).weight(&w).bias(&b).branch_bias(&c).branch_scale(&s).residual(&r);
        let (_, saved) = norm.forward_train(&x).unwrap();
        gradients(norm.backward_hidden(&g, Some(&more), &x, &saved).unwrap())
    };
    assert_eq!(on(&device), on(&Device::Cpu));
    // In the place of the residual, and of the input.
    let [x, r, w, b, c, s] = [&x, &r, &w, &b, &c, &s].map(|x| device.upload(x).unwrap());
    let plain = LayerNorm::new([70]).weight(&w).bias(&b).branch_bias(&c).branch_scale(&s);
    let [mut x_and_h, mut r_and_y] = [&x, &r].map(|x| device.upload(&x.read().unwrap()).unwrap());
    let mut statistics = device.zeros(&[9, normkit::spec::STATISTICS], DType::F32).unwrap();
    let mut y = device.zeros(&[9, 70], DType::F32).unwrap();
    {
        let stream = device.stream();
        let (mut first, mut second) = (x_and_h.view_mut().unwrap(), r_and_y.view_mut().unwrap());
        let ((input, mut over_input), (before, mut over_before)) = (first.in_place(), second.in_place());
        let norm = plain.clone().residual_view(before);
        let mut of_rows = statistics.view_mut().unwrap();
        let result = norm.forward_hidden_into(
            &input,
            &mut over_before,
            Some(&mut over_input),
            Some(&mut of_rows),
            &stream,
        );
        assert!(matches!(result, Err(normkit::Error::Limit { .. })), "{result:?}");
        let mut to = y.view_mut().unwrap();
        norm.forward_hidden_into(&input, &mut to, Some(&mut over_before), Some(&mut of_rows), &stream)
            .unwrap();
    }
    let found = [&y, &r_and_y, &statistics].map(|x| x.read().unwrap().to_f64());
    assert_eq!(found, expected);
}

/// No sums of a branch's own: everything in one pass, of copies of what shifts and scales it.
#[cfg(feature = "wgpu")]
#[test]
fn constants_of_a_branch_fit_twelve_bindings() {
    use normkit::backend::wgpu::{Options, WgpuDevice};
    let some = Options { max_buffers: Some(12), ..Options::default() };
    let some = Device::Wgpu(WgpuDevice::with_options(&some).expect("an adapter"));
    let [expected, found] = [Device::Cpu, some].map(|device| {
        let up = |shape: &[usize], phase| device.upload(&host(shape, phase, DType::F32)).unwrap();
        let [x, r, g] = [0.2, 1.4, 2.2].map(|phase| up(&[9, 64], phase));
        let [w, c, s] = [0.9, 0.5, 1.3].map(|phase| up(&[64], phase));
        let norm = RmsNorm::new([64]).weight(&w).branch_bias(&c).branch_scale(&s).residual(&r);
        let (_, saved) = norm.forward_train(&x).unwrap();
        let statistics = saved.statistics().unwrap().view().unwrap();
        let [mut dx, mut dw] = [&[9, 64][..], &[64]].map(|shape| device.zeros(shape, DType::F32).unwrap());
        let grads = Gradients {
            input: Some(dx.view_mut().unwrap()),
            weight: Some(dw.view_mut().unwrap()),
            ..Gradients::default()
        };
        let (g, x) = (g.view().unwrap(), x.view().unwrap());
        let (mut workspace, stream) = (Workspace::new(), device.stream());
        norm.backward_into(&g, &x, Some(&statistics), grads, &mut workspace, &stream).unwrap();
        [bits(&dx), bits(&dw)]
    });
    assert_eq!(found, expected);
}

/// Codes, and statistics in steps, are those of the shifted and scaled input, too.
#[test]
fn codes_and_steps_see_the_branch() {
    for device in common::devices() {
        let up = |shape: &[usize], phase| device.upload(&host(shape, phase, DType::F32)).unwrap();
        let [x, r] = [0.2, 1.4].map(|phase| up(&[5, 300], phase));
        let [c, s] = [0.5, 1.3].map(|phase| up(&[300], phase));
        let (of_c, of_s) = (c.read().unwrap().to_f64(), s.read().unwrap().to_f64());
        let v = map(&map(&x, 1, |x, col| x + of_c[col]), 1, |u, col| of_s[col] * u);
        let plain = LayerNorm::new([300]).residual(&r);
        let fused = plain.clone().branch_bias(&c).branch_scale(&s);
        let codes = |norm, x| Quantized::new(norm, DType::I8, Scaling::Row).forward(x).unwrap();
        let (found, expected) = (codes(fused.clone(), &x), codes(plain.clone(), &v));
        assert_eq!(bits(&found.codes), bits(&expected.codes), "{device:?}");
        assert_eq!(bits(&found.scales.unwrap()), bits(&expected.scales.unwrap()), "{device:?}");
        let (found, expected) = (steps::moments(&fused, &x).unwrap(), steps::moments(&plain, &v).unwrap());
        assert_eq!(bits(&found), bits(&expected), "{device:?}");
    }
}

/// Every other number of a longer vector.
#[test]
fn operands_may_have_any_strides() {
    let [x, r] = [0.2, 1.4].map(|phase| host(&[5, 40], phase, DType::F32));
    let (long, short): (Vec<f32>, Vec<f32>) = (0..80).map(|i| (i as f32 * 0.1, i as f32 * 0.2)).unzip();
    let own = HostTensor::from_vec(short[..40].to_vec(), &[40]).unwrap();
    let every_other =
        normkit::tensor::View::strided(&long, Layout::strided(&[40], &[2], 0).unwrap()).unwrap();
    let norm = LayerNorm::new([40]).residual(&r);
    let expected = norm.clone().branch_scale(&own).forward(&x).unwrap();
    let found = norm.branch_scale_view(every_other).forward(&x).unwrap();
    assert_eq!(found, expected);
}
