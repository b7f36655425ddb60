//! Rows of a forward pass in which nothing is out of the ordinary, several at a time, from their elements to their
//! results as one operation for [`Isa::run`](super::Isa): most of what a short row costs is what is done once a row, and
//! here that is a few instructions, of which the processor overlaps those of neighbouring rows.
//!
//! The numbers are those of [`row`](super::row), which also takes the rows that are left out here.

use super::elementwise::{Apply, Factor, Form};
use super::lanes::over;
use super::leaf::{first_round, is_regular};
use super::memory::{Ahead, Streaming};
use super::reader::Parameter;
use super::real::{Real, two_sum};
use super::row::Forward;
use super::source::Source;
use super::statistics::{Constants, Measure, Moments, Statistics};
use super::stored::{Stored, as_compute, as_compute_mut, narrow_row, typed, widen_row};
use crate::plan::tree::LEAF;
use crate::spec::EpsPosition;
use crate::tensor::DType;
use pulp::NullaryFnOnce;
use std::marker::PhantomData;
use std::ops::Range;

/// The most rows at a time.
pub(super) const MOST: usize = 16;
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
            && matches!(c.measure, Measure::Moments | Measure::Squares)
            && self.input.is_in_line()
            && output.is_in_line()
            && self.input.dtype() == output.dtype()
    }
}

/// Usual rows at the start of some rows.
pub(super) struct UsualRows<'s, 't, F> {
    pub(super) job: &'s Forward<'t, F>,
    pub(super) rows: Range<usize>,
    pub(super) weight: &'s mut Parameter<'t, F>,
    pub(super) bias: &'s mut Parameter<'t, F>,
    /// Scratch of a leaf each.
    pub(super) x: &'s mut [F],
    pub(super) out: &'s mut [F],
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
    fn call<T: Stored, const CENTRED: bool>(self) -> usize;
}

struct Known<R, T, const CENTRED: bool>(R, PhantomData<T>);

impl<R: KnownRows, T: Stored, const CENTRED: bool> NullaryFnOnce for Known<R, T, CENTRED> {
    type Output = usize;
    #[inline(always)]
    fn call(self) -> usize {
        self.0.call::<T, CENTRED>()
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
    fn call<T: Stored, const CENTRED: bool>(self) -> usize {
        let UsualRows { job, rows, weight, bias, x: tile, out } = self;
        let Some(sink) = &job.output else { return 0 };
        let cols = job.constants.cols;
        let at_once = at_once(cols);
        let mut parameters = if weight.is_shared() && bias.is_shared() {
            Parameters::Shared(weight.get(0, 0, cols), bias.get(0, 0, cols))
        } else {
            Parameters::OfRows(weight, bias)
        };
        let mut first = rows.start;
        while first < rows.end {
            let count = at_once.min(rows.end - first);
            let (usual, taken) = statistics::<T, F, CENTRED>(job, first..first + count, tile);
            for (i, &s) in taken[..usual].iter().enumerate() {
                let row = first + i;
                if let Some(sink) = &job.statistics {
                    sink.put(row, &s.to_numbers());
                }
                let next = row + at_once;
                let next = (next < job.rows).then(|| Ahead::of(job.input.line::<T>(next, cols)));
                let x = row_of::<T, F>(&job.input, row, &tile[i * cols..][..cols]);
                let to: &mut [T] = sink.line(row, cols);
                match as_compute_mut(to) {
                    Some(to) => {
                        let next = next.map(Ahead::cast);
                        parameters.apply::<CENTRED>(row, x, s, to, job.streamed, next);
                    }
                    None => {
                        let out = &mut out[..cols];
                        parameters.apply::<CENTRED>(row, x, s, out, None, None);
                        narrow_row(out, to, job.streamed, next.as_slice());
                    }
                }
            }
            first += usual;
            if usual < count {
                break;
            }
        }
        first - rows.start
    }
}

/// A row in the compute type: as memory lends it, or from its place in a tile.
#[inline(always)]
pub(super) fn row_of<'x, T: Stored, F: Real>(source: &Source<'x>, row: usize, tile: &'x [F]) -> &'x [F] {
    as_compute(source.line::<T>(row, tile.len())).filter(|_| source.is_lent()).unwrap_or(tile)
}

/// The same of a row that has to be brought to its place first, where memory does not lend it.
#[inline(always)]
pub(super) fn bring<'x, T: Stored, F: Real>(source: &Source<'x>, row: usize, tile: &'x mut [F]) -> &'x [F] {
    let line = source.line::<T>(row, tile.len());
    match as_compute(line).filter(|_| source.is_lent()) {
        Some(lent) => lent,
        None => {
            widen_row(line, tile);
            tile
        }
    }
}

/// The statistics of rows up to the first that is not usual, and how many those are. Rows that memory does not
/// lend are put into `tile`, one after the other.
#[inline(always)]
fn statistics<T: Stored, F: Real, const CENTRED: bool>(
    job: &Forward<'_, F>,
    rows: Range<usize>,
    tile: &mut [F],
) -> (usize, [Statistics<F>; MOST]) {
    let c = &job.constants;
    let count = F::of(c.cols as f64);
    let inv = count.recip();
    let none = Moments::none();
    let mut of_rows = [none; MOST];
    let mut usual = 0;
    for row in rows {
        let x = bring::<T, F>(&job.input, row, &mut tile[usual * c.cols..][..c.cols]);
        let round = first_round::<F, CENTRED>(c.lanes, x, inv);
        if !round.is_close || !is_regular(c.measure, round.m2, inv) {
            break;
        }
        let (mean, correction) = two_sum(round.shift, round.correction);
        of_rows[usual] = Moments { count, mean, correction, m2: round.m2, exponent: 0 };
        usual += 1;
    }
    let mut taken = [Statistics { mean: F::ZERO, correction: F::ZERO, rstd: F::ZERO, exponent: 0 }; MOST];
    let is_inside = !c.is_norm && c.eps_position == EpsPosition::Inside;
    for (s, m) in taken.iter_mut().zip(&of_rows[..usual]) {
        *s = if is_inside {
            let rstd = F::rsqrt_inside(m.m2, count, c.eps);
            Statistics { mean: m.mean, correction: m.correction, rstd, exponent: 0 }
        } else {
            m.finished(c)
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
    /// Normalizes a row.
    #[inline(always)]
    fn apply<const CENTRED: bool>(
        &mut self,
        row: usize,
        x: &[F],
        s: Statistics<F>,
        out: &mut [F],
        streamed: Option<Streaming>,
        next: Option<Ahead<F>>,
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
            over(&mut Form::<_, CENTRED>(Apply { x, w, b, s, out, streamed, next }));
            from = to;
        }
    }
}
