//! The WebGPU backend's own paths: every shader compiles for every target, and each path that a device or a layout
//! may force computes the same thing as the formula in float64.
#![cfg(feature = "wgpu")]

#[path = "common/adapter.rs"]
mod adapter;

use adapter::wgpu_device;
use normkit::backend::wgpu::*;
use normkit::prelude::*;
use normkit::tensor::{DType, Layout, View, ViewMut};
use normkit::{Error, Gradients, Stream};

/// Numbers between -3 and 3 that differ between calls.
fn numbers(len: usize, seed: usize) -> Vec<f64> {
    (0..len).map(|i| f64::from(((i + 1) * (2 * seed + 7919) % 6007) as f32 / 1001.0 - 3.0)).collect()
}

fn host(values: &[f64], shape: &[usize], dtype: DType) -> HostTensor {
    HostTensor::from_f64(values, shape, dtype).unwrap()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(1e-30, |m, x| m.max(x.abs()))
}

/// Fails if any two numbers are further apart than `distance`, or one is NaN.
#[track_caller]
fn close_to(what: &str, found: &[f64], wanted: &[f64], distance: f64) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(wanted).enumerate() {
        let off = (a - b).abs();
        assert!(
            off <= distance,
            "{what}: element {i} is {a:e} for {b:e}, off by {off:e} where {distance:e} is allowed"
        );
    }
}

/// As `close_to`, with the distance relative to the largest number.
#[track_caller]
fn close(what: &str, found: &[f64], wanted: &[f64], tolerance: f64) {
    close_to(what, found, wanted, tolerance * largest(wanted));
}

/// LayerNorm and its gradients by the formula: y, grad_input, grad_weight, grad_bias.
fn layer_norm(x: &[f64], g: &[f64], w: &[f64], b: &[f64]) -> [Vec<f64>; 4] {
    let n = w.len();
    let (mut y, mut dx, mut dw, mut db) = (vec![], vec![], vec![0.0; n], vec![0.0; n]);
    for (x, g) in x.chunks(n).zip(g.chunks(n)) {
        let mean = x.iter().sum::<f64>() / n as f64;
        let rstd = 1.0 / (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64 + 1e-5).sqrt();
        let hat: Vec<f64> = x.iter().map(|x| (x - mean) * rstd).collect();
        let ghat: Vec<f64> = g.iter().zip(w).map(|(g, w)| g * w).collect();
        let c1 = ghat.iter().sum::<f64>() / n as f64;
        let c2 = ghat.iter().zip(&hat).map(|(g, h)| g * h).sum::<f64>() / n as f64;
        for i in 0..n {
            y.push(hat[i] * w[i] + b[i]);
            dx.push(rstd * (ghat[i] - c1 - hat[i] * c2));
            dw[i] += g[i] * hat[i];
            db[i] += g[i];
        }
    }
    [y, dx, dw, db]
}

/// DyT and its gradients by the formula: y, grad_input, grad_weight, grad_bias, grad_alpha. Last the sum of the
/// magnitudes that grad_alpha is the sum of.
fn dyt(x: &[f64], g: &[f64], w: &[f64], b: &[f64], alpha: f64) -> ([Vec<f64>; 5], f64) {
    let n = w.len();
    let mut magnitudes = 0.0;
    let (mut y, mut dx, mut dw, mut db, mut da) = (vec![], vec![], vec![0.0; n], vec![0.0; n], 0.0);
    for (i, (x, g)) in x.iter().zip(g).enumerate() {
        let (t, w, b) = ((alpha * x).tanh(), w[i % n], b[i % n]);
        let slope = (alpha * x).cosh().powi(-2);
        y.push(t * w + b);
        dx.push(g * w * alpha * slope);
        dw[i % n] += g * t;
        db[i % n] += g;
        da += g * w * x * slope;
        magnitudes += (g * w * x * slope).abs();
    }
    ([y, dx, dw, db, vec![da]], magnitudes)
}

