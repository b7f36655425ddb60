//! DLPack's structures, as `dlpack.h` 1.3 lays them out.

use std::ffi::{c_char, c_int, c_void};

/// What `device_type` says of memory that any CPU code can use: `kDLCPU`.
pub(crate) const CPU: i32 = 1;
/// `kDLCUDA`
pub(crate) const CUDA: i32 = 2;
/// `kDLCUDAHost`: page-locked memory of the host.
pub(crate) const CUDA_HOST: i32 = 3;

/// `kDLInt`
pub(crate) const INT: u8 = 0;
/// `kDLFloat`
pub(crate) const FLOAT: u8 = 2;
/// `kDLBfloat`
pub(crate) const BFLOAT: u8 = 4;

/// `kDLFloat8_e4m3fn`
pub(crate) const FLOAT8_E4M3FN: u8 = 10;
/// `kDLFloat8_e5m2`
pub(crate) const FLOAT8_E5M2: u8 = 12;

/// The flag of memory that may not be written.
pub(crate) const READ_ONLY: u64 = 1;

/// The major version that this module knows.
pub(crate) const MAJOR: u32 = 1;

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) device_type: i32,
    pub(crate) device_id: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DataType {
    pub(crate) code: u8,
    pub(crate) bits: u8,
    pub(crate) lanes: u16,
}

/// `DLTensor`: where elements are. `strides` counts elements; null is row-major.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Tensor {
    pub(crate) data: *mut c_void,
    pub(crate) device: Device,
    pub(crate) ndim: i32,
    pub(crate) dtype: DataType,
    pub(crate) shape: *mut i64,
    pub(crate) strides: *mut i64,
    pub(crate) byte_offset: u64,
}

/// `DLManagedTensor`, of legacy capsules.
#[repr(C)]
pub(crate) struct Managed {
    pub(crate) tensor: Tensor,
    pub(crate) manager: *mut c_void,
    pub(crate) deleter: Option<unsafe extern "C" fn(*mut Managed)>,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// `DLManagedTensorVersioned`.
#[repr(C)]
pub(crate) struct Versioned {
    pub(crate) version: Version,
    pub(crate) manager: *mut c_void,
    pub(crate) deleter: Option<unsafe extern "C" fn(*mut Versioned)>,
    pub(crate) flags: u64,
    pub(crate) tensor: Tensor,
}

/// How `managed_tensor_allocator` reports an error: context, kind, message.
pub(crate) type SetError = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char);

/// `DLPackExchangeAPI`: functions that a library offers for its own type of tensor.
#[repr(C)]
pub(crate) struct ExchangeApi {
    pub(crate) version: Version,
    pub(crate) previous: *mut ExchangeApi,
    pub(crate) allocate:
        Option<unsafe extern "C" fn(*mut Tensor, *mut *mut Versioned, *mut c_void, SetError) -> c_int>,
    pub(crate) export: Option<unsafe extern "C" fn(*mut c_void, *mut *mut Versioned) -> c_int>,
    pub(crate) import: Option<unsafe extern "C" fn(*mut Versioned, *mut *mut c_void) -> c_int>,
    pub(crate) describe: Option<unsafe extern "C" fn(*mut c_void, *mut Tensor) -> c_int>,
    pub(crate) current_stream: Option<unsafe extern "C" fn(i32, i32, *mut *mut c_void) -> c_int>,
}
