//! The `row` schedule: statistics over a row, then scale and shift.
//!
//! A chunk of rows is one task of one thread. A row of one leaf is loaded once and stays in the first-level cache;
//! longer ones are loaded leaf by leaf, once for their moments and once to be normalized. The operations and their
//! order are those of `docs/numerics.md`.

use super::elementwise::{Affine, Apply, Factor, Normalize, run};
use super::lanes::Over;
use super::launch::Tiles;
use super::leaf;
use super::memory::{Ahead, Streaming, finish_streaming};
use super::reader::{Parameter, Reader};
use super::real::Real;
use super::sink::Sink;
use super::source::Source;
use super::statistics::{Constants, Moments, Statistics};
use super::stored::Stored;
use super::usual::UsualRows;
use crate::plan::tree::{LEAF, Pairwise};
use crate::spec::STATISTICS;
use crate::tensor::{DType, Element};
use std::ops::Range;

/// What the tasks of a forward pass work on.
#[derive(Clone, Copy)]
pub(super) struct Forward<'a, F> {
    pub(super) constants: Constants<F>,
    pub(super) rows: usize,
    /// Leave to write the output past the caches.
    pub(super) streamed: Option<Streaming>,
    pub(super) input: Source<'a>,
    pub(super) weight: Option<Source<'a>>,
    pub(super) bias: Option<Source<'a>>,
    pub(super) mask: Option<Source<'a>>,
    pub(super) given: Option<Source<'a>>,
    pub(super) output: Option<Sink<'a>>,
    pub(super) statistics: Option<Sink<'a>>,
    pub(super) moments: Option<Sink<'a>>,
}

/// A forward pass's operands beside one thread's tiles.
pub(super) struct Rows<'j, 't, F> {
    pub(super) job: &'j Forward<'t, F>,
    x: Reader<'t, F>,
    mask: Option<Reader<'t, F>>,
    pub(super) weight: Parameter<'t, F>,
    pub(super) bias: Parameter<'t, F>,
    out: &'t mut [F],
    scaled: &'t mut [F],
}

impl<'j, 't, F: Real> Rows<'j, 't, F> {
    pub(super) fn new(job: &'j Forward<'t, F>, tiles: Tiles<'t, F>) -> Self {
        let [x, mask, weight, bias, out, scaled, ..] = tiles;
        Rows {
            job,
            x: Reader::new(job.input, x),
            mask: job.mask.map(|source| Reader::new(source, mask)),
            weight: Parameter::new(job.weight, job.constants.weight_offset, weight),
            bias: Parameter::new(job.bias, F::ZERO, bias),
            out,
            scaled,
        }
    }

    /// Normalizes rows.
    pub(super) fn forward(&mut self, rows: Range<usize>) {
        let has_usual_rows = self.job.has_usual_rows();
        let mut row = rows.start;
        while row < rows.end {
            if has_usual_rows {
                row += self.usual(row..rows.end);
            }
            if row < rows.end {
                let s = self.statistics(row);
                if self.job.output.is_some() {
                    self.apply(row, s, 0..self.job.constants.cols);
                }
                row += 1;
            }
        }
        if self.job.streamed.is_some() {
            finish_streaming();
        }
    }

    /// Normalizes rows up to the first that is out of the ordinary; how many.
    fn usual(&mut self, rows: Range<usize>) -> usize {
        let Rows { job, weight, bias, scaled: tile, .. } = self;
        UsualRows { job, rows, weight, bias, tile }.run()
    }

    /// A row's statistics, given or taken; written where they are asked for.
    pub(super) fn statistics(&mut self, row: usize) -> Statistics<F> {
        let mut s = None;
        if self.job.given.is_none() || self.job.moments.is_some() {
            s = Some(self.job.finish(row, self.moments(row)));
        }
        self.job.settle(row, s)
    }

    /// A row's moments.
    fn moments(&mut self, row: usize) -> Moments<F> {
        let Constants { cols, measure, .. } = self.job.constants;
        if cols <= LEAF {
            return self.leaf_moments(row, 0);
        }
        let mut runs = Pairwise::new(Moments::none());
        for leaf in 0..cols.div_ceil(LEAF) {
            runs.push_by(self.leaf_moments(row, leaf), |a, b| a.merged(measure, b));
        }
        runs.total_by(|a, b| a.merged(measure, b)).unwrap_or(Moments::none())
    }

    /// The moments of one leaf of a row.
    pub(super) fn leaf_moments(&mut self, row: usize, leaf: usize) -> Moments<F> {
        let c = &self.job.constants;
        let at = leaf * LEAF;
        let len = LEAF.min(c.cols - at);
        let seen = len.min(c.prefix.saturating_sub(at));
        if let Some(moments) = self.direct_moments(row, (at, len), seen) {
            return moments;
        }
        let x = &self.x.get(row, at, len)[..seen];
        let mask = self.mask.as_mut().map(|mask| &mask.get(row, at, len)[..seen]);
        leaf::moments(c, x, mask, self.scaled)
    }

