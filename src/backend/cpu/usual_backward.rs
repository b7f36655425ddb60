//! Rows of a backward pass in which nothing is out of the ordinary, several at a time; see [`usual`](super::usual).
//!
//! The numbers are those of [`row_backward`](super::row_backward), which also takes the rows that are left out here.

use super::affine::Accumulators;
use super::elementwise::{Factor, Form, GradInput};
use super::gradient::outer_exponent;
use super::lanes::{over, tree_sums};
use super::leaf_backward::{GradientTerms, is_regular};
use super::memory::Ahead;
use super::reader::Parameter;
use super::real::Real;
use super::row_backward::{Backward, RowTerms};
use super::simd::Simd;
use super::statistics::{Statistics, Sums};
use super::stored::Stored;
use super::usual::{KnownRows, MOST, at_once, bring, row_of, run};
use crate::plan::tree::LEAF;
use crate::spec::STATISTICS;
use std::ops::Range;

impl<F: Real> Backward<'_, F> {
    /// Whether the pass is one whose rows can be usual.
    pub(super) fn has_usual_rows(&self) -> bool {
        let c = &self.constants;
        let Some(grad_input) = &self.grad_input else { return false };
        let dtype = self.input.dtype();
        let is_per_column = match self.terms {
            RowTerms::None | RowTerms::Sums => true,
            RowTerms::SubRows(count) => count == c.cols,
        };
        self.mask.is_none()
            && self.given.is_none()
            && self.sums.is_none()
            && is_per_column
            && c.is_plain()
            && (1..=LEAF).contains(&c.cols)
            && c.has_squares()
            && self.input.is_in_line()
            && self.grad_output.is_in_line()
            && grad_input.is_in_line()
            && self.grad_output.dtype() == dtype
            && grad_input.dtype() == dtype
    }
}

/// The rows of a task: `beside` of the `kept` rows that have parameters of their own, for each of `chunk`.
#[derive(Clone)]
pub(super) struct TaskRows {
    pub(super) chunk: Range<usize>,
    pub(super) beside: Range<usize>,
    pub(super) kept: usize,
    /// Parameters of a row.
    pub(super) params: usize,
}

impl TaskRows {
    pub(super) fn len(&self) -> usize {
        self.chunk.len() * self.beside.len()
    }

    /// Of the row at place `at`: its number, how many rows into the chunk it is, and its first parameter's place.
    #[inline(always)]
    pub(super) fn row(&self, at: usize) -> (usize, usize, usize) {
        let (index, j) =
            if self.beside.len() == 1 { (at, 0) } else { (at / self.beside.len(), at % self.beside.len()) };
        ((self.chunk.start + index) * self.kept + self.beside.start + j, index, j * self.params)
    }

    /// Parameters in all.
    pub(super) fn all_params(&self) -> Range<usize> {
        0..self.beside.len() * self.params
    }
}

/// Usual rows from place `from` of a task's on.
pub(super) struct UsualRows<'s, 't, 'p, F> {
    pub(super) job: &'s Backward<'t, F>,
    pub(super) rows: &'s TaskRows,
    pub(super) from: usize,
    pub(super) weight: &'s mut Parameter<'t, F>,
    pub(super) accumulators: &'s mut Accumulators<'p, F>,
    /// Scratch of a leaf.
    pub(super) tile: &'s mut [F],
}

impl<F: Real> UsualRows<'_, '_, '_, F> {
    /// Handles rows up to the first that is not usual; its place.
    pub(super) fn run(self) -> usize {
        let job = self.job;
        if !job.is_outer && !self.weight.is_shared() {
            return self.from;
        }
        run(&job.constants, job.input.dtype(), self)
    }
}

/// Whether an outer weight passes no exponent to the result, and no NaN; see [`Stored::store_numbers`].
#[inline(always)]
fn is_usual_outer<F: Real>(w: F) -> bool {
    outer_exponent(w) == 0 && Factor::One(w).is_number()
}

/// What a row's gradient needs.
#[derive(Clone, Copy)]
struct Known<F> {
    s: Statistics<F>,
    sums: Sums<F>,
    outer: Option<F>,
}

