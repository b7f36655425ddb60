//! Rows of a forward pass in which nothing is out of the ordinary, several at a time, from their elements to their
//! results as one operation for [`Isa::run`](super::Isa): most of what a short row costs is what is done once a row, and
//! here that is a few instructions, of which the processor overlaps those of neighbouring rows.
//!
//! The numbers are those of [`row`](super::row), which also takes the rows that are left out here.

use super::elementwise::{Apply, Factor, Form};
use super::isa::Operation;
use super::lanes::over;
use super::leaf::{first_round, is_regular};
use super::memory::{Ahead, Streaming};
use super::reader::Parameter;
use super::real::{Real, two_sum};
use super::row::Forward;
use super::simd::Simd;
use super::sink::Sink;
use super::source::Source;
use super::statistics::{Constants, Moments, Statistics};
use super::stored::{Stored, typed};
use crate::plan::RowOffsets;
use crate::plan::tree::LEAF;
use crate::spec::{EpsPosition, STATISTICS};
use crate::tensor::DType;
use std::marker::PhantomData;
use std::ops::Range;

/// The most rows at a time.
pub(super) const MOST: usize = 16;
/// Rows whose roots are taken together.
const TOGETHER: usize = 4;
/// Elements at a time, about: a quarter of a first-level cache of 32 KiB.
const AT_ONCE: usize = 2048;

/// How many rows of `cols` columns are taken at a time.
pub(super) fn at_once(cols: usize) -> usize {
    (AT_ONCE / cols.max(1)).clamp(1, MOST)
}

impl<F: Real> Forward<'_, F> {
    /// Whether the pass is one whose rows can be usual.
    pub(super) fn has_usual_rows(&self) -> bool {
        let c = &self.constants;
        let Some(output) = &self.output else { return false };
        self.mask.is_none()
            && self.given.is_none()
            && self.moments.is_none()
            && c.is_plain()
            && (1..=LEAF).contains(&c.cols)
            && c.has_squares()
            && self.input.is_in_line()
            && output.is_in_line()
            && self.input.dtype() == output.dtype()
    }

    /// Whether there are parameters whose NaN would have to be looked for; see [`Stored::store_numbers`].
    pub(super) fn has_wide_parameters<T: Stored>(&self) -> bool {
        [self.weight, self.bias]
            .iter()
            .flatten()
            .any(|source| source.dtype() != T::DTYPE && T::DTYPE != F::DTYPE)
    }
}

/// Usual rows at the start of some rows.
pub(super) struct UsualRows<'s, 't, F> {
    pub(super) job: &'s Forward<'t, F>,
    pub(super) rows: Range<usize>,
    pub(super) weight: &'s mut Parameter<'t, F>,
    pub(super) bias: &'s mut Parameter<'t, F>,
    /// Scratch of a leaf.
    pub(super) tile: &'s mut [F],
}

impl<F: Real> UsualRows<'_, '_, F> {
    /// Normalizes rows up to the first that is not usual; how many it has normalized.
    pub(super) fn run(self) -> usize {
        let job = self.job;
        run(&job.constants, job.input.dtype(), self)
    }
}

/// Rows whose type in memory, and whether they are centred, is known when what is done to them is compiled.
pub(super) trait KnownRows {
    /// Handles rows up to the first that is not usual; how many, or the place of that one.
    fn call<S: Simd, T: Stored, const CENTRED: bool>(self) -> usize;
}

struct Known<R, T, const CENTRED: bool>(R, PhantomData<T>);

impl<R: KnownRows, T: Stored, const CENTRED: bool> Operation for Known<R, T, CENTRED> {
    type Output = usize;
    #[inline(always)]
    fn call<S: Simd>(self) -> usize {
        self.0.call::<S, T, CENTRED>()
    }
}

/// Handles rows that lie in memory as `dtype`.
pub(super) fn run<F: Real>(c: &Constants<F>, dtype: DType, rows: impl KnownRows) -> usize {
    macro_rules! run {
        ($t:ty) => {
            if c.is_centred() {
                c.isa.run(Known::<_, $t, true>(rows, PhantomData))
            } else {
                c.isa.run(Known::<_, $t, false>(rows, PhantomData))
            }
        };
    }
    typed!(dtype, F, run)
}

impl<F: Real> KnownRows for UsualRows<'_, '_, F> {
    #[inline(always)]
    fn call<S: Simd, T: Stored, const CENTRED: bool>(self) -> usize {
        let UsualRows { job, rows, weight, bias, tile } = self;
        let tile: &mut [T] = bytemuck::cast_slice_mut(tile);
        let Some(sink) = &job.output else { return 0 };
        let cols = job.constants.cols;
        let at_once = at_once(cols);
        let mut parameters = if weight.is_shared() && bias.is_shared() {
            Parameters::Shared(weight.get(0, 0, cols), bias.get(0, 0, cols))
        } else {
            Parameters::OfRows(weight, bias)
        };
        let are_numbers = !job.has_wide_parameters::<T>();
        let (mut from, mut ahead, mut to) = (job.input.offsets(), job.input.offsets(), sink.offsets());
        let mut of_statistics = job.statistics.as_ref().map(Sink::offsets);
        let mut places = [0; MOST];
        let mut first = rows.start;
        while first < rows.end {
            let count = at_once.min(rows.end - first);
            let (usual, taken) =
                statistics::<S, T, F, CENTRED>(job, first..first + count, &mut from, &mut places, tile);
            for (i, &s) in taken[..usual].iter().enumerate() {
                let row = first + i;
                if !are_numbers && !parameters.are_numbers(row, cols) {
                    return row - rows.start;
                }
                if let (Some(sink), Some(offsets)) = (&job.statistics, &mut of_statistics) {
                    sink.slice(offsets.of(row), STATISTICS).copy_from_slice(&s.to_numbers());
                }
                let next = row + at_once;
                let next = (next < job.rows).then(|| Ahead::of(job.input.slice::<T>(ahead.of(next), cols)));
                let x = row_of(&job.input, places[i], &tile[i * cols..][..cols]);
                let out = sink.slice(to.of(row), cols);
                parameters.apply::<S, T, CENTRED>(row, x, s, out, job.streamed, next);
            }
            first += usual;
            if usual < count {
                break;
            }
        }
        first - rows.start
    }
}

