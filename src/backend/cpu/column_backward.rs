//! The `column` schedule's backward pass; see [`column`](super::column). It has no parameters that vary within a row.

use super::Cpu;
use super::column::{LEAST_ROWS, Rows, Settled, factor, has_lines, is_simple, lines_of, width};
use super::elementwise::Factor;
use super::gradient::{outer_exponent, piece_gradient};
use super::launch::with_scratch;
use super::leaf::scale_all;
use super::leaf_backward::{Gradients, is_regular, sums};
use super::line_sums::{GradientsOfLines, LaneSums};
use super::lines::{GradientLines, LineFactor, LineStatistics, LinesOf, LinesTo};
use super::memory::finish_streaming;
use super::real::Real;
use super::row_backward::{Backward, RowTerms};
use super::statistics::{Measure, Statistics, Sums};
use super::stored::typed;
use crate::spec::SUMS;
use std::ops::Range;

/// Whether the schedule can run a backward pass.
pub(super) fn is_possible<F: Real>(job: &Backward<'_, F>, adjacent: usize) -> bool {
    let dtype = job.input.dtype();
    job.mask.is_none()
        && has_lines(&job.constants)
        && matches!(job.constants.measure, Measure::Moments | Measure::Squares)
        && !matches!(job.terms, RowTerms::SubRows(_))
        && adjacent >= LEAST_ROWS
        && job.input.has_adjacent_rows()
        && job.grad_output.has_adjacent_rows()
        && job.grad_output.dtype() == dtype
        && job.grad_input.is_none_or(|sink| sink.has_adjacent_rows() && sink.dtype() == dtype)
        && is_simple(job.weight.as_ref())
}

/// How many rows are handled together.
pub(super) fn backward_width<F: Real>(cpu: &Cpu, job: &Backward<'_, F>, adjacent: usize) -> usize {
    width(cpu, &job.constants, job.rows, adjacent, 2)
}

/// How many sums of lanes a block of rows has.
fn sums_len<F: Real>(job: &Backward<'_, F>, rows: Rows) -> usize {
    2 * job.constants.lanes * rows.pitch
}

/// Columns of a block of rows, with the numbers of both.
struct Part<'s, 't, F> {
    job: &'s Backward<'t, F>,
    rows: Rows,
    cols: Range<usize>,
    s: LineStatistics<'s, F>,
    w: LineFactor<'s, F>,
}

impl<F: Real> Part<'_, '_, F> {
    fn statistics(&self, i: usize) -> Statistics<F> {
        self.job.saved(self.rows.first + i)
    }

    /// The weight if it varies in the row, and if it does not.
    fn weights(&self) -> (LineFactor<'_, F>, LineFactor<'_, F>) {
        if self.job.is_outer { (LineFactor::Absent, self.w) } else { (self.w, LineFactor::Absent) }
    }

