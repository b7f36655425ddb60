//! Status codes, the message of the last error, and the border that no panic crosses.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a call returns. normkit_last_error_message() says more.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// All is well.
    Ok = 0,
    /// An argument has the wrong value, shape, dtype or place in memory. Nothing was written.
    InvalidArgument = 1,
    /// The backend has no arithmetic for the dtype. Nothing was written.
    UnsupportedDtype = 2,
    /// The problem exceeds a limit of the device. Nothing was written.
    Limit = 3,
    /// No device of this kind can be used here.
    NoDevice = 4,
    /// The device was lost. A new context works.
    DeviceLost = 5,
    /// An allocation failed.
    OutOfMemory = 6,
    /// A kernel did not compile, or the driver refused a launch.
    Backend = 7,
    /// A bug in normkit, which ended the call. What it was to write is undefined; the handles can still be used.
    Internal = 8,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    pub(crate) status: Status,
    pub(crate) message: String,
}

pub(crate) type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    pub(crate) fn argument(name: impl Display, expected: impl Display, found: impl Display) -> Self {
        let message = format!("{name}: expected {expected}, found {found}");
        Fault { status: Status::InvalidArgument, message }
    }

    /// The fault of an error whose arguments have other names in C: pairs of the Rust library's name and C's.
    pub(crate) fn renamed(error: normkit::Error, names: &[(&str, &str)]) -> Self {
        match error {
            normkit::Error::Argument { name, expected, found } => {
                let name = names.iter().find_map(|(from, to)| (*from == name).then_some(*to)).unwrap_or(name);
                Fault::argument(name, expected, found)
            }
            other => Fault { status: status_of(&other), message: other.to_string() },
        }
    }
}

impl From<normkit::Error> for Fault {
    fn from(error: normkit::Error) -> Self {
        Fault::renamed(error, &[])
    }
}

fn status_of(error: &normkit::Error) -> Status {
    match error {
        normkit::Error::Argument { .. } => Status::InvalidArgument,
        normkit::Error::UnsupportedDType { .. } => Status::UnsupportedDtype,
        normkit::Error::Limit { .. } => Status::Limit,
        normkit::Error::NoDevice { .. } => Status::NoDevice,
        normkit::Error::DeviceLost { .. } => Status::DeviceLost,
        normkit::Error::OutOfMemory { .. } => Status::OutOfMemory,
        _ => Status::Backend,
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Runs the body of a call: its fault, or its panic, becomes a status and this thread's message.
pub(crate) fn guard(body: impl FnOnce() -> Result<()>) -> Status {
    // A panic may leave what the body has borrowed half-written: a caller's memory, which is documented, and workspaces,
    // whose contents mean nothing between calls.
    let fault = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return Status::Ok,
        Ok(Err(fault)) => fault,
        Err(payload) => Fault { status: Status::Internal, message: panic_message(payload) },
    };
    remember(fault.message);
    fault.status
}

fn panic_message(payload: Box<dyn Any + Send>) -> String {
    let text = payload.downcast::<&str>().map(|text| (*text).to_owned()).or_else(|payload| {
        payload.downcast::<String>().map(|text| *text).map_err(|payload| {
            // Whatever it is, dropping it could panic again.
            std::mem::forget(payload);
        })
    });
    format!("a bug in normkit: {}", text.as_deref().unwrap_or("a panic without a message"))
}

fn remember(message: String) {
    let mut bytes = message.into_bytes();
    bytes.retain(|&byte| byte != 0);
    let message = CString::new(bytes).unwrap_or_default();
    // A thread that is ending has no message any more.
    let _ = LAST.try_with(|last| last.replace(message));
}

/// What went wrong in this thread's last call that failed: the argument, what was expected and what was found. Empty if
/// none did. UTF-8. The memory is the library's, and stays as it is until the thread's next call that fails, or its end.
#[unsafe(no_mangle)]
pub extern "C" fn normkit_last_error_message() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// The name of a status, as in "NORMKIT_STATUS_OK"; "unknown" for other numbers. Never NULL; not to be freed.
#[unsafe(no_mangle)]
pub extern "C" fn normkit_status_name(status: i32) -> *const c_char {
    let names = [
        c"NORMKIT_STATUS_OK",
        c"NORMKIT_STATUS_INVALID_ARGUMENT",
        c"NORMKIT_STATUS_UNSUPPORTED_DTYPE",
        c"NORMKIT_STATUS_LIMIT",
        c"NORMKIT_STATUS_NO_DEVICE",
        c"NORMKIT_STATUS_DEVICE_LOST",
        c"NORMKIT_STATUS_OUT_OF_MEMORY",
        c"NORMKIT_STATUS_BACKEND",
        c"NORMKIT_STATUS_INTERNAL",
    ];
    let name = usize::try_from(status).ok().and_then(|index| names.get(index)).copied();
    name.unwrap_or(c"unknown").as_ptr()
}