/// Runs LayerNorm both ways on `device` and compares with the formula.
fn check_layer_norm(device: &WgpuDevice, overrides: Overrides, rows: usize, n: usize, dtype: DType) {
    let round = |v: Vec<f64>, shape: &[usize]| host(&v, shape, dtype);
    let (x, g) = (round(numbers(rows * n, 1), &[rows, n]), round(numbers(rows * n, 2), &[rows, n]));
    let (w, b) = (round(numbers(n, 3), &[n]), round(numbers(n, 4), &[n]));
    let wanted = layer_norm(&x.to_f64(), &g.to_f64(), &w.to_f64(), &b.to_f64());
    let up = |t: &HostTensor| device.upload(t).unwrap();
    let (x, g, w, b) = (up(&x), up(&g), up(&w), up(&b));
    let norm = LayerNorm::new([n]).weight(&w).bias(&b);
    let stream = Stream::Wgpu(device.stream().with_overrides(overrides).unwrap());
    let mut y = device.zeros(&[rows, n], dtype).unwrap();
    let mut statistics = device.zeros(&[rows, 4], DType::F32).unwrap();
    let mut s = statistics.view_mut().unwrap();
    norm.forward_into(&x.view().unwrap(), &mut y.view_mut().unwrap(), Some(&mut s), &stream).unwrap();
    let mut dx = device.zeros(&[rows, n], dtype).unwrap();
    let (mut dw, mut db) = (device.zeros(&[n], dtype).unwrap(), device.zeros(&[n], dtype).unwrap());
    let grads = Gradients {
        input: Some(dx.view_mut().unwrap()),
        weight: Some(dw.view_mut().unwrap()),
        bias: Some(db.view_mut().unwrap()),
        ..Gradients::default()
    };
    let (g, x, s) = (g.view().unwrap(), x.view().unwrap(), statistics.view().unwrap());
    norm.backward_into(&g, &x, Some(&s), grads, &mut Workspace::new(), &stream).unwrap();
    let tolerance = match dtype {
        DType::F32 => 2e-6,
        DType::F16 => 6e-4,
        _ => 5e-3,
    };
    for (what, found, wanted) in [
        ("y", &y, &wanted[0]),
        ("grad_input", &dx, &wanted[1]),
        ("grad_weight", &dw, &wanted[2]),
        ("grad_bias", &db, &wanted[3]),
    ] {
        let what = format!("{what} of {rows} x {n} {dtype} with {overrides:?}");
        close(&what, &found.read().unwrap().to_f64(), wanted, tolerance);
    }
}

#[test]
fn layer_norm_agrees_with_the_formula() {
    let device = wgpu_device();
    for (rows, n, dtype) in [
        (5, 64, DType::F32),
        (3, 1000, DType::F32),
        (40, 31, DType::F16),
        (19, 769, DType::BF16),
        (2, 9001, DType::F32),
        (1, 1, DType::F32),
    ] {
        check_layer_norm(&device, Overrides::default(), rows, n, dtype);
    }
}

#[test]
fn workgroup_reductions_agree_with_the_formula() {
    let device = WgpuDevice::with_options(&Options { subgroups: false, ..Options::default() }).unwrap();
    assert!(!device.info().subgroups);
    check_layer_norm(&device, Overrides::default(), 5, 64, DType::F32);
    check_layer_norm(&device, Overrides { group: Some(16), ..Overrides::default() }, 3, 5000, DType::F32);
}

fn fail<T>(shader: &Shader, stage: &str, reason: String) -> T {
    panic!("{} ({stage}): {reason}\n{}", shader.entry, shader.source)
}

