//! wgpu's errors as values. They are asynchronous and panic by default; here every creation and submission sits in
//! error scopes, which natively have their answer at once.

use super::WgpuDevice;
use crate::{Error, Result};
use wgpu::ErrorFilter;

pub(super) const BACKEND: &str = "wgpu";

/// Runs `work` and reports what wgpu found wrong with it.
pub(super) fn scoped<T>(device: &WgpuDevice, what: &str, work: impl FnOnce() -> T) -> Result<T> {
    device.check_alive()?;
    let scopes = [ErrorFilter::Internal, ErrorFilter::OutOfMemory, ErrorFilter::Validation]
        .map(|filter| device.raw().push_error_scope(filter));
    let result = work();
    let mut found = None;
    for scope in scopes.into_iter().rev() {
        found = pollster::block_on(scope.pop()).or(found);
    }
    device.check_alive()?;
    match found {
        None => Ok(result),
        Some(_) if is_gone(device.raw()) => Err(lost("it was destroyed or has failed")),
        Some(wgpu::Error::OutOfMemory { .. }) => Err(Error::OutOfMemory { what: what.to_owned() }),
        Some(error) => Err(refused(what, error)),
    }
}

/// Whether a device that nobody watches is lost: then not even a buffer of four bytes can be mapped.
fn is_gone(device: &wgpu::Device) -> bool {
    let scope = device.push_error_scope(ErrorFilter::Validation);
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4,
        usage: wgpu::BufferUsages::COPY_SRC,
        mapped_at_creation: true,
    });
    let gone = buffer.get_mapped_range_mut(..).is_err();
    drop(pollster::block_on(scope.pop()));
    gone
}

/// The driver or the compiler said no.
pub(super) fn refused(what: &str, reason: impl std::fmt::Display) -> Error {
    Error::Backend { backend: BACKEND, what: what.to_owned(), reason: reason.to_string() }
}

/// The device is gone.
pub(super) fn lost(reason: impl std::fmt::Display) -> Error {
    Error::DeviceLost { backend: BACKEND, reason: reason.to_string() }
}

/// `found` is more than the device can take.
pub(super) fn limit(
    name: &'static str,
    limit: impl std::fmt::Display,
    found: impl std::fmt::Display,
) -> Error {
    Error::Limit { name, limit: limit.to_string(), found: found.to_string() }
}
