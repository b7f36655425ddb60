//! Pointers that C passes, each read in one place.

use crate::status::{Fault, Result};
use std::fmt::Display;

/// What a pointer to a struct or a handle points to; an error where it is NULL.
///
/// # Safety
/// `at` is NULL or points to a `T` that nobody writes during `'a`.
pub(crate) unsafe fn required<'a, T>(name: impl Display, at: *const T) -> Result<&'a T> {
    // SAFETY: the caller's promise is the same.
    unsafe { optional(&name, at) }?.ok_or_else(|| Fault::argument(name, "a pointer", "NULL"))
}

/// The same, where NULL means none.
///
/// # Safety
/// As [`required`].
pub(crate) unsafe fn optional<'a, T>(name: impl Display, at: *const T) -> Result<Option<&'a T>> {
    check_aligned(name, at)?;
    // SAFETY: not misaligned, and else as the caller says.
    Ok(unsafe { at.as_ref() })
}

/// Numbers of an array.
///
/// # Safety
/// `first` is NULL or points to `count` numbers that nobody writes during `'a`.
pub(crate) unsafe fn numbers<'a>(name: impl Display, first: *const i64, count: usize) -> Result<&'a [i64]> {
    if count == 0 {
        return Ok(&[]);
    }
    if first.is_null() {
        return Err(Fault::argument(name, format!("{count} numbers"), "NULL"));
    }
    check_aligned(name, first)?;
    // SAFETY: not NULL, not misaligned, and else as the caller says; callers limit the count.
    Ok(unsafe { std::slice::from_raw_parts(first, count) })
}

/// Writes a result.
///
/// # Safety
/// `at` is NULL or points to memory for a `T`.
pub(crate) unsafe fn put<T>(name: impl Display, at: *mut T, value: T) -> Result<()> {
    if at.is_null() {
        return Err(Fault::argument(name, "a pointer", "NULL"));
    }
    check_aligned(name, at)?;
    // SAFETY: not NULL, not misaligned, and else as the caller says. What was there is not dropped: it may be anything.
    unsafe { at.write(value) };
    Ok(())
}

/// Refuses a place for a result that is NULL, before there is one.
pub(crate) fn check_place<T>(name: &str, at: *mut T) -> Result<()> {
    if at.is_null() { Err(Fault::argument(name, "a pointer", "NULL")) } else { check_aligned(name, at) }
}

fn check_aligned<T>(name: impl Display, at: *const T) -> Result<()> {
    if at.is_aligned() {
        return Ok(());
    }
    Err(Fault::argument(
        name,
        format!("an address that is a multiple of {}", align_of::<T>()),
        format!("{at:p}"),
    ))
}

/// Reads a struct of options or arguments, which begins with its own size, or refuses a size that this library does not
/// know.
///
/// # Safety
/// `at` is NULL or points to a struct that begins with its size and is as long as that says.
pub(crate) unsafe fn sized<T: Sized>(name: &str, at: *const T) -> Result<&T> {
    if at.is_null() {
        return Err(Fault::argument(name, "a pointer", "NULL"));
    }
    check_aligned(name, at)?;
    // SAFETY: every such struct begins with a `size_t`.
    let size = unsafe { at.cast::<usize>().read() };
    check_size::<T>(format_args!("{name}.struct_size"), size)?;
    // SAFETY: it says that it is as long as `T`.
    Ok(unsafe { &*at })
}

/// Refuses the size of a struct that is not this library's.
pub(crate) fn check_size<T>(name: impl Display, size: usize) -> Result<()> {
    if size == size_of::<T>() {
        return Ok(());
    }
    Err(Fault::argument(name, format!("{}, as in this library's header", size_of::<T>()), size))
}

/// A handle from a value.
///
/// # Safety
/// `at` is NULL or points to memory for a pointer.
pub(crate) unsafe fn hand_out<T>(
    name: &str,
    at: *mut *mut T,
    make: impl FnOnce() -> Result<T>,
) -> Result<()> {
    check_place(name, at)?;
    // SAFETY: checked, and else as the caller says. An error is to leave NULL, which can be freed.
    unsafe { put(name, at, std::ptr::null_mut()) }?;
    let handle = Box::into_raw(Box::new(make()?));
    // SAFETY: as above.
    unsafe { put(name, at, handle) }
}

/// Ends a handle.
///
/// # Safety
/// `handle` is NULL or from [`hand_out`], and nobody uses it any more.
pub(crate) unsafe fn take_back<T>(handle: *mut T) {
    if !handle.is_null() {
        // SAFETY: it came from a `Box`, and the caller gives it up.
        drop(unsafe { Box::from_raw(handle) });
    }
}
