//! Passes of the `column` schedule over *lines*: what one column has of neighbouring rows, side by side in memory. They
//! are read in the order of memory, as each operand has them, and arithmetic goes along rows.

use super::isa::Operation;
use super::lanes::{read, write};
use super::line_sums::GradientsOfLines;
use super::memory::{Ahead, Streaming};
use super::real::Real;
use super::simd::{BLOCK, Block, Numbers, Simd};
use super::sink::Sink;
use super::source::Source;
use super::stored::Stored;
use std::marker::PhantomData;

/// Lines that are asked for ahead of the one being read.
const AHEAD: isize = 4;

/// `count` lines of `width` rows, `stride` apart in memory from element `at` on.
#[derive(Clone, Copy)]
pub(super) struct Lines {
    pub(super) at: isize,
    pub(super) stride: isize,
    pub(super) count: usize,
    pub(super) width: usize,
}

/// Lines of an operand that is read.
pub(super) struct LinesOf<'s, 'a, T> {
    source: &'s Source<'a>,
    lines: Lines,
    of: PhantomData<T>,
}

impl<'s, 'a, T: Stored> LinesOf<'s, 'a, T> {
    pub(super) fn new(source: &'s Source<'a>, lines: Lines) -> Self {
        LinesOf { source, lines, of: PhantomData }
    }

    /// The rows from `at` on, `len` of them or a block. Asks for the same of a later line.
    #[inline(always)]
    pub(super) fn block<S: Simd, const WHOLE: bool, F: Real>(
        &self,
        index: usize,
        at: usize,
        len: usize,
    ) -> Block<S, F> {
        let first = self.lines.at + index as isize * self.lines.stride + at as isize;
        let part: &[T] = self.source.slice(first, len);
        Ahead::of(part).after_signed(AHEAD * self.lines.stride).touch(0);
        read::<S, WHOLE, T, F>(part, 0, len)
    }
}

/// One number for each row; in whole blocks.
pub(super) type Each<'a, F> = &'a [F];

/// A parameter: none, one number for each row, or one for each column.
#[derive(Clone, Copy)]
pub(super) enum LineFactor<'a, F> {
    Absent,
    Rows(Each<'a, F>),
    Columns(&'a [F]),
}

impl<F: Real> LineFactor<'_, F> {
    /// The numbers for a column's block of rows.
    #[inline(always)]
    fn block<S: Simd>(self, col: usize, at: usize) -> Option<Block<S, F>> {
        match self {
            LineFactor::Absent => None,
            LineFactor::Rows(each) => Some(read::<S, true, F, F>(each, at, BLOCK)),
            LineFactor::Columns(each) => Some(Block::<S, F>::splat(each[col])),
        }
    }

    #[inline(always)]
    pub(super) fn times<S: Simd>(self, col: usize, at: usize, y: Block<S, F>) -> Block<S, F> {
        self.block::<S>(col, at).map_or(y, |w| y * w)
    }

    #[inline(always)]
    fn plus<S: Simd>(self, col: usize, at: usize, y: Block<S, F>) -> Block<S, F> {
        self.block::<S>(col, at).map_or(y, |b| y + b)
    }
}

/// The statistics of rows; `mean` and `correction` only where they are centred.
#[derive(Clone, Copy)]
pub(super) struct LineStatistics<'a, F> {
    pub(super) mean: Each<'a, F>,
    pub(super) correction: Each<'a, F>,
    pub(super) rstd: Each<'a, F>,
}

impl<F: Real> LineStatistics<'_, F> {
    /// `x_hat`.
    #[inline(always)]
    pub(super) fn normalized<S: Simd, const CENTRED: bool>(&self, at: usize, x: Block<S, F>) -> Block<S, F> {
        let rstd = read::<S, true, F, F>(self.rstd, at, BLOCK);
        if !CENTRED {
            return x * rstd;
        }
        let mean = read::<S, true, F, F>(self.mean, at, BLOCK);
        let correction = read::<S, true, F, F>(self.correction, at, BLOCK);
        ((x - mean) - correction) * rstd
    }
}

/// Lines of a result.
pub(super) struct LinesTo<'s, 'a, T> {
    sink: &'s Sink<'a>,
    lines: Lines,
    streamed: Option<Streaming>,
    of: PhantomData<T>,
}

impl<'s, 'a, T: Stored> LinesTo<'s, 'a, T> {
    /// With leave to write them past the caches.
    pub(super) fn new(sink: &'s Sink<'a>, lines: Lines, streamed: Option<Streaming>) -> Self {
        LinesTo { sink, lines, streamed, of: PhantomData }
    }

