//! Bad input is an error that names the argument, before anything runs; the next good call works.

mod common;

use burn::tensor::{Device, Tensor};
use normkit_burn as ours;
use normkit_burn::nn;

/// An error's text.
fn refused<T>(result: ours::Result<T>, parts: &[&str]) {
    let Err(error) = result else { panic!("accepted, where {parts:?} was expected") };
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
}

#[test]
fn shapes_numbers_and_devices() {
    let device = &Device::flex();
    let x = || Tensor::<2>::ones([3, 8], device);
    let (w, wide) = (|| Tensor::<1>::ones([8], device), || Tensor::<1>::ones([9], device));
    refused(ours::layer_norm(x(), Some(wide()), None, 1e-5), &["weight", "[8]", "[9]"]);
    refused(ours::layer_norm(x(), Some(w()), Some(wide()), 1e-5), &["bias", "[8]", "[9]"]);
    refused(ours::rms_norm(x(), Some(w()), -1.0), &["eps", "-1"]);
    refused(ours::rms_norm(x(), Some(w()), f64::NAN), &["eps"]);
    refused(ours::add_rms_norm(x(), Tensor::ones([3, 7], device), Some(w()), 1e-5), &["residual", "[3, 7]"]);
    refused(ours::group_norm(x(), 3, None, None, 1e-5), &["num_groups"]);
    refused(ours::group_norm(x(), 0, None, None, 1e-5), &["num_groups"]);
    refused(
        ours::batch_norm_train(Tensor::<2>::ones([1, 8], device), None, None, 1e-5),
        &["input", "more than one value"],
    );
    refused(ours::batch_norm_train(Tensor::<1>::ones([8], device), None, None, 1e-5), &["input"]);
    refused(ours::batch_norm(x(), None, None, wide(), w(), 1e-5), &["mean", "[9]"]);
    refused(ours::dyt(x(), w(), None, None), &["alpha", "one element"]);
    refused(ours::weight_norm(x(), w(), Some(2)), &["dim", "2"]);
    refused(ours::weight_norm(x(), w(), Some(0)), &["[8]"]);
    refused(ours::qk_norm(x(), x(), Some(wide()), None, ours::HeadKind::Rms, 1e-6), &["weight", "[9]"]);
    // The next call works.
    assert_eq!(
        ours::layer_norm(x(), Some(w()), Some(w()), 1e-5).unwrap().into_data().iter::<f64>().sum::<f64>(),
        24.0
    );
    // Nothing to normalize is nothing.
    assert_eq!(
        ours::layer_norm(Tensor::<2>::ones([0, 8], device), Some(w()), None, 1e-5).unwrap().dims(),
        [0, 8]
    );
    refused(ours::layer_norm(Tensor::<2>::ones([3, 0], device), None, None, 1e-5), &["normalized_shape"]);
}

/// The same where gradients are recorded, and a dtype that the input's arithmetic does not hold.
#[test]
fn recorded_calls_and_dtypes() {
    let device = &Device::flex().autodiff();
    let x = Tensor::<2>::ones([3, 8], device).require_grad();
    refused(ours::layer_norm(x.clone(), Some(Tensor::ones([9], device)), None, 1e-5), &["weight", "[9]"]);
    let double = Tensor::<1>::ones([8], (device, burn::tensor::DType::F64));
    refused(ours::layer_norm(x.clone(), Some(double), None, 1e-5), &["weight", "f64"]);
    // A narrower weight is as good as any, and a constant beside what is recorded.
    let narrow = Tensor::<1>::ones([8], (&Device::flex(), burn::tensor::DType::BF16));
    let y = ours::layer_norm(x.clone(), Some(narrow), None, 1e-5).unwrap();
    assert!(x.grad(&y.sum().backward()).is_some());
}

#[cfg(feature = "ndarray")]
#[test]
#[allow(deprecated, reason = "burn calls NdArray its former backend; it is still there")]
fn tensors_of_two_backends() {
    let x = Tensor::<2>::ones([3, 8], &Device::flex());
    let w = Tensor::<1>::ones([8], &Device::ndarray());
    refused(ours::layer_norm(x, Some(w), None, 1e-5), &["weight", "device"]);
}

#[cfg(feature = "wgpu")]
#[test]
fn tensors_of_a_gpu_and_a_cpu() {
    let shared = common::wgpu();
    let x = Tensor::<2>::ones([3, 8], &shared);
    let w = Tensor::<1>::ones([8], &Device::flex());
    refused(ours::rms_norm(x.clone(), Some(w), 1e-5), &["weight", "device"]);
    // Waits, too: a process that ends while a software driver works may crash.
    assert_eq!(ours::rms_norm(x, None, 0.0).unwrap().into_data().iter::<f64>().sum::<f64>(), 24.0);
}

/// Modules say in a panic what functions say in an error, as burn's modules do.
#[test]
#[should_panic(expected = "weight: expected shape [7], found shape [8]")]
fn modules_panic() {
    let norm = nn::RmsNormConfig::new(8).init(&Device::flex());
    norm.forward(Tensor::<2>::ones([3, 7], &Device::flex()));
}
