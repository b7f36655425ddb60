//! Rotary position embedding of rows in scratch memory.

use super::isa::{Isa, Operation};
use super::launch::{Folded, Tiles};
use super::real::Real;
use super::simd::Simd;
use super::source::Source;
use crate::Result;
use crate::backend::Rotary;
use crate::plan::tree::LEAF;
use crate::spec::RotaryStyle;
use std::ops::Range;

/// Which way rows are turned: by their angles, or back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Forth,
    Back,
}

/// The angles of rows.
pub(super) struct Angles<'a> {
    style: RotaryStyle,
    pairs: usize,
    cos: Source<'a>,
    sin: Source<'a>,
}

impl<'a> Angles<'a> {
    /// The tables as they are walked in `folded`, by the numbers of their walks.
    pub(super) fn new(rotary: &'a Rotary<'_>, folded: &'a Folded, walks: [usize; 2]) -> Result<Self> {
        let Rotary { style, pairs, cos, sin } = rotary;
        Ok(Angles {
            style: *style,
            pairs: *pairs,
            cos: folded.source("cos", cos, walks[0], false)?,
            sin: folded.source("sin", sin, walks[1], false)?,
        })
    }

    /// Rotates `rows`, which lie in `lines` one after the other.
    pub(super) fn rotate<F: Real>(
        &self,
        isa: Isa,
        turn: Turn,
        rows: Range<usize>,
        lines: &mut [F],
        [of_cos, of_sin, ..]: &mut Tiles<'_, F>,
    ) {
        let cols = self.cos.cols();
        for (row, line) in rows.zip(lines.chunks_exact_mut(cols)) {
            for at in (0..self.pairs).step_by(LEAF) {
                let len = LEAF.min(self.pairs - at);
                let cos = self.cos.load(row, at, of_cos, len);
                let sin = self.sin.load(row, at, of_sin, len);
                match self.style {
                    RotaryStyle::HalfSplit => {
                        let (first, second) = line.split_at_mut(self.pairs);
                        let (first, second) = (&mut first[at..at + len], &mut second[at..at + len]);
                        isa.run(Halves { turn, first, second, cos, sin });
                    }
                    RotaryStyle::Interleaved => {
                        let pairs = &mut line[2 * at..2 * (at + len)];
                        isa.run(Neighbours { turn, pairs, cos, sin });
                    }
                }
            }
        }
    }
}

/// A pair after the turn: two products each, and one sum.
#[inline(always)]
fn turned<F: Real, const BACK: bool>(first: F, second: F, cos: F, sin: F) -> (F, F) {
    if BACK {
        (first * cos + second * sin, second * cos - first * sin)
    } else {
        (first * cos - second * sin, second * cos + first * sin)
    }
}

/// Pairs whose second elements lie apart from their first ones.
struct Halves<'s, F> {
    turn: Turn,
    first: &'s mut [F],
    second: &'s mut [F],
    cos: &'s [F],
    sin: &'s [F],
}

impl<F: Real> Halves<'_, F> {
    #[inline(always)]
    fn run<const BACK: bool>(self) {
        let halves = self.first.iter_mut().zip(self.second);
        for ((first, second), (&cos, &sin)) in halves.zip(self.cos.iter().zip(self.sin)) {
            (*first, *second) = turned::<F, BACK>(*first, *second, cos, sin);
        }
    }
}

impl<F: Real> Operation for Halves<'_, F> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(self) {
        match self.turn {
            Turn::Forth => self.run::<false>(),
            Turn::Back => self.run::<true>(),
        }
    }
}

/// Pairs of neighbours.
struct Neighbours<'s, F> {
    turn: Turn,
    pairs: &'s mut [F],
    cos: &'s [F],
    sin: &'s [F],
}

impl<F: Real> Neighbours<'_, F> {
    #[inline(always)]
    fn run<const BACK: bool>(self) {
        for (pair, (&cos, &sin)) in self.pairs.chunks_exact_mut(2).zip(self.cos.iter().zip(self.sin)) {
            (pair[0], pair[1]) = turned::<F, BACK>(pair[0], pair[1], cos, sin);
        }
    }
}

impl<F: Real> Operation for Neighbours<'_, F> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(self) {
        match self.turn {
            Turn::Forth => self.run::<false>(),
            Turn::Back => self.run::<true>(),
        }
    }
}