    /// Normalizes some columns of a row.
    pub(super) fn apply(&mut self, row: usize, s: Statistics<F>, cols: Range<usize>) {
        let job = self.job;
        let Some(sink) = &job.output else { return };
        let c = &job.constants;
        let mut at = cols.start;
        while at < cols.end {
            let end = cols.end.min(piece_end(at, [job.input.run_end(at), sink.run_end(at)]));
            let len = end - at;
            if self.direct_apply(row, s, (at, len)) {
                at = end;
                continue;
            }
            let next = self.next(row, end, len);
            let mut x = self.x.get(row, at, len);
            if s.exponent != 0 {
                leaf::scale_all(x, -s.exponent, &mut self.scaled[..len]);
                x = &self.scaled[..len];
            }
            let out = sink.begin(row, at, self.out, len);
            let streamed = job.streamed.filter(|_| sink.is_direct::<F>(row, at, len));
            let (w, b, y) = (Factor::Absent, Factor::Absent, &mut *out);
            let pass = Apply { x, w, b, s, out: y, streamed, next };
            by_runs([&mut self.weight, &mut self.bias], row, at, pass, |pass| apply(c, pass));
            if let Some(mask) = &mut self.mask {
                clear_masked(mask.get(row, at, len), out);
            }
            sink.commit(row, at, out);
            at = end;
        }
    }

    /// What is read after the columns up to `end` of a row: the ones after them, or the next row's.
    pub(super) fn next<T: Element>(&self, row: usize, end: usize, len: usize) -> Option<Ahead<T>> {
        let job = self.job;
        let (row, col) = if end < job.constants.cols { (row, end) } else { (row + 1, 0) };
        if row >= job.rows {
            return None;
        }
        let len = len.min(job.constants.cols - col).min(job.input.run_end(col) - col);
        job.input.lend(row, col, len).map(Ahead::of)
    }
}

/// Runs a pass over columns from `at` on of a row, run of equal parameters by run.
pub(super) fn by_runs<T: Stored, F: Real>(
    [weight, bias]: [&mut Parameter<'_, F>; 2],
    row: usize,
    at: usize,
    pass: Apply<'_, T, F>,
    mut each: impl FnMut(Apply<'_, T, F>),
) {
    let Apply { x, s, out, streamed, next, .. } = pass;
    let mut from = 0;
    while from < x.len() {
        let ends = [weight.run_end(at + from), bias.run_end(at + from)];
        let to = ends.into_iter().flatten().fold(at + x.len(), usize::min) - at;
        let (w, b) = (weight.get(row, at + from, to - from), bias.get(row, at + from, to - from));
        let (x, next) = (&x[from..to], next.map(|next| next.after(from)));
        let out = &mut out[from..to];
        let streamed = streamed.and_then(|streaming| streaming.to(out));
        each(Apply { x, w, b, s, out, streamed, next });
        from = to;
    }
}

/// Where a piece that starts at column `at` ends: with its leaf of columns, or with the run of columns that lie side by
/// side if that is long enough to be worth a piece of its own.
pub(super) fn piece_end(at: usize, runs: [usize; 2]) -> usize {
    /// Shorter runs are copied to a tile together.
    const LEAST: usize = 256;
    let leaf = (at / LEAF + 1) * LEAF;
    let run = runs[0].min(runs[1]);
    if run - at >= LEAST { run.min(at + LEAF) } else { leaf.min(at + LEAF) }
}

impl<F: Real> Forward<'_, F> {
    /// The statistics of a row with these moments, which are written where they are asked for.
    pub(super) fn finish(&self, row: usize, moments: Moments<F>) -> Statistics<F> {
        if let Some(sink) = &self.moments {
            sink.put(row, &moments.to_numbers());
        }
        moments.finished(&self.constants)
    }

    /// The statistics to use for a row: those given before those taken. Written where they are asked for.
    pub(super) fn settle(&self, row: usize, taken: Option<Statistics<F>>) -> Statistics<F> {
        let given = self.given.map(|given| Statistics::from_numbers(given.numbers(row, STATISTICS)));
        let s = given.or(taken).unwrap_or_else(|| Moments::none().finished(&self.constants));
        if let Some(sink) = &self.statistics {
            sink.put(row, &s.to_numbers());
        }
        s
    }
}

/// Runs the pass; with a rounding of `x_hat` in between where the spec has one.
fn apply<F: Real>(c: &Constants<F>, pass: Apply<'_, F, F>) {
    let Some(dtype) = c.rounded else { return run(c, pass) };
    let Apply { x, w, b, s, out, .. } = pass;
    run(c, Normalize { x, s, hat: &mut *out });
    round_all(out, dtype);
    c.isa.run(Over(Affine { w, b, out }));
}

/// Zero where the mask is.
pub(super) fn clear_masked<F: Real>(mask: &[F], values: &mut [F]) {
    for (y, mask) in values.iter_mut().zip(mask) {
        *y = if *mask == F::ZERO { F::ZERO } else { *y };
    }
}

/// Rounds each number to `dtype`.
pub(super) fn round_all<F: Real>(values: &mut [F], dtype: DType) {
    match dtype {
        DType::BF16 => values.iter_mut().for_each(|y| *y = F::from_bf16(y.to_bf16())),
        _ => values.iter_mut().for_each(|y| *y = y.rounded_to(dtype)),
    }
}
