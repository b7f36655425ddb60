//! A device's memory: ranges of it, and tensors that own some.

use super::CudaDevice;
use crate::tensor::{DType, HostTensor, Layout, Tensor, View, ViewMut};
use crate::{Device, Error, Result};
use std::sync::Arc;

/// A range of a device's memory.
#[derive(Debug, Clone)]
pub struct DeviceRange {
    device: CudaDevice,
    address: u64,
    size: u64,
}

impl DeviceRange {
    /// `size` bytes from `address` on, a caller's: refused where the address is null, not a multiple of the dtype's
    /// size, or known to the driver as another device's. A range of no bytes may have any address.
    ///
    /// # Safety
    /// The bytes are memory that the device can read, and write where a [`ViewMut`] is made of the range,
    /// for as long as the range and its copies live and until the launches on them have run.
    pub unsafe fn new(device: &CudaDevice, address: u64, size: u64, dtype: DType) -> Result<Self> {
        if !address.is_multiple_of(dtype.size() as u64) {
            let expected = format!("a multiple of {}, the size of {dtype}", dtype.size());
            return Err(Error::argument("address", expected, format!("{address:#x}")));
        }
        if size > 0 {
            if address == 0 {
                return Err(Error::argument("address", "memory of the device", "a null pointer"));
            }
            if address.checked_add(size).is_none() {
                return Err(Error::argument(
                    "bytes",
                    "an end within the address space",
                    format!("{size} bytes from {address:#x} on"),
                ));
            }
            device.driver().check_address(address)?;
        }
        Ok(DeviceRange::of_own(device, address, size))
    }

    /// Memory that this crate has allocated.
    pub(super) fn of_own(device: &CudaDevice, address: u64, size: u64) -> Self {
        DeviceRange { device: device.clone(), address, size }
    }

    /// The device that owns the memory.
    pub fn device(&self) -> &CudaDevice {
        &self.device
    }

    /// The first byte's address.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Bytes of the range.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// An identity that neither host memory nor a buffer of WebGPU has, and the first byte: addresses of all GPUs,
    /// and of the host driver, are places in one space.
    pub(crate) fn place(&self) -> (usize, i128) {
        (2, i128::from(self.address))
    }
}

/// Memory that goes back when the last handle to it does.
struct Block {
    device: CudaDevice,
    address: u64,
    size: usize,
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this size, and no handle is left; the driver waits for launches that use it.
        unsafe { self.device.driver().release(self.address, self.size) };
    }
}

/// A row-major tensor in memory of its own. A clone is another handle to the same memory, which can be written again
/// once it is the only one. Making and dropping tensors may wait for the device; what is called often lends memory
/// that it already has, by [`View::from_cuda`].
#[derive(Clone)]
pub struct CudaTensor {
    block: Arc<Block>,
    shape: Vec<usize>,
    dtype: DType,
}

impl CudaTensor {
    /// Memory with unspecified contents.
    fn new(device: &CudaDevice, shape: &[usize], dtype: DType) -> Result<Self> {
        let layout = Layout::contiguous(shape);
        layout.checked_span()?;
        let size = layout.len() * dtype.size();
        let address = device.driver().allocate(size)?;
        let block = Arc::new(Block { device: device.clone(), address, size });
        Ok(CudaTensor { block, shape: shape.to_vec(), dtype })
    }

    pub(super) fn zeros(device: &CudaDevice, shape: &[usize], dtype: DType) -> Result<Self> {
        let tensor = CudaTensor::new(device, shape, dtype)?;
        // SAFETY: the block is new, so nobody uses it.
        unsafe { device.driver().clear(tensor.block.address, tensor.block.size) }?;
        Ok(tensor)
    }

    pub(super) fn upload(device: &CudaDevice, tensor: &HostTensor) -> Result<Self> {
        let result = CudaTensor::new(device, tensor.shape(), tensor.dtype())?;
        // SAFETY: the block is new, and as long as the tensor.
        unsafe { device.driver().upload(result.block.address, tensor.bytes()) }?;
        Ok(result)
    }

    /// Memory of at least this many bytes, for a workspace.
    pub(super) fn bytes(device: &CudaDevice, bytes: usize) -> Result<Self> {
        CudaTensor::new(device, &[bytes.div_ceil(8).max(1)], DType::F64)
    }

    /// Sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The first element's address.
    pub fn address(&self) -> u64 {
        self.block.address
    }

    /// Bytes of the elements.
    pub(super) fn size(&self) -> usize {
        self.block.size
    }

    pub(crate) fn owner(&self) -> &CudaDevice {
        &self.block.device
    }

    fn range(&self) -> DeviceRange {
        DeviceRange::of_own(&self.block.device, self.block.address, self.block.size as u64)
    }

    /// The elements, once everything enqueued on the device has run. Waits for it.
    pub fn read(&self) -> Result<HostTensor> {
        let mut tensor = HostTensor::zeros(&self.shape, self.dtype)?;
        // SAFETY: the block is as long as the tensor.
        unsafe { self.owner().driver().download(self.block.address, tensor.bytes_mut()) }?;
        Ok(tensor)
    }
}

impl std::fmt::Debug for CudaTensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CudaTensor")
            .field("device", self.owner())
            .field("shape", &self.shape)
            .field("dtype", &self.dtype)
            .finish_non_exhaustive()
    }
}

impl Tensor for CudaTensor {
    fn device(&self) -> Device {
        Device::Cuda(self.owner().clone())
    }
    fn view(&self) -> Result<View<'_>> {
        View::of_cuda(self.range(), self.dtype, Layout::contiguous(&self.shape))
    }
    fn view_mut(&mut self) -> Result<ViewMut<'_>> {
        // Another handle's readers would see the memory change under them, which on the host driver is a race.
        let handles = Arc::strong_count(&self.block);
        if handles > 1 {
            let expected = "the only handle to its memory, to write it";
            return Err(Error::argument("tensor", expected, format!("{handles} handles")));
        }
        ViewMut::of_cuda(self.range(), self.dtype, Layout::contiguous(&self.shape))
    }
    fn empty(&self, shape: &[usize], dtype: DType) -> Result<Self> {
        CudaTensor::new(self.owner(), shape, dtype)
    }
}