    /// `len` rows of line `index` from `at` on. Short-lived, since the input's memory may be the same.
    #[inline(always)]
    fn part(&self, index: usize, at: usize, len: usize) -> &'a mut [T] {
        self.sink.slice(self.lines.at + index as isize * self.lines.stride + at as isize, len)
    }

    /// Writes each line by the blocks that `step` gives.
    #[inline(always)]
    fn write<S: Simd, F: Real>(&self, step: &impl Step<F>) {
        let Lines { count, width, .. } = self.lines;
        let whole = width - width % BLOCK;
        for index in 0..count {
            let streamed = self.streamed.and_then(|streaming| streaming.to(self.part(index, 0, width)));
            for at in (0..whole).step_by(BLOCK) {
                let y = step.step::<S, true>(index, at, BLOCK);
                let to = self.part(index, at, BLOCK).try_into().expect("a block");
                T::store::<S, F>(y, to, streamed);
            }
            if whole < width {
                let y = step.step::<S, false>(index, whole, width - whole);
                write::<S, false, T, F>(y, self.part(index, whole, width - whole), 0, width - whole);
            }
        }
    }
}

/// What a block of a result's line is.
trait Step<F: Real> {
    /// Of line `index`, the rows from `at` on: a block if `WHOLE`, else `len`.
    fn step<S: Simd, const WHOLE: bool>(&self, index: usize, at: usize, len: usize) -> Block<S, F>;
}

/// `out = x_hat * w + b`, with what is absent left out.
pub(super) struct ApplyLines<'s, 'a, T, F, const CENTRED: bool> {
    pub(super) x: LinesOf<'s, 'a, T>,
    /// Powers of two that the rows are multiplied with first, one after the other.
    pub(super) scales: Option<[Each<'s, F>; 3]>,
    pub(super) s: LineStatistics<'s, F>,
    pub(super) w: LineFactor<'s, F>,
    pub(super) b: LineFactor<'s, F>,
    /// The first line's column in `w` and `b`.
    pub(super) col: usize,
    pub(super) out: LinesTo<'s, 'a, T>,
}

impl<T: Stored, F: Real, const CENTRED: bool> Step<F> for ApplyLines<'_, '_, T, F, CENTRED> {
    #[inline(always)]
    fn step<S: Simd, const WHOLE: bool>(&self, index: usize, at: usize, len: usize) -> Block<S, F> {
        let mut x = self.x.block::<S, WHOLE, F>(index, at, len);
        for scale in self.scales.iter().flatten() {
            x = x * read::<S, true, F, F>(scale, at, BLOCK);
        }
        let y = self.s.normalized::<S, CENTRED>(at, x);
        self.b.plus::<S>(self.col + index, at, self.w.times::<S>(self.col + index, at, y))
    }
}

impl<T: Stored, F: Real, const CENTRED: bool> Operation for ApplyLines<'_, '_, T, F, CENTRED> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(self) {
        self.out.write::<S, F>(&self);
    }
}

/// The gradient of the input: `(rstd * ((ghat - c1) - x_hat * c2)) * outer`.
pub(super) struct GradientLines<'s, 'a, T, F, const CENTRED: bool> {
    pub(super) terms: GradientsOfLines<'s, 'a, T, F, CENTRED>,
    pub(super) c1: Each<'s, F>,
    pub(super) c2: Each<'s, F>,
    pub(super) outer: LineFactor<'s, F>,
    pub(super) out: LinesTo<'s, 'a, T>,
}

impl<T: Stored, F: Real, const CENTRED: bool> Step<F> for GradientLines<'_, '_, T, F, CENTRED> {
    #[inline(always)]
    fn step<S: Simd, const WHOLE: bool>(&self, index: usize, at: usize, len: usize) -> Block<S, F> {
        let GradientsOfLines { g, x, s, w, col } = &self.terms;
        let hat = s.normalized::<S, CENTRED>(at, x.block::<S, WHOLE, F>(index, at, len));
        let ghat = w.times::<S>(col + index, at, g.block::<S, WHOLE, F>(index, at, len));
        let c1 = read::<S, true, F, F>(self.c1, at, BLOCK);
        let c2 = read::<S, true, F, F>(self.c2, at, BLOCK);
        let rstd = read::<S, true, F, F>(s.rstd, at, BLOCK);
        self.outer.times::<S>(col + index, at, rstd * ((ghat - c1) - hat * c2))
    }
}

impl<T: Stored, F: Real, const CENTRED: bool> Operation for GradientLines<'_, '_, T, F, CENTRED> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(self) {
        self.out.write::<S, F>(&self);
    }
}
