//! Passes of the `column` schedule over *lines*: what one column has of neighbouring rows, side by side in memory. They
//! are read in the order of memory, as each operand has them, and arithmetic goes along rows.
#![allow(clippy::needless_range_loop, reason = "several arrays are walked by one index")]

use super::lanes::{BLOCK, Block, read, write};
use super::line_sums::GradientsOfLines;
use super::memory::{Ahead, Streaming, store};
use super::real::Real;
use super::sink::Sink;
use super::source::Source;
use super::stored::Stored;
use pulp::NullaryFnOnce;
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
    pub(super) fn block<const WHOLE: bool, F: Real>(&self, index: usize, at: usize, len: usize) -> Block<F> {
        let first = self.lines.at + index as isize * self.lines.stride + at as isize;
        let part: &[T] = self.source.slice(first, len);
        Ahead::of(part).after_signed(AHEAD * self.lines.stride).touch(0);
        read::<WHOLE, T, F>(part, 0, len)
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
    fn block(self, col: usize, at: usize) -> Option<Block<F>> {
        match self {
            LineFactor::Absent => None,
            LineFactor::Rows(each) => Some(read::<true, F, F>(each, at, BLOCK)),
            LineFactor::Columns(each) => Some([each[col]; BLOCK]),
        }
    }

    #[inline(always)]
    pub(super) fn times(self, col: usize, at: usize, y: &mut Block<F>) {
        if let Some(w) = self.block(col, at) {
            for i in 0..BLOCK {
                y[i] = y[i] * w[i];
            }
        }
    }

    #[inline(always)]
    fn plus(self, col: usize, at: usize, y: &mut Block<F>) {
        if let Some(b) = self.block(col, at) {
            for i in 0..BLOCK {
                y[i] += b[i];
            }
        }
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
    /// `x` becomes `x_hat`.
    #[inline(always)]
    pub(super) fn normalize<const CENTRED: bool>(&self, at: usize, x: &mut Block<F>) {
        if CENTRED {
            let mean = read::<true, F, F>(self.mean, at, BLOCK);
            let correction = read::<true, F, F>(self.correction, at, BLOCK);
            for i in 0..BLOCK {
                x[i] = (x[i] - mean[i]) - correction[i];
            }
        }
        let rstd = read::<true, F, F>(self.rstd, at, BLOCK);
        for i in 0..BLOCK {
            x[i] = x[i] * rstd[i];
        }
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
    fn write<F: Real>(&self, step: &impl Step<F>) {
        let Lines { count, width, .. } = self.lines;
        let whole = width - width % BLOCK;
        for index in 0..count {
            let streamed = self.streamed.and_then(|streaming| streaming.to(self.part(index, 0, width)));
            for at in (0..whole).step_by(BLOCK) {
                let y = step.step::<true>(index, at, BLOCK);
                store(&y, self.part(index, at, BLOCK), 0, streamed);
            }
            if whole < width {
                let y = step.step::<false>(index, whole, width - whole);
                write::<false, T, F>(&y, self.part(index, whole, width - whole), 0, width - whole);
            }
        }
    }
}

/// What a block of a result's line is.
trait Step<F> {
    /// Of line `index`, the rows from `at` on: a block if `WHOLE`, else `len`.
    fn step<const WHOLE: bool>(&self, index: usize, at: usize, len: usize) -> Block<F>;
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
    fn step<const WHOLE: bool>(&self, index: usize, at: usize, len: usize) -> Block<F> {
        let mut y = self.x.block::<WHOLE, F>(index, at, len);
        for scale in self.scales.iter().flatten() {
            let scale = read::<true, F, F>(scale, at, BLOCK);
            for i in 0..BLOCK {
                y[i] = y[i] * scale[i];
            }
        }
        self.s.normalize::<CENTRED>(at, &mut y);
        self.w.times(self.col + index, at, &mut y);
        self.b.plus(self.col + index, at, &mut y);
        y
    }
}

impl<T: Stored, F: Real, const CENTRED: bool> NullaryFnOnce for ApplyLines<'_, '_, T, F, CENTRED> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        self.out.write(&self);
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
    fn step<const WHOLE: bool>(&self, index: usize, at: usize, len: usize) -> Block<F> {
        let GradientsOfLines { g, x, s, w, col } = &self.terms;
        let mut hat = x.block::<WHOLE, F>(index, at, len);
        s.normalize::<CENTRED>(at, &mut hat);
        let mut d = g.block::<WHOLE, F>(index, at, len);
        w.times(col + index, at, &mut d);
        let c1 = read::<true, F, F>(self.c1, at, BLOCK);
        let c2 = read::<true, F, F>(self.c2, at, BLOCK);
        let rstd = read::<true, F, F>(s.rstd, at, BLOCK);
        for i in 0..BLOCK {
            d[i] = rstd[i] * ((d[i] - c1[i]) - hat[i] * c2[i]);
        }
        self.outer.times(col + index, at, &mut d);
        d
    }
}

impl<T: Stored, F: Real, const CENTRED: bool> NullaryFnOnce for GradientLines<'_, '_, T, F, CENTRED> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        self.out.write(&self);
    }
}
