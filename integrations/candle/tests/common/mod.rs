//! Where the tests' tensors are: with the feature `cuda`, on the first GPU.

use candle_core::Device;

#[cfg(not(feature = "cuda"))]
pub(crate) fn device() -> Device {
    Device::Cpu
}

#[cfg(feature = "cuda")]
pub(crate) fn device() -> Device {
    // One for all tests of a program: candle's tensors of two are strangers to each other.
    static GPU: std::sync::OnceLock<Device> = std::sync::OnceLock::new();
    GPU.get_or_init(|| Device::new_cuda(0).expect("a GPU, which the feature `cuda` is tested on")).clone()
}
