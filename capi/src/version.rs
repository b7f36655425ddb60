//! Versions.

use std::ffi::c_char;

/// The number of this interface. Programs made for one number work with every library of that number.
pub const NORMKIT_ABI_VERSION: u32 = 1;

/// NORMKIT_ABI_VERSION as the library was made with. Where it differs from the header's, nothing else may be called.
#[unsafe(no_mangle)]
pub extern "C" fn normkit_abi_version() -> u32 {
    NORMKIT_ABI_VERSION
}

/// The library's version, as in "0.1.0". Never NULL; not to be freed.
#[unsafe(no_mangle)]
pub extern "C" fn normkit_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
