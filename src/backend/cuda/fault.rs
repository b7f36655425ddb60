//! What goes wrong, as values of the one error type.

use crate::Error;
use std::fmt::Display;

/// The backend's name on a GPU.
pub(super) const CUDA: &str = "cuda";

/// The backend's name on the host driver.
pub(super) const HOST: &str = "cuda-host";

/// The compiler or the driver said no.
pub(super) fn refused(backend: &'static str, what: impl Display, reason: impl Display) -> Error {
    Error::Backend { backend, what: what.to_string(), reason: reason.to_string() }
}

/// There is no device of this kind here.
pub(super) fn no_device(backend: &'static str, reason: impl Display) -> Error {
    Error::NoDevice { backend, reason: reason.to_string() }
}

/// The device is gone.
pub(super) fn lost(backend: &'static str, reason: impl Display) -> Error {
    Error::DeviceLost { backend, reason: reason.to_string() }
}

/// `found` is more than the device can take.
pub(super) fn limit(name: &'static str, limit: impl Display, found: impl Display) -> Error {
    Error::Limit { name, limit: limit.to_string(), found: found.to_string() }
}

/// There is no room for `what`.
pub(super) fn out_of_memory(what: impl Display) -> Error {
    Error::OutOfMemory { what: what.to_string() }
}
