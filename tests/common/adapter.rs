//! The adapter that tests of WebGPU run on.

use normkit::backend::wgpu::WgpuDevice;
use std::sync::OnceLock;

/// Vulkan's, and the software one where there is no GPU. All tests of a process share it and the shaders that it has
/// compiled: compiling is most of what they take.
pub(crate) fn wgpu_device() -> WgpuDevice {
    static DEVICE: OnceLock<WgpuDevice> = OnceLock::new();
    let open = || {
        WgpuDevice::new().unwrap_or_else(|error| {
            panic!(
                "{error}\nThe software adapter is in Debian's packages mesa-vulkan-drivers and libvulkan1."
            )
        })
    };
    DEVICE.get_or_init(open).clone()
}