#[test]
fn every_shader_is_valid_everywhere() {
    use naga::back::{hlsl, msl, spv};
    let all = shaders(false);
    assert!(all.len() > 1000);
    for shader in &all {
        let module = naga::front::wgsl::parse_str(&shader.source)
            .unwrap_or_else(|e| fail(shader, "parse", e.emit_to_string(&shader.source)));
        let mut capabilities = naga::valid::Capabilities::default();
        capabilities.set(naga::valid::Capabilities::SUBGROUP, shader.subgroups);
        let mut validator = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities);
        if shader.subgroups {
            validator.subgroup_stages(naga::valid::ShaderStages::COMPUTE);
            validator.subgroup_operations(naga::valid::SubgroupOperationSet::all());
        }
        let info = validator
            .validate(&module)
            .unwrap_or_else(|e| fail(shader, "validate", e.emit_to_string(&shader.source)));
        let options =
            msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..Default::default() };
        msl::write_string(&module, &info, &options, &Default::default())
            .unwrap_or_else(|e| fail(shader, "msl", e.to_string()));
        let options = hlsl::Options {
            shader_model: hlsl::ShaderModel::V6_0,
            fake_missing_bindings: true,
            ..Default::default()
        };
        let mut text = String::new();
        hlsl::Writer::new(&mut text, &options, &Default::default())
            .write(&module, &info, None)
            .unwrap_or_else(|e| fail(shader, "hlsl", e.to_string()));
        let options = spv::Options { lang_version: (1, 3), ..Default::default() };
        spv::write_vec(&module, &info, &options, None).unwrap_or_else(|e| fail(shader, "spv", e.to_string()));
    }
}

#[test]
fn browsers_get_directives_that_native_compilers_refuse() {
    let (native, browser) = (shaders(false), shaders(true));
    for (native, browser) in native.iter().zip(&browser) {
        let directives = browser.source.strip_suffix(&native.source).unwrap();
        assert_eq!(directives.contains("enable subgroups;"), native.subgroups);
        assert!(directives.lines().all(|line| line.ends_with(';')), "{directives}");
    }
    assert!(native.iter().any(|shader| shader.subgroups));
}

#[test]
fn dyt_agrees_with_the_formula() {
    let device = wgpu_device();
    for (rows, n, dtype, tolerance) in
        [(37, 200, DType::F32, 2e-6), (3, 5001, DType::F32, 2e-6), (20, 33, DType::F16, 6e-4)]
    {
        let (x, g) =
            (host(&numbers(rows * n, 1), &[rows, n], dtype), host(&numbers(rows * n, 2), &[rows, n], dtype));
        let (w, b) = (host(&numbers(n, 3), &[n], dtype), host(&numbers(n, 4), &[n], dtype));
        let alpha = host(&[0.75], &[1], dtype);
        let (wanted, magnitudes) = dyt(&x.to_f64(), &g.to_f64(), &w.to_f64(), &b.to_f64(), 0.75);
        let up = |t: &HostTensor| device.upload(t).unwrap();
        let (x, g, w, b, alpha) = (up(&x), up(&g), up(&w), up(&b), up(&alpha));
        let norm = DyT::new([n]).alpha(&alpha).weight(&w).bias(&b);
        let (y, saved) = norm.forward_train(&x).unwrap();
        let grads = norm.backward(&g, &x, &saved).unwrap();
        let found = [Some(y), Some(grads.input), grads.weight, grads.bias, grads.alpha];
        for (i, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            let found = found.as_ref().unwrap().read().unwrap().to_f64();
            // Alpha's terms cancel to a hundredth of their magnitudes, which is what the error is relative to.
            let size = if i == 4 { magnitudes } else { largest(wanted) };
            close_to(&format!("result {i} of {rows} x {n} {dtype}"), &found, wanted, tolerance * size);
        }
    }
}