    /// A row's weight, as the `row` schedule has it.
    fn row_weight(&self, i: usize) -> Factor<'_, F> {
        match self.w {
            LineFactor::Absent => Factor::Absent,
            LineFactor::Rows(each) => Factor::One(each[i]),
            LineFactor::Columns(each) => Factor::Each(each, F::ZERO),
        }
    }

    /// Row `i` side by side: of the gradient, and of the input, read with the row's exponent.
    fn gather<'r>(&self, i: usize, [g, x, scaled]: [&'r mut [F]; 3]) -> (&'r [F], &'r [F]) {
        let (row, len) = (self.rows.first + i, self.cols.len());
        let (g, x, scaled) = (&mut g[..len], &mut x[..len], &mut scaled[..len]);
        self.job.grad_output.fill(row, self.cols.start, g);
        self.job.input.fill(row, self.cols.start, x);
        let exponent = self.statistics(i).exponent;
        if exponent == 0 {
            return (g, x);
        }
        scale_all(x, -exponent, scaled);
        (g, scaled)
    }

    /// The sums of the gradients of each row, `s1` and `s2`.
    fn line_sums<'r>(&self, sums: &'r mut [F]) -> [&'r [F]; 2] {
        let Part { job, rows, cols, s, .. } = self;
        let c = &job.constants;
        let (w, _) = self.weights();
        let mut lanes = LaneSums::<F, 2>::new(c.isa, c.lanes, rows.pitch, cols.len(), sums);
        let gs = lines_of(job.grad_output.runs(rows.first, cols.clone()), *rows, cols);
        let xs = lines_of(job.input.runs(rows.first, cols.clone()), *rows, cols);
        for ((col, g), (_, x)) in gs.zip(xs) {
            macro_rules! run {
                ($t:ty) => {{
                    let lines = x;
                    let (g, x) = (LinesOf::<$t>::new(&job.grad_output, g), LinesOf::<$t>::new(&job.input, x));
                    if c.is_centred() {
                        lanes.add(col, lines, GradientsOfLines::<_, _, true> { g, x, s: *s, w, col });
                    } else {
                        lanes.add(col, lines, GradientsOfLines::<_, _, false> { g, x, s: *s, w, col });
                    }
                }};
            }
            typed!(job.input.dtype(), F, run);
        }
        lanes.halved()
    }

    /// The sums of each row.
    fn sums(
        &self,
        lanes: &mut [F],
        [g_row, x_row, scaled, tile]: [&mut [F]; 4],
        mut put: impl FnMut(usize, Sums<F>),
    ) {
        let c = &self.job.constants;
        let [s1, s2] = self.line_sums(lanes);
        let count = F::of(self.cols.len() as f64);
        for i in 0..self.rows.count {
            let (s, s1, s2) = (self.statistics(i), s1[i], s2[i]);
            let sums = if s.exponent == 0 && is_regular([s1, s2], count) {
                Sums { count, s1, s2, ties: F::ZERO, g_exponent: 0, w_exponent: 0 }
            } else {
                let (g, x) = self.gather(i, [&mut *g_row, &mut *x_row, &mut *scaled]);
                let w = if self.job.is_outer { Factor::Absent } else { self.row_weight(i) };
                sums(c, Gradients { g, x, w, mask: None, seen: g.len() }, s, tile)
            };
            put(i, sums);
        }
    }

    /// The gradient of the input, written.
    fn gradient(
        &self,
        sums: &dyn Fn(usize) -> Sums<F>,
        [c_tile, g_row, x_row, scaled, ghat, u, out]: [&mut [F]; 7],
    ) {
        let Part { job, rows, cols, s, .. } = self;
        let Some(sink) = &job.grad_input else { return };
        let c = &job.constants;
        // Rows with powers of two to put back are handled one by one.
        let is_usual = |i: usize| {
            let outer = if job.is_outer { self.row_weight(i).at(0) } else { None };
            self.statistics(i).exponent == 0
                && sums(i).exponents() == (0, 0)
                && outer.is_none_or(|w| outer_exponent(w) == 0)
        };
        // In place the lines would take their gradients from them.
        let apart = !job.grad_output.is_lent() && !(0..rows.count).all(is_usual);
        if !apart {
            let (c1, c2) = c_tile.split_at_mut(rows.pitch);
            for i in 0..rows.count {
                (c1[i], c2[i]) = sums(i).means(c, &self.statistics(i));
            }
            let (c1, c2) = (&c1[..rows.pitch], &c2[..rows.pitch]);
            let (w, outer) = self.weights();
            let gs = lines_of(job.grad_output.runs(rows.first, cols.clone()), *rows, cols);
            let xs = lines_of(job.input.runs(rows.first, cols.clone()), *rows, cols);
            let tos = lines_of(sink.runs(rows.first, cols.clone()), *rows, cols);
            for (((col, g), (_, x)), (_, to)) in gs.zip(xs).zip(tos) {
                macro_rules! run {
                    ($t:ty) => {{
                        let (g, x) =
                            (LinesOf::<$t>::new(&job.grad_output, g), LinesOf::<$t>::new(&job.input, x));
                        let (s, out) = (*s, LinesTo::<$t>::new(sink, to, job.streamed));
                        if c.is_centred() {
                            let terms = GradientsOfLines::<_, _, true> { g, x, s, w, col };
                            c.isa.run(GradientLines { terms, c1, c2, outer, out });
                        } else {
                            let terms = GradientsOfLines::<_, _, false> { g, x, s, w, col };
                            c.isa.run(GradientLines { terms, c1, c2, outer, out });
                        }
                    }};
                }
                typed!(job.input.dtype(), F, run);
            }
            if job.streamed.is_some() {
                finish_streaming();
            }
        }
        for i in (0..rows.count).filter(|&i| apart || !is_usual(i)) {
            let (g, x) = self.gather(i, [&mut *g_row, &mut *x_row, &mut *scaled]);
            let out = &mut out[..g.len()];
            let operands = Gradients { g, x, w: self.row_weight(i), mask: None, seen: g.len() };
            piece_gradient(job, operands, self.statistics(i), &sums(i), [&mut *ghat, &mut *u], out);
            sink.commit(rows.first + i, cols.start, out);
        }
    }
}

