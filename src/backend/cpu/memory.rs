//! Hints to the memory system: what will be read next, and what is written for good.

use super::lanes::{BLOCK, Block};
use super::real::Real;
use super::stored::Stored;

/// From this many bytes on, a tensor is written past the caches: what would be left of it there is less than it evicts.
/// The machine of `docs/speed.md` has 32 MiB of last-level cache.
pub(super) const STREAMED: usize = 16 << 20;

/// Bytes that memory moves at once.
const LINE: usize = 64;

/// Elements that will be read soon.
#[derive(Clone, Copy)]
pub(super) struct Ahead<T>(*const T);

impl<T> Ahead<T> {
    pub(super) fn of(slice: &[T]) -> Self {
        Ahead(slice.as_ptr())
    }

    /// Those `len` elements later.
    pub(super) fn after(self, len: usize) -> Self {
        Ahead(self.0.wrapping_add(len))
    }

    /// Those so many elements further on, or back.
    #[inline(always)]
    pub(super) fn after_signed(self, elements: isize) -> Self {
        Ahead(self.0.wrapping_offset(elements))
    }

    /// Asks for the block of elements from `at` on, of which some may be beyond the slice.
    #[inline(always)]
    pub(super) fn touch(self, at: usize) {
        #[cfg(target_arch = "x86_64")]
        for byte in (0..BLOCK * size_of::<T>()).step_by(LINE) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let address = self.0.wrapping_add(at).cast::<i8>().wrapping_add(byte);
            // SAFETY: a hint reads nothing and may name any address; every x86-64 CPU has it.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (at, self.0, LINE);
    }
}

/// Whether [`stream`] can write to a slice that starts here.
pub(super) fn is_aligned<T>(to: &[T]) -> bool {
    to.as_ptr().addr().is_multiple_of(16)
}

/// Stores a block past the caches, each element rounded once. `to` is aligned; see [`is_aligned`].
#[inline(always)]
pub(super) fn stream<T: Stored, F: Real>(block: &Block<F>, to: &mut [T], at: usize) {
    let to = &mut to[at..at + BLOCK];
    let mut narrow: [T; BLOCK] = bytemuck::Zeroable::zeroed();
    for i in 0..BLOCK {
        narrow[i] = T::narrow(block[i]);
    }
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};
        debug_assert!(is_aligned(to));
        // Through memory: else the arithmetic before it would be done in pieces of 16 bytes, too.
        let narrow = std::hint::black_box(narrow);
        for i in 0..size_of::<[T; BLOCK]>() / 16 {
            // SAFETY: both arrays have the bytes; the caller's slice is aligned, and a block is a multiple of 16 bytes.
            unsafe {
                let value = _mm_loadu_si128(narrow.as_ptr().cast::<__m128i>().add(i));
                _mm_stream_si128(to.as_mut_ptr().cast::<__m128i>().add(i), value);
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    to.copy_from_slice(&narrow);
}

/// Stores numbers past the caches that are in memory already. `to` is aligned; see [`is_aligned`].
#[inline(always)]
pub(super) fn stream_all<F: Real>(from: &[F], to: &mut [F]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};
        assert!(from.len() == to.len() && size_of_val(from).is_multiple_of(16) && is_aligned(to));
        for i in 0..size_of_val(from) / 16 {
            // SAFETY: both slices have the bytes, `to` is aligned, and their length is a multiple of 16 bytes.
            unsafe {
                let value = _mm_loadu_si128(from.as_ptr().cast::<__m128i>().add(i));
                _mm_stream_si128(to.as_mut_ptr().cast::<__m128i>().add(i), value);
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    to.copy_from_slice(from);
}

/// Orders what [`stream`] and [`stream_all`] have written before what the thread writes next.
pub(super) fn finish_streaming() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 CPU has it.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}