/// Kernels convert by integers whatever the adapter offers, so `SHADER_F16` must not show in any bit.
#[test]
fn shader_f16_changes_no_bit() {
    let (rows, n, dtype) = (9, 77, DType::F16);
    let (x, w) = (host(&numbers(rows * n, 1), &[rows, n], dtype), host(&numbers(n, 2), &[n], dtype));
    let alpha = host(&[0.75], &[1], dtype);
    let results = [true, false].map(|shader_f16| {
        let device = WgpuDevice::with_options(&Options { shader_f16, ..Options::default() }).unwrap();
        let offered = adapters().iter().any(|a| a.name == device.info().name && a.shader_f16);
        assert_eq!(device.info().shader_f16, shader_f16 && offered);
        let up = |t: &HostTensor| device.upload(t).unwrap();
        let (x, w, alpha) = (up(&x), up(&w), up(&alpha));
        let norm = DyT::new([n]).alpha(&alpha).weight(&w).bias(&w);
        let (y, saved) = norm.forward_train(&x).unwrap();
        let grads = norm.backward(&x, &x, &saved).unwrap();
        let tensors = [Some(y), Some(grads.input), grads.weight, grads.bias, grads.alpha];
        tensors.map(|t| t.unwrap().read().unwrap().bytes().to_vec())
    });
    assert_eq!(results[0], results[1]);
}

/// Everything in one buffer at odd offsets, outputs between guard elements, and a transposed input.
#[test]
fn one_buffer_at_odd_offsets() {
    let device = wgpu_device();
    for dtype in [DType::F32, DType::F16] {
        let (rows, n) = (6, 37);
        let (x, w) = (
            host(&numbers(rows * n, 1), &[rows * n], dtype).to_f64(),
            host(&numbers(n, 3), &[n], dtype).to_f64(),
        );
        // Weight at 1, the transposed input at 41, the output at 301, guards everywhere else.
        let (w_at, x_at, y_at, len) = (1, 41, 301, 601);
        let mut values = vec![7.0; len];
        values[w_at..w_at + n].copy_from_slice(&w);
        for row in 0..rows {
            for col in 0..n {
                values[x_at + col * rows + row] = x[row * n + col];
            }
        }
        let tensor = device.upload(&host(&values, &[len], dtype)).unwrap();
        let size = dtype.size() as u64;
        let range = |at: usize, len: usize| at as u64 * size..(at + len) as u64 * size;
        let buffer = tensor.buffer();
        let transposed = Layout::strided(&[rows, n], &[1, rows as isize], 0).unwrap();
        let input = View::from_buffer(&device, buffer, range(x_at, rows * n), dtype, transposed).unwrap();
        let row = Layout::contiguous(&[n]);
        let weight = View::from_buffer(&device, buffer, range(w_at, n), dtype, row).unwrap();
        let whole = Layout::contiguous(&[rows, n]);
        let mut output = ViewMut::from_buffer(&device, buffer, range(y_at, rows * n), dtype, whole).unwrap();
        let norm = LayerNorm::new([n]).weight_view(weight);
        norm.forward_into(&input, &mut output, None, &Stream::Wgpu(device.stream())).unwrap();
        let after = tensor.read().unwrap().to_f64();
        let [wanted, ..] = layer_norm(&x, &x, &w, &vec![0.0; n]);
        let tolerance = if dtype == DType::F32 { 2e-6 } else { 6e-4 };
        close("y", &after[y_at..y_at + rows * n], &wanted, tolerance);
        let outside = |i: &usize| !(y_at..y_at + rows * n).contains(i);
        assert!((0..len).filter(outside).all(|i| after[i] == values[i]), "{dtype}: a guard was touched");
    }
}

#[test]
fn two_methods_share_one_submission() {
    let device = wgpu_device();
    let n = 48;
    let x = host(&numbers(3 * n, 1), &[3, n], DType::F32);
    let (ones, zeros) = (vec![1.0; n], vec![0.0; n]);
    let [once, ..] = layer_norm(&x.to_f64(), &x.to_f64(), &ones, &zeros);
    let [twice, ..] = layer_norm(&once, &once, &ones, &zeros);
    let x = device.upload(&x).unwrap();
    let (mut y, mut z) =
        (device.zeros(&[3, n], DType::F32).unwrap(), device.zeros(&[3, n], DType::F32).unwrap());
    let mut encoder = device.raw().create_command_encoder(&Default::default());
    {
        let stream = Stream::Wgpu(device.encode_into(&mut encoder));
        let norm = LayerNorm::new([n]);
        norm.forward_into(&x.view().unwrap(), &mut y.view_mut().unwrap(), None, &stream).unwrap();
        norm.forward_into(&y.view().unwrap(), &mut z.view_mut().unwrap(), None, &stream).unwrap();
    }
    assert!(z.read().unwrap().to_f64().iter().all(|&z| z == 0.0), "recorded, not run");
    device.queue().submit([encoder.finish()]);
    close("z", &z.read().unwrap().to_f64(), &twice, 2e-6);
}

