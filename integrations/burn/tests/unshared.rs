//! A wgpu device that burn has started by itself.
#![cfg(feature = "wgpu")]

use burn::tensor::{Device, DeviceKind, Tensor};

#[test]
fn a_device_that_is_not_shared_is_refused() {
    let device = Device::wgpu(DeviceKind::DefaultDevice);
    let x = Tensor::<2>::ones([3, 8], &device);
    let error = normkit_burn::rms_norm(x.clone(), None, 1e-5).unwrap_err().to_string();
    assert!(error.contains("normkit_burn::wgpu::init"), "{error}");
    assert_eq!(x.into_data().iter::<f64>().sum::<f64>(), 24.0);
}
