//! Memory for numbers that begins where a line of the cache does. A register of AVX-512 is as long as a line: from elsewhere, each
//! of its loads and stores takes two lines, and what was stored is not handed on to the next load.

use bytemuck::Pod;
use std::collections::TryReserveError;

/// Bytes of a line, and words.
const LINE: usize = 64;
const LINE_WORDS: usize = LINE / size_of::<u64>();

/// Memory that grows to what is asked for, and stays.
#[derive(Debug, Default)]
pub(crate) struct Aligned(Vec<u64>);

impl Aligned {
    pub(crate) const fn new() -> Self {
        Aligned(Vec::new())
    }

    /// So many numbers, anything being in them.
    pub(crate) fn numbers<T: Pod>(&mut self, len: usize) -> &mut [T] {
        let (words, all) = words_for::<T>(len);
        if self.0.len() < all {
            self.0.resize(all, 0);
        }
        let skipped = self.0.as_ptr().align_offset(LINE);
        &mut bytemuck::cast_slice_mut(&mut self.0[skipped..skipped + words])[..len]
    }

    /// The same, or an error where memory does not suffice.
    pub(crate) fn try_numbers<T: Pod>(&mut self, len: usize) -> Result<&mut [T], TryReserveError> {
        self.0.try_reserve_exact(words_for::<T>(len).1.saturating_sub(self.0.len()))?;
        Ok(self.numbers(len))
    }
}

/// Words for so many numbers, and those to have so that they can begin with a line.
fn words_for<T>(len: usize) -> (usize, usize) {
    let words = len.saturating_mul(size_of::<T>()).div_ceil(size_of::<u64>());
    (words, words.saturating_add(LINE_WORDS - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_begin_with_a_line() {
        let mut memory = Aligned::new();
        for len in [0, 1, 7, 8, 1000, 3, 100_000] {
            let numbers = memory.numbers::<f32>(len);
            assert_eq!((numbers.len(), numbers.as_ptr().addr() % LINE), (len, 0));
            numbers.fill(1.0);
            assert_eq!(memory.try_numbers::<f64>(len).map(|numbers| numbers.len()), Ok(len));
        }
        assert!(memory.try_numbers::<f64>(usize::MAX).is_err());
    }
}