/// The row in line from element `at` on: as memory lends it, or from its place in a tile.
#[inline(always)]
pub(super) fn row_of<'x, T: Stored>(source: &Source<'x>, at: isize, tile: &'x [T]) -> &'x [T] {
    if source.is_lent() { source.slice(at, tile.len()) } else { tile }
}

/// The same of a row that has to be brought to its place first, where memory does not lend it.
#[inline(always)]
pub(super) fn bring<'x, T: Stored>(source: &Source<'x>, at: isize, tile: &'x mut [T]) -> &'x [T] {
    let line = source.slice(at, tile.len());
    if source.is_lent() {
        return line;
    }
    tile.copy_from_slice(line);
    tile
}

/// The statistics of rows up to the first that is not usual, and how many those are. Rows that memory does not
/// lend are put into `tile`, one after the other.
#[inline(always)]
fn statistics<S: Simd, T: Stored, F: Real, const CENTRED: bool>(
    job: &Forward<'_, F>,
    rows: Range<usize>,
    from: &mut RowOffsets<'_>,
    places: &mut [isize; MOST],
    tile: &mut [T],
) -> (usize, [Statistics<F>; MOST]) {
    let c = &job.constants;
    let count = F::of(c.cols as f64);
    let inv = count.recip();
    let mut of_rows = [[F::ZERO; MOST]; 3];
    let mut usual = 0;
    for row in rows {
        let at = from.of(row);
        places[usual] = at;
        let x = bring::<T>(&job.input, at, &mut tile[usual * c.cols..][..c.cols]);
        let round = first_round::<S, T, F, CENTRED>(c.lanes, x, inv);
        if !round.is_close || !is_regular(c.measure, round.m2, inv) {
            break;
        }
        let (mean, correction) = two_sum(round.shift, round.correction);
        for (to, number) in of_rows.iter_mut().zip([mean, correction, round.m2]) {
            to[usual] = number;
        }
        usual += 1;
    }
    let [mean, correction, mut m2] = of_rows;
    let is_inside = !c.is_norm && c.eps_position == EpsPosition::Inside;
    if is_inside {
        // Four at a time, of which the last may be of no row, since the processor divides four as quickly as one.
        for four in m2[..usual.next_multiple_of(TOGETHER).min(MOST)].chunks_exact_mut(TOGETHER) {
            for m2 in four {
                *m2 = F::rsqrt_inside(*m2, count, c.eps);
            }
        }
    }
    let none = Statistics { mean: F::ZERO, correction: F::ZERO, rstd: F::ZERO, exponent: 0 };
    let mut taken = [none; MOST];
    for (i, s) in taken[..usual].iter_mut().enumerate() {
        *s = if is_inside {
            Statistics { mean: mean[i], correction: correction[i], rstd: m2[i], exponent: 0 }
        } else {
            Moments { count, mean: mean[i], correction: correction[i], m2: m2[i], exponent: 0 }.finished(c)
        };
    }
    (usual, taken)
}

/// Weight and bias.
enum Parameters<'s, 't, F> {
    /// The same in every row.
    Shared(Factor<'s, F>, Factor<'s, F>),
    OfRows(&'s mut Parameter<'t, F>, &'s mut Parameter<'t, F>),
}

impl<F: Real> Parameters<'_, '_, F> {
    /// Whether none of a row's is NaN.
    #[inline(always)]
    fn are_numbers(&mut self, row: usize, cols: usize) -> bool {
        match self {
            Parameters::Shared(w, b) => w.is_number() && b.is_number(),
            Parameters::OfRows(weight, bias) => {
                weight.get(row, 0, cols).is_number() && bias.get(row, 0, cols).is_number()
            }
        }
    }

    /// Normalizes a row.
    #[inline(always)]
    fn apply<S: Simd, T: Stored, const CENTRED: bool>(
        &mut self,
        row: usize,
        x: &[T],
        s: Statistics<F>,
        out: &mut [T],
        streamed: Option<Streaming>,
        next: Option<Ahead<T>>,
    ) {
        let mut from = 0;
        while from < x.len() {
            let (to, w, b) = match self {
                Parameters::Shared(w, b) => (x.len(), *w, *b),
                Parameters::OfRows(weight, bias) => {
                    // Run of equal parameters by run.
                    let ends = [weight.run_end(from), bias.run_end(from)];
                    let to = ends.into_iter().flatten().fold(x.len(), usize::min);
                    (to, weight.get(row, from, to - from), bias.get(row, from, to - from))
                }
            };
            let (x, out, next) = (&x[from..to], &mut out[from..to], next.map(|next| next.after(from)));
            let streamed = streamed.and_then(|streaming| streaming.to(out));
            over::<S>(&mut Form::<_, CENTRED>(Apply { x, w, b, s, out, streamed, next }));
            from = to;
        }
    }
}