/// Hands columns of a block of rows to `body`, with room for `len` numbers and seven tiles of scratch.
fn with_part<F: Real>(
    job: &Backward<'_, F>,
    rows: Rows,
    cols: Range<usize>,
    len: usize,
    body: impl FnOnce(Part<'_, '_, F>, &mut [F], [&mut [F]; 7]),
) {
    with_scratch::<F, _>(len, |[numbers, w, t0, t1, t2, t3, t4, t5, t6], room| {
        let mut settled = Settled::new(rows, numbers);
        (0..rows.count).for_each(|i| settled.put(i, job.saved(rows.first + i)));
        let w = factor(job.weight.as_ref(), job.constants.weight_offset, rows, cols.clone(), w);
        body(Part { job, rows, cols, s: settled.get(), w }, room, [t0, t1, t2, t3, t4, t5, t6]);
    });
}

/// The sums of a leaf of columns of a block of rows.
pub(super) fn leaf_sums<F: Real>(
    job: &Backward<'_, F>,
    rows: Rows,
    cols: Range<usize>,
    put: impl FnMut(usize, Sums<F>),
) {
    with_part(job, rows, cols, sums_len(job, rows), |part, lanes, [t0, t1, t2, t3, ..]| {
        part.sums(lanes, [t0, t1, t2, t3], put);
    });
}

/// The gradient of the input in columns of a block of rows whose sums are known.
pub(super) fn apply<F: Real>(
    job: &Backward<'_, F>,
    rows: Rows,
    cols: Range<usize>,
    sums: impl Fn(usize) -> Sums<F>,
) {
    with_part(job, rows, cols, 0, |part, _, tiles| part.gradient(&sums, tiles));
}

/// A block of rows of a single leaf; the rows' sums are handed to `put`.
pub(super) fn backward<F: Real>(job: &Backward<'_, F>, rows: Rows, mut put: impl FnMut(usize, &Sums<F>)) {
    let len = sums_len(job, rows);
    with_part(job, rows, 0..job.constants.cols, len + rows.pitch * SUMS, |part, room, tiles| {
        let [t0, t1, t2, t3, t4, t5, t6] = tiles;
        let (lanes, numbers) = room.split_at_mut(len);
        let mut keep = |i: usize, taken: Option<Sums<F>>| {
            let sums = job.settle(rows.first + i, taken);
            put(i, &sums);
            numbers[i * SUMS..][..SUMS].copy_from_slice(&sums.to_numbers());
        };
        if job.needs_sums() {
            let tiles = [&mut *t0, &mut *t1, &mut *t2, &mut *t3];
            part.sums(lanes, tiles, |i, sums| keep(i, Some(sums)));
        } else {
            (0..rows.count).for_each(|i| keep(i, None));
        }
        let sums = |i: usize| Sums::from_numbers(&numbers[i * SUMS..][..SUMS]);
        part.gradient(&sums, [t0, t1, t2, t3, t4, t5, t6]);
    });
}
