//! The one error type. Every public function that can fail returns it; none panics.

use crate::tensor::DType;

/// What went wrong, with the argument's name, what was expected and what came.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument has the wrong shape, dtype, range or place in memory. Nothing was written.
    #[error("{name}: expected {expected}, found {found}")]
    Argument {
        /// The argument, by the name it has in the call.
        name: &'static str,
        /// What would have been accepted.
        expected: String,
        /// What came.
        found: String,
    },
    /// The backend has no arithmetic for this dtype.
    #[error("{name}: dtype {dtype} is not supported on the {backend} backend")]
    UnsupportedDType {
        /// The argument.
        name: &'static str,
        /// Its dtype.
        dtype: DType,
        /// The backend asked.
        backend: &'static str,
    },
    /// The backend has no kernel for this operation. Nothing was written.
    #[error("{what} is not supported on the {backend} backend")]
    Unsupported {
        /// The operation.
        what: &'static str,
        /// The backend asked.
        backend: &'static str,
    },
    /// The problem exceeds a limit of the device.
    #[error("{name}: {found} exceeds the device's limit of {limit}")]
    Limit {
        /// What is too large.
        name: &'static str,
        /// The device's limit, with its unit.
        limit: String,
        /// The size asked for, with its unit.
        found: String,
    },
    /// No device of this kind can be used here.
    #[error("no usable {backend} device: {reason}")]
    NoDevice {
        /// The backend asked.
        backend: &'static str,
        /// What was tried, and what would help.
        reason: String,
    },
    /// The device was lost or destroyed. A new device works.
    #[error("the {backend} device was lost: {reason}")]
    DeviceLost {
        /// The backend.
        backend: &'static str,
        /// What the driver said.
        reason: String,
    },
    /// An allocation failed.
    #[error("out of memory: {what}")]
    OutOfMemory {
        /// What was to be allocated, with its size in bytes.
        what: String,
    },
    /// A kernel did not compile, or the driver refused a launch. This is a bug in normkit or in the driver.
    #[error("{backend} refused {what}: {reason}")]
    Backend {
        /// The backend.
        backend: &'static str,
        /// The operation.
        what: String,
        /// What the compiler or driver said.
        reason: String,
    },
}

/// `Result` with normkit's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn argument(
        name: &'static str,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Display,
    ) -> Self {
        Error::Argument { name, expected: expected.to_string(), found: found.to_string() }
    }
}