#[test]
fn small_bindings_take_several_launches() {
    let device =
        WgpuDevice::with_options(&Options { max_binding: Some(4096), ..Options::default() }).unwrap();
    check_layer_norm(&device, Overrides::default(), 90, 20, DType::F32);
    let x = device.zeros(&[2, 2000], DType::F32).unwrap();
    let error = LayerNorm::new([2000]).forward(&x).unwrap_err();
    assert!(matches!(error, Error::Limit { .. }), "{error}");
}

#[test]
fn a_callers_device_works_and_its_loss_is_an_error() {
    let own = WgpuDevice::new().unwrap_or_else(|error| panic!("{error}"));
    let theirs = WgpuDevice::from_existing(own.raw().clone(), own.queue().clone());
    assert_eq!(own, theirs);
    check_layer_norm(&theirs, Overrides::default(), 3, 40, DType::F32);
    let x = theirs.zeros(&[2, 8], DType::F32).unwrap();
    theirs.raw().destroy();
    let error = LayerNorm::new([8]).forward(&x).unwrap_err();
    assert!(matches!(error, Error::DeviceLost { .. }), "{error}");
    assert!(matches!(x.read(), Err(Error::DeviceLost { .. })));
    check_layer_norm(&wgpu_device(), Overrides::default(), 3, 40, DType::F32);
}

#[test]
fn an_allocation_that_cannot_be_is_an_error_and_the_next_one_works() {
    let device = wgpu_device();
    let error = device.zeros(&[1 << 40], DType::F32).unwrap_err();
    assert!(matches!(error, Error::Limit { .. } | Error::OutOfMemory { .. }), "{error}");
    check_layer_norm(&device, Overrides::default(), 2, 8, DType::F32);
}

#[test]
fn no_rows_give_zero_gradients() {
    let device = wgpu_device();
    let w = device.upload(&host(&[1.0, 2.0, 3.0], &[3], DType::F32)).unwrap();
    let x = device.zeros(&[0, 3], DType::F32).unwrap();
    let norm = LayerNorm::new([3]).weight(&w).bias(&w);
    let (y, saved) = norm.forward_train(&x).unwrap();
    let grads = norm.backward(&y, &x, &saved).unwrap();
    assert_eq!(grads.weight.unwrap().read().unwrap().to_f64(), [0.0; 3]);
    assert_eq!(grads.bias.unwrap().read().unwrap().to_f64(), [0.0; 3]);
}

/// Rows of extreme magnitude, a constant row, and a NaN that stays in its own row.
#[test]
fn irregular_rows() {
    let device = wgpu_device();
    let n = 16;
    let base = numbers(n, 5);
    let mut x: Vec<f64> = Vec::new();
    for factor in [1e-30, 1e30, 1.0] {
        x.extend(base.iter().map(|v| v * factor));
    }
    x.extend(vec![5.0; n]);
    x.extend(vec![f64::NAN; n]);
    let t = device.upload(&host(&x, &[5, n], DType::F32)).unwrap();
    let y = RmsNorm::new([n]).eps(0.0).forward(&t).unwrap().read().unwrap().to_f64();
    close("1e-30", &y[..n], &y[2 * n..3 * n], 1e-6);
    close("1e30", &y[n..2 * n], &y[2 * n..3 * n], 1e-6);
    close("constant", &y[3 * n..4 * n], &[1.0; 16], 1e-6);
    assert!(y[4 * n..].iter().all(|v| v.is_nan()));
    let z = LayerNorm::new([n]).forward(&t).unwrap().read().unwrap().to_f64();
    assert_eq!(z[3 * n..4 * n], [0.0; 16]);
}
