//! Rotary position embedding of rows in scratch memory.

use super::isa::{Isa, Operation};
use super::launch::{Folded, Tiles, alone};
use super::real::Real;
use super::simd::Simd;
use super::source::Source;
use crate::Result;
use crate::backend::Rotary;
use crate::plan::tree::LEAF;
use crate::spec::{Norm, RotaryStyle};
use crate::tensor::Layout;
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
    cols: usize,
    cos: Source<'a>,
    sin: Source<'a>,
    /// Which row of the tables each row has; without them, as the tables are walked.
    positions: Option<Source<'a>>,
}

/// What tables are walked over whose rows are chosen by positions.
pub(super) struct Tables([Folded; 2]);

impl Tables {
    pub(super) fn of(isa: Isa, rotary: Option<&Rotary<'_>>) -> Option<Self> {
        let rotary = rotary.filter(|rotary| rotary.positions.is_some())?;
        Some(Tables([&rotary.cos, &rotary.sin].map(|table| alone(isa, table.layout(), 1))))
    }
}

/// The layouts in the spec's shape of what is walked with the rows: cos, sin and positions.
pub(super) fn layouts(spec: &Norm, rotary: Option<&Rotary<'_>>) -> [Option<Layout>; 3] {
    let (Some(rotary), Some(&cols)) = (rotary, spec.shape.last()) else { return [None, None, None] };
    match rotary.positions_layout(cols) {
        Some(positions) => [None, None, Some(positions)],
        None => [Some(rotary.layout(&rotary.cos, cols)), Some(rotary.layout(&rotary.sin, cols)), None],
    }
}

impl<'a> Angles<'a> {
    /// The operands as they are walked in `folded`, from walk `first` on in the order of [`layouts`].
    pub(super) fn of(
        rotary: Option<&'a Rotary<'_>>,
        folded: &'a Folded,
        tables: Option<&'a Tables>,
        first: usize,
    ) -> Result<Option<Self>> {
        let Some(Rotary { style, pairs, cos, sin, positions }) = rotary else { return Ok(None) };
        let (cos, sin) = match tables {
            Some(Tables([of_cos, of_sin])) => {
                (of_cos.source("cos", cos, 0, false)?, of_sin.source("sin", sin, 0, false)?)
            }
            None => (folded.source("cos", cos, first, false)?, folded.source("sin", sin, first + 1, false)?),
        };
        let positions = folded.optional("positions", positions.as_ref(), first + 2)?;
        Ok(Some(Angles { style: *style, pairs: *pairs, cols: folded.grid.cols, cos, sin, positions }))
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
        for (row, line) in rows.zip(lines.chunks_exact_mut(self.cols)) {
            // The arguments' checks have seen every position.
            let row = self.positions.as_ref().map_or(row, |positions| positions.integer(row) as usize);
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

/// A pair after the turn: two products each, and one sum. Back is forth with the other sign of the sine.
#[inline(always)]
fn turned<F: Real>(turn: Turn, first: F, second: F, cos: F, sin: F) -> (F, F) {
    let sin = if turn == Turn::Back { -sin } else { sin };
    (first * cos - second * sin, second * cos + first * sin)
}

/// Pairs whose second elements lie apart from their first ones.
struct Halves<'s, F> {
    turn: Turn,
    first: &'s mut [F],
    second: &'s mut [F],
    cos: &'s [F],
    sin: &'s [F],
}

impl<F: Real> Operation for Halves<'_, F> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(self) {
        let halves = self.first.iter_mut().zip(self.second);
        for ((first, second), (&cos, &sin)) in halves.zip(self.cos.iter().zip(self.sin)) {
            (*first, *second) = turned(self.turn, *first, *second, cos, sin);
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

impl<F: Real> Operation for Neighbours<'_, F> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(self) {
        for (pair, (&cos, &sin)) in self.pairs.chunks_exact_mut(2).zip(self.cos.iter().zip(self.sin)) {
            (pair[0], pair[1]) = turned(self.turn, pair[0], pair[1], cos, sin);
        }
    }
}
