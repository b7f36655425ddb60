//! Modules in the place of burn's: the same records, the same numbers, the same training.

mod common;

use burn::module::Module;
use burn::nn;
use burn::tensor::{DType, Device, Tensor};
use common::{devices, near, numbers, tensor};
use normkit_burn::nn as ours;

fn values<const D: usize>(tensor: &Tensor<D>) -> Vec<f64> {
    tensor.to_data().iter::<f64>().collect()
}

/// Compares what two modules make of an input, and the gradient of that.
fn compare<const D: usize>(
    what: &str,
    shape: [usize; D],
    device: &Device,
    ours: impl Fn(Tensor<D>) -> Tensor<D>,
    theirs: impl Fn(Tensor<D>) -> Tensor<D>,
) {
    let count = shape.iter().product();
    let (x, weights) = (numbers(count, 3), numbers(count, 4));
    let run = |module: &dyn Fn(Tensor<D>) -> Tensor<D>| {
        let x = tensor(&x, shape, device, DType::F32).require_grad();
        let y = module(x.clone());
        let grads = (y.clone() * tensor(&weights, shape, device, DType::F32)).sum().backward();
        (values(&y), values(&x.grad(&grads).expect("of the input")))
    };
    let ((y, dx), (expected, expected_dx)) = (run(&ours), run(&theirs));
    near(what, &y, &expected, 2e-6);
    near(&format!("{what}, gradient"), &dx, &expected_dx, 2e-5);
}

/// A record with parameters that are not those of the beginning.
fn trained<M: Module>(module: M) -> burn::store::ModuleRecord {
    struct Bent;
    impl burn::module::ModuleMapper for Bent {
        fn map_float<const D: usize>(
            &mut self,
            param: burn::module::Param<Tensor<D>>,
        ) -> burn::module::Param<Tensor<D>> {
            param.map(|value| {
                let (shape, device) = (value.dims(), value.device());
                let bent = numbers(shape.iter().product(), 29);
                value.detach() + tensor(&bent, shape, &device, DType::F32)
            })
        }
    }
    module.map(&mut Bent).into_record()
}

/// Both kinds of module, with burn's parameters in ours and back.
macro_rules! pair {
    ($config:ident($($argument:expr),*), $device:expr) => {{
        let theirs = nn::$config::new($($argument),*).init($device);
        let theirs = theirs.load_record(trained(nn::$config::new($($argument),*).init($device)));
        let ours = ours::$config::new($($argument),*).init($device);
        let ours = ours.load_record(theirs.clone().into_record());
        let back = nn::$config::new($($argument),*).init($device).load_record(ours.clone().into_record());
        (ours, back)
    }};
}

#[test]
fn modules_are_burns() {
    for (name, device, dtype, _) in devices() {
        if dtype != DType::F32 {
            continue;
        }
        let device = &device.autodiff();
        let (own, theirs) = pair!(LayerNormConfig(24), device);
        assert_eq!(own.to_string(), theirs.to_string());
        compare(&format!("LayerNorm, {name}"), [5, 24], device, |x| own.forward(x), |x| theirs.forward(x));
        let (own, theirs) = pair!(RmsNormConfig(24), device);
        assert_eq!(own.to_string(), theirs.to_string());
        compare(&format!("RmsNorm, {name}"), [5, 24], device, |x| own.forward(x), |x| theirs.forward(x));
        let (own, theirs) = pair!(GroupNormConfig(3, 6), device);
        assert_eq!(own.to_string(), theirs.to_string());
        compare(&format!("GroupNorm, {name}"), [2, 6, 9], device, |x| own.forward(x), |x| theirs.forward(x));
        let (own, theirs) = pair!(InstanceNormConfig(6), device);
        assert_eq!(own.to_string(), theirs.to_string());
        compare(
            &format!("InstanceNorm, {name}"),
            [2, 6, 9],
            device,
            |x| own.forward(x),
            |x| theirs.forward(x),
        );
        let (own, theirs) = pair!(BatchNormConfig(6), device);
        assert_eq!(own.to_string(), theirs.to_string());
        compare(&format!("BatchNorm, {name}"), [3, 6, 9], device, |x| own.forward(x), |x| theirs.forward(x));
    }
}

/// Running statistics move as burn's do, and inference uses them.
#[test]
fn running_statistics_are_burns() {
    for (name, device, dtype, _) in devices() {
        if dtype != DType::F32 {
            continue;
        }
        let plain = device.clone();
        let device = &device.autodiff();
        let (own, theirs) = pair!(BatchNormConfig(4), device);
        for step in 0..3 {
            let x = tensor(&numbers(4 * 4 * 5, 40 + step), [4, 4, 5], device, DType::F32);
            let (y, expected) = (own.forward(x.clone()), theirs.forward(x));
            near(&format!("step {step}, {name}"), &values(&y), &values(&expected), 2e-6);
        }
        let running = [(&own.running_mean, &theirs.running_mean), (&own.running_var, &theirs.running_var)];
        for (own, theirs) in running {
            near(
                &format!("running, {name}"),
                &values(&own.value_sync()),
                &values(&theirs.value_sync()),
                2e-6,
            );
        }
        let x = tensor(&numbers(40, 50), [2, 4, 5], &plain, DType::F32);
        let (own, theirs) = (own.valid(), theirs.valid());
        near(
            &format!("inference, {name}"),
            &values(&own.forward(x.clone())),
            &values(&theirs.forward(x)),
            2e-6,
        );
    }
}

/// What burn has no module for: parameters are there, and trained.
#[test]
fn other_modules_have_gradients() {
    for (name, device, dtype, _) in devices() {
        if dtype != DType::F32 {
            continue;
        }
        let device = &device.autodiff();
        let dyt = ours::DyTConfig::new(24).init(device);
        let x = tensor::<2>(&numbers(5 * 24, 1), [5, 24], device, DType::F32);
        let grads = dyt.forward(x.clone()).square().sum().backward();
        for gradient in [dyt.alpha.grad(&grads), dyt.gamma.grad(&grads), dyt.beta.grad(&grads)] {
            assert!(values(&gradient.expect(name)).iter().all(|x| *x != 0.0 && x.is_finite()), "{name}");
        }
        let heads = ours::QkNormConfig::new(24).init(device);
        let (q, k) = heads.forward(x.clone(), x.clone().narrow(0, 0, 2));
        let grads = (q.powf_scalar(3.0).sum() + k.powf_scalar(3.0).sum()).backward();
        assert!(heads.query_gamma.grad(&grads).is_some() && heads.key_gamma.grad(&grads).is_some());
        let norm = ours::RmsNormConfig::new(24).init(device);
        let (y, h) = norm.try_forward_residual(x.clone(), x.clone()).unwrap();
        near(name, &values(&h), &values(&(x.clone() + x.clone())), 1e-7);
        near(name, &values(&y), &values(&norm.forward(h)), 1e-6);
    }
}

/// The same gradients where burn keeps less and computes parts of the graph again.
#[test]
fn gradient_checkpointing() {
    let run = |device: &Device| {
        let norm = ours::LayerNormConfig::new(24).init(device);
        let x = tensor::<2>(&numbers(5 * 24, 1), [5, 24], device, DType::F32).require_grad();
        let y = norm.forward(x.clone() * 2.0).exp() + x.clone();
        let grads = norm.forward(y).powf_scalar(3.0).sum().backward();
        (
            values(&x.grad(&grads).expect("of the input")),
            values(&norm.gamma.grad(&grads).expect("of the weight")),
        )
    };
    let plain = Device::flex().autodiff();
    assert_eq!(run(&plain.clone().gradient_checkpointing()), run(&plain));
}