impl<F: Real> KnownRows for UsualRows<'_, '_, '_, F> {
    #[inline(always)]
    fn call<S: Simd, T: Stored, const CENTRED: bool>(self) -> usize {
        let UsualRows { job, rows, from, weight, accumulators, tile } = self;
        let tile: &mut [T] = bytemuck::cast_slice_mut(tile);
        let Some(sink) = &job.grad_input else { return from };
        let c = &job.constants;
        let cols = c.cols;
        let (w, mut outer_weight) =
            if job.is_outer { (Factor::Absent, Some(weight)) } else { (weight.get(0, 0, cols), None) };
        let count = F::of(cols as f64);
        let zero = F::ZERO;
        let s = Statistics { mean: zero, correction: zero, rstd: zero, exponent: 0 };
        let mut known = [Known { s, sums: Sums::none(), outer: None }; MOST];
        let at_once = at_once(2 * cols);
        let (mut of_g, mut of_x, mut of_dx) =
            (job.grad_output.offsets(), job.input.offsets(), sink.offsets());
        let mut of_s = job.statistics.offsets();
        let (mut ahead_g, mut ahead_x) = (of_g.clone(), of_x.clone());
        let mut places = [[0; 2]; MOST];
        let mut first = from;
        loop {
            let wanted = at_once.min(rows.len() - first);
            let mut usual = 0;
            while usual < wanted {
                let (row, ..) = rows.row(first + usual);
                let s = Statistics::from_numbers(job.statistics.slice(of_s.of(row), STATISTICS));
                let outer = outer_weight.as_mut().and_then(|weight| weight.get(row, 0, cols).at(0));
                if s.exponent != 0 || outer.is_some_and(|w| !is_usual_outer(w)) {
                    break;
                }
                places[usual] = [of_g.of(row), of_x.of(row)];
                let [g, x] = places[usual];
                let g = bring(&job.grad_output, g, &mut tile[usual * cols..][..cols]);
                let x = job.input.slice::<T>(x, cols);
                let terms = GradientTerms { g, x, w, mask: None, s };
                let [s1, s2] = tree_sums::<S, F, _, 2>(c.lanes, &mut Form::<_, CENTRED>(terms));
                if !is_regular([s1, s2], count) {
                    break;
                }
                let sums = Sums { count, s1, s2, ties: zero, g_exponent: 0, w_exponent: 0 };
                known[usual] = Known { s, sums, outer };
                usual += 1;
            }
            for (i, Known { s, sums, outer }) in known[..usual].iter().enumerate() {
                let (row, index, param) = rows.row(first + i);
                if (first + i).is_multiple_of(rows.beside.len()) {
                    accumulators.begin_row(index, rows.all_params());
                }
                let (weight_sums, bias_sums) = if job.terms == RowTerms::Sums {
                    accumulators.add_sums(param, sums);
                    (None, None)
                } else {
                    accumulators.columns(param, rows.params)
                };
                let (c1, c2) = sums.means(c, s);
                let [g, x] = places[i];
                let g = row_of(&job.grad_output, g, &tile[i * cols..][..cols]);
                let x = job.input.slice::<T>(x, cols);
                let next = row + at_once;
                let next = (next < job.rows).then(|| {
                    let [g, x] = [ahead_g.of(next), ahead_x.of(next)];
                    let (g, x) = (job.grad_output.slice::<T>(g, cols), job.input.slice::<T>(x, cols));
                    [Ahead::of(g), Ahead::of(x)]
                });
                let dx: &mut [T] = sink.slice(of_dx.of(row), cols);
                over::<S>(&mut Form::<_, CENTRED>(GradInput {
                    g,
                    x,
                    w,
                    u: None,
                    s: *s,
                    c1,
                    c2,
                    outer: *outer,
                    weight_sums,
                    bias_sums,
                    streamed: job.streamed.and_then(|streaming| streaming.to(dx)),
                    dx,
                    next,
                }));
            }
            first += usual;
            if usual < wanted || first == rows.len() {
                return first;
            }
        }
    }
}
