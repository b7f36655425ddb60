//! A panic, for the test that none comes out.

use crate::status::{Status, guard};

/// Panics inside of the border, as a bug would. Not in the header.
///
/// cbindgen:ignore
#[unsafe(no_mangle)]
pub extern "C" fn normkit_provoke_panic() -> Status {
    guard(|| panic!("provoked"))
}
