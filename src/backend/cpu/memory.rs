//! Hints to the memory system: what will be read next, and what is written for good.

use super::Isa;
use super::simd::BLOCK;

/// Leave to write past the caches: there are the instructions for it, and enough to write.
#[derive(Clone, Copy)]
pub(crate) struct Streaming(());

impl Streaming {
    /// From this many bytes on, a tensor is written past the caches: what would be left of it there is less than it
    /// evicts. The machine of `docs/speed.md` has 32 MiB of last-level cache.
    const LEAST: usize = 16 << 20;

    /// For a tensor of so many bytes.
    pub(super) fn of(isa: Isa, bytes: usize) -> Option<Self> {
        let has_avx = matches!(isa, Isa::Avx2 | Isa::Avx512) && isa.is_available();
        (has_avx && bytes >= Self::LEAST).then_some(Streaming(()))
    }

    /// For a slice: if it is aligned, and in whole blocks, since a line that is written both past the caches and through
    /// them costs more than it saves.
    #[inline(always)]
    pub(super) fn to<T>(self, slice: &[T]) -> Option<Self> {
        (is_aligned(slice) && slice.len().is_multiple_of(BLOCK)).then_some(self)
    }
}

/// Whether the instruction can write there.
#[inline(always)]
fn is_aligned<T>(slice: &[T]) -> bool {
    slice.as_ptr().addr().is_multiple_of(16)
}

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
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            let address = self.0.wrapping_add(at).cast::<i8>().wrapping_add(byte);
            // SAFETY: a hint reads nothing and may name any address; every x86-64 CPU has it.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(address) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (at, self.0, LINE);
    }
}

/// Elements of any type that will be read soon.
#[derive(Clone, Copy)]
pub(super) struct Upcoming {
    first: Ahead<u8>,
    /// Bytes of an element.
    size: usize,
}

impl Upcoming {
    pub(super) fn new(first: *const u8, size: usize) -> Self {
        Upcoming { first: Ahead(first), size }
    }

    /// Asks for `len` elements from `at` on, of which some may be nobody's.
    #[inline(always)]
    pub(super) fn touch(self, at: usize, len: usize) {
        for byte in (at * self.size..(at + len) * self.size).step_by(LINE) {
            self.first.touch(byte);
        }
    }
}

/// Staged in memory, in whole lines: a store that straddles two is not forwarded to the loads after it.
#[repr(align(64))]
pub(super) struct Staged<T>(pub(super) T);

/// Orders what was written past the caches before what the thread writes next.
pub(super) fn finish_streaming() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 CPU has it.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}
