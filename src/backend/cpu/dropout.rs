//! Dropout: elements of a row that are left out, found by Philox 4x32-10 eight counters at a time.
#![allow(clippy::needless_range_loop, reason = "several arrays are walked by one index")]

use super::Isa;
use super::isa::Operation;
use super::real::Real;
use super::runs::{Run, runs};
use super::simd::Simd;
use crate::plan::{Grid, Walk};
use crate::spec::{Dropout, MULTIPLIERS, STEPS};

/// Counters at a time.
const LANES: usize = 8;
/// Elements that they are for.
const BLOCK: usize = 4 * LANES;

/// Which elements are kept: `walk` goes over their indices as over memory.
#[derive(Clone, Copy)]
pub(super) struct Kept<'a> {
    pub(super) dropout: Dropout,
    pub(super) grid: &'a Grid,
    pub(super) walk: &'a Walk,
}

impl Kept<'_> {
    /// Puts zeros in the place of those of `row` from column `col` on that are not kept.
    pub(super) fn apply<F: Real>(&self, isa: Isa, row: usize, col: usize, values: &mut [F]) {
        let Kept { dropout, grid, walk } = *self;
        if walk.contiguous {
            let first = (grid.row_offset(walk, row) + col as isize) as u64;
            return isa.run(Drop { dropout, first, values });
        }
        for Run { col: at, count, at: first, stride } in runs(grid, walk, row, col..col + values.len()) {
            let values = &mut values[at - col..at - col + count];
            if stride == 1 {
                isa.run(Drop { dropout, first: first as u64, values });
                continue;
            }
            for (i, value) in values.iter_mut().enumerate() {
                if !dropout.keeps((first + i as isize * stride) as u64) {
                    *value = F::ZERO;
                }
            }
        }
    }
}

/// The words of `LANES` counters from `quad` on: word w of counter i is at `[w][i]`.
#[inline(always)]
fn words(dropout: &Dropout, quad: u64) -> [[u32; LANES]; 4] {
    let ([third, fourth], mut key) = (dropout.upper(), dropout.key());
    let mut c = [[0; LANES], [0; LANES], [third; LANES], [fourth; LANES]];
    for i in 0..LANES {
        let quad = quad.wrapping_add(i as u64);
        (c[0][i], c[1][i]) = (quad as u32, (quad >> 32) as u32);
    }
    for _ in 0..10 {
        for i in 0..LANES {
            let first = u64::from(MULTIPLIERS[0]) * u64::from(c[0][i]);
            let second = u64::from(MULTIPLIERS[1]) * u64::from(c[2][i]);
            let (one, three) = (c[1][i], c[3][i]);
            c[0][i] = (second >> 32) as u32 ^ one ^ key[0];
            c[1][i] = second as u32;
            c[2][i] = (first >> 32) as u32 ^ three ^ key[1];
            c[3][i] = first as u32;
        }
        key = [key[0].wrapping_add(STEPS[0]), key[1].wrapping_add(STEPS[1])];
    }
    c
}

/// Zeros in the place of elements that are not kept, the first one being element `first`.
struct Drop<'a, F> {
    dropout: Dropout,
    first: u64,
    values: &'a mut [F],
}

impl<F: Real> Operation for Drop<'_, F> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(self) {
        let Drop { dropout, first, values } = self;
        let threshold = dropout.threshold();
        let head = (first.wrapping_neg() % 4).min(values.len() as u64) as usize;
        let (before, values) = values.split_at_mut(head);
        drop_each(&dropout, first, before);
        let quad = (first + head as u64) / 4;
        let (blocks, rest) = values.as_chunks_mut::<BLOCK>();
        let after = quad + (blocks.len() * LANES) as u64;
        for (index, block) in blocks.iter_mut().enumerate() {
            let words = words(&dropout, quad + (index * LANES) as u64);
            for i in 0..LANES {
                for w in 0..4 {
                    let value = &mut block[4 * i + w];
                    *value = if words[w][i] >= threshold { *value } else { F::ZERO };
                }
            }
        }
        drop_each(&dropout, 4 * after, rest);
    }
}

/// The same one by one.
fn drop_each<F: Real>(dropout: &Dropout, first: u64, values: &mut [F]) {
    for (element, value) in (first..).zip(values) {
        if !dropout.keeps(element) {
            *value = F::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_elements_are_those_of_the_definition() {
        let dropout = Dropout { probability: 0.3, seed: 0xfeed_0123_4567_89ab, offset: 0x1_0000_0003 };
        for first in [0, 1, 2, 3, 1000, (1 << 34) - 40] {
            for len in [0, 1, 3, 5, 31, 64, 131] {
                let mut values = vec![1.0f32; len];
                for isa in Isa::available() {
                    values.fill(1.0);
                    isa.run(Drop { dropout, first, values: &mut values });
                    let kept = |i: usize| f32::from(u8::from(dropout.keeps(first + i as u64)));
                    assert!((0..len).all(|i| values[i] == kept(i)), "{first} {len} {}", isa.name());
                }
            }
        }
    }
}
