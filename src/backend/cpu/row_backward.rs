//! The `row` schedule's backward pass: the sums of each row, then the gradient of the input and the row's terms of the
//! parameter gradients, which `sub_rows` walks.

use super::affine::Accumulators;
use super::direct::{Direct, halves};
use super::elementwise::{Factor, Form, GradInput, Normalize, SummedGradInput, run};
use super::gradient::{outer_exponent, piece_gradient};
use super::lanes::TreeSums;
use super::launch::Tiles;
use super::leaf;
use super::leaf_backward::{self, Gradients};
use super::memory::{Ahead, Streaming};
use super::reader::{Parameter, Reader};
use super::real::Real;
use super::row::{clear_masked, round_all};
use super::sink::Sink;
use super::source::Source;
use super::statistics::{Constants, Statistics, Sums};
use super::stored::Stored;
use super::usual_backward::{TaskRows, UsualRows};
use crate::plan::tree::{LEAF, Pairwise};
use crate::spec::{STATISTICS, SUMS};
use crate::tensor::Element;

/// What the tasks of a backward pass work on.
#[derive(Clone, Copy)]
pub(super) struct Backward<'a, F> {
    pub(super) constants: Constants<F>,
    pub(super) rows: usize,
    /// Leave to write the gradient of the input past the caches.
    pub(super) streamed: Option<Streaming>,
    pub(super) grad_output: Source<'a>,
    pub(super) input: Source<'a>,
    pub(super) statistics: Source<'a>,
    pub(super) weight: Option<Source<'a>>,
    pub(super) mask: Option<Source<'a>>,
    pub(super) given: Option<Source<'a>>,
    pub(super) grad_input: Option<Sink<'a>>,
    pub(super) sums: Option<Sink<'a>>,
    /// The weight does not vary in the row.
    pub(super) is_outer: bool,
    /// Where a parameter's sum within the row comes from.
    pub(super) terms: RowTerms,
    pub(super) wants_weight: bool,
    pub(super) wants_bias: bool,
    /// Of the branch that a residual was added to: its bias, and its scale.
    pub(super) wants_branch: [bool; 2],
}

/// A row's share in the parameter gradients.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum RowTerms {
    /// None is asked for.
    None,
    /// The row's two sums.
    Sums,
    /// The sums of so many sub-rows.
    SubRows(usize),
}

impl<F: Real> Backward<'_, F> {
    /// Parameters that vary within a row.
    pub(super) fn params_per_row(&self) -> usize {
        match self.terms {
            RowTerms::None => 0,
            RowTerms::Sums => 1,
            RowTerms::SubRows(count) => count,
        }
    }

    /// How many parameters want a gradient.
    pub(super) fn wanted(&self) -> usize {
        let [of_bias, of_scale] = self.wants_branch;
        [self.wants_weight, self.wants_bias, of_bias, of_scale].map(usize::from).iter().sum()
    }

    /// What a row is cut into: sub-rows, or columns.
    pub(super) fn units(&self) -> usize {
        match self.terms {
            RowTerms::None | RowTerms::Sums => self.constants.cols,
            RowTerms::SubRows(count) => count,
        }
    }

    /// Whether a row's sums are needed.
    pub(super) fn needs_sums(&self) -> bool {
        self.grad_input.is_some() && self.given.is_none()
            || self.sums.is_some()
            || self.terms == RowTerms::Sums
    }

    /// What is read after the columns up to `end` of a row: the ones after them, or the next row's.
    fn next<T: Element>(&self, row: usize, end: usize, len: usize) -> Option<[Ahead<T>; 2]> {
        let (row, col) = if end < self.constants.cols { (row, end) } else { (row + 1, 0) };
        if row >= self.rows {
            return None;
        }
        let run = self.input.run_end(col).min(self.grad_output.run_end(col));
        let len = len.min(self.constants.cols - col).min(run - col);
        let (g, x) = (self.grad_output.lend(row, col, len)?, self.input.lend(row, col, len)?);
        Some([Ahead::of(g), Ahead::of(x)])
    }

    /// A row's saved statistics.
    pub(super) fn saved(&self, row: usize) -> Statistics<F> {
        Statistics::from_numbers(self.statistics.numbers(row, STATISTICS))
    }

    /// The sums to use for the gradient of the input: those given before those taken, which are written where they are
    /// asked for.
    pub(super) fn settle(&self, row: usize, taken: Option<Sums<F>>) -> Sums<F> {
        if let (Some(sink), Some(taken)) = (&self.sums, taken) {
            sink.put(row, &taken.to_numbers());
        }
        let given = self.given.map(|given| Sums::from_numbers(given.numbers(row, SUMS)));
        given.or(taken).unwrap_or(Sums::none())
    }
}

/// What is done with the pass for the gradient of the input.
trait GradientPass<F: Real> {
    type Output;
    fn run<T: Stored>(self, c: &Constants<F>, pass: GradInput<'_, T, F>) -> Self::Output;
}

/// Nothing else.
struct Alone;

impl<F: Real> GradientPass<F> for Alone {
    type Output = ();
    fn run<T: Stored>(self, c: &Constants<F>, pass: GradInput<'_, T, F>) {
        run(c, pass);
    }
}

/// The sums of `g` and of `g * x_hat` on the way, in so many lanes.
struct Summed(usize);

impl<F: Real> GradientPass<F> for Summed {
    type Output = [F; 2];
    fn run<T: Stored>(self, c: &Constants<F>, pass: GradInput<'_, T, F>) -> [F; 2] {
        let pass = SummedGradInput(pass);
        if c.is_centred() {
            c.isa.run(TreeSums::new(self.0, Form::<_, true>(pass)))
        } else {
            c.isa.run(TreeSums::new(self.0, Form::<_, false>(pass)))
        }
    }
}

/// A backward pass's operands beside one thread's tiles.
pub(super) struct Rows<'j, 't, F> {
    pub(super) job: &'j Backward<'t, F>,
    pub(super) x: Reader<'t, F>,
    pub(super) g: Reader<'t, F>,
    pub(super) weight: Parameter<'t, F>,
    pub(super) mask: Option<Reader<'t, F>>,
    scaled: &'t mut [F],
    pub(super) hat: &'t mut [F],
    ghat: &'t mut [F],
    pub(super) u: &'t mut [F],
    out: &'t mut [F],
}

impl<'j, 't, F: Real> Rows<'j, 't, F> {
    pub(super) fn new(job: &'j Backward<'t, F>, tiles: Tiles<'t, F>) -> Self {
        let [x, g, weight, mask, scaled, hat, ghat, u, out] = tiles;
        Rows {
            job,
            x: Reader::new(job.input, x),
            g: Reader::new(job.grad_output, g),
            weight: Parameter::new(job.weight, job.constants.weight_offset, weight),
            mask: job.mask.map(|source| Reader::new(source, mask)),
            scaled,
            hat,
            ghat,
            u,
            out,
        }
    }

    /// Handles a task's rows from a place on up to the first that is out of the ordinary; its place.
    pub(super) fn usual(
        &mut self,
        rows: &TaskRows,
        from: usize,
        accumulators: &mut Accumulators<'_, F>,
    ) -> usize {
        let Rows { job, weight, scaled: tile, .. } = self;
        UsualRows { job, rows, from, weight, accumulators, tile }.run()
    }

    /// The sums of a row.
    pub(super) fn sums(&mut self, row: usize, s: Statistics<F>) -> Sums<F> {
        let cols = self.job.constants.cols;
        if cols <= LEAF {
            return self.leaf_sums(row, s, 0);
        }
        let mut runs = Pairwise::new(Sums::none());
        for leaf in 0..cols.div_ceil(LEAF) {
            runs.push_by(self.leaf_sums(row, s, leaf), Sums::merged);
        }
        runs.total_by(Sums::merged).unwrap_or(Sums::none())
    }

    /// The sums of one leaf of a row.
    pub(super) fn leaf_sums(&mut self, row: usize, s: Statistics<F>, leaf: usize) -> Sums<F> {
        let c = &self.job.constants;
        let at = leaf * LEAF;
        let len = LEAF.min(c.cols - at);
        if let Some(sums) = self.direct_sums(row, s, (at, len)) {
            return sums;
        }
        let mut x = self.x.get(row, at, len);
        if s.exponent != 0 {
            leaf::scale_all(x, -s.exponent, &mut self.scaled[..len]);
            x = &self.scaled[..len];
        }
        let w = if self.job.is_outer { Factor::Absent } else { self.weight.get(row, at, len) };
        let mask = self.mask.as_mut().map(|mask| mask.get(row, at, len));
        let seen = len.min(c.prefix.saturating_sub(at));
        let operands = Gradients { g: self.g.get(row, at, len), x, w, mask, seen };
        leaf_backward::sums(c, operands, s, self.ghat)
    }

    /// The gradient of the input in columns `at..at + len` of a row, and `x_hat` in its tile if the weight's gradient
    /// needs it.
    pub(super) fn piece(&mut self, row: usize, s: Statistics<F>, sums: &Sums<F>, at: usize, len: usize) {
        let c = &self.job.constants;
        let wants_hat = self.job.wants_weight && matches!(self.job.terms, RowTerms::SubRows(_));
        let mut x = self.x.get(row, at, len);
        if s.exponent != 0 {
            leaf::scale_all(x, -s.exponent, &mut self.scaled[..len]);
            x = &self.scaled[..len];
        }
        if let Some(sink) = &self.job.grad_input {
            let out = sink.begin(row, at, self.out, len);
            let (g, w) = (self.g.get(row, at, len), self.weight.get(row, at, len));
            let mask = self.mask.as_mut().map(|mask| mask.get(row, at, len));
            // Columns that the statistic does not see come last.
            let seen = len.min(c.prefix.saturating_sub(at));
            let operands = Gradients { g, x, w, mask, seen };
            piece_gradient(self.job, operands, s, sums, [self.ghat, self.u], out);
            sink.commit(row, at, out);
        }
        if wants_hat {
            let hat = &mut self.hat[..len];
            run(c, Normalize { x, s, hat: &mut *hat });
            if let Some(dtype) = c.rounded {
                round_all(hat, dtype);
            }
            if let Some(mask) = &mut self.mask {
                clear_masked(mask.get(row, at, len), hat);
            }
        }
    }

    /// The gradient of the input in some columns of a row, and what a row adds to the parameters of these columns, in one
    /// pass, where nothing is out of the ordinary; false where something is.
    pub(super) fn usual_piece(
        &mut self,
        row: usize,
        s: Statistics<F>,
        sums: &Sums<F>,
        place: (usize, usize),
        params: Option<(usize, &mut Accumulators<'_, F>)>,
    ) -> bool {
        self.usual_pass(row, s, sums, place, params, Alone).is_some()
    }

    /// The gradient of the input in some columns of a row, and the sums of `g` and of `g * x_hat` over them in so many
    /// lanes, in one pass, where nothing is out of the ordinary.
    pub(super) fn usual_sub_row(
        &mut self,
        row: usize,
        s: Statistics<F>,
        sums: &Sums<F>,
        place: (usize, usize),
        lanes: usize,
    ) -> Option<[F; 2]> {
        self.usual_pass(row, s, sums, place, None, Summed(lanes))
    }

    /// Runs the pass for the gradient of the input, where nothing is out of the ordinary.
    fn usual_pass<P: GradientPass<F>>(
        &mut self,
        row: usize,
        s: Statistics<F>,
        sums: &Sums<F>,
        (at, len): (usize, usize),
        params: Option<(usize, &mut Accumulators<'_, F>)>,
        way: P,
    ) -> Option<P::Output> {
        let (job, c) = (self.job, &self.job.constants);
        if !self.is_usual(s, sums) {
            return None;
        }
        let sink = job.grad_input.as_ref()?;
        let Self { x, g, weight, out, .. } = self;
        let mut w = weight.get(row, at, len);
        let mut outer = None;
        if job.is_outer {
            outer = w.at(0);
            if outer.is_some_and(|w| outer_exponent(w) != 0) {
                return None;
            }
            w = Factor::Absent;
        }
        let (weight_sums, bias_sums) = match params {
            Some((param, to)) => to.columns(param, len),
            None => (None, None),
        };
        let (c1, c2) = sums.means(c, &s);
        macro_rules! direct {
            ($t:ty) => {
                if let Some(Direct { g, x, dx }) = Direct::<$t>::new(job, row, at, len)
                    && job.are_numbers::<$t>(s, sums, [w, outer.map_or(Factor::Absent, Factor::One)])
                {
                    let (u, next) = (None, job.next(row, at + len, len));
                    let streamed = job.streamed.and_then(|streaming| streaming.to(dx));
                    let pass = GradInput {
                        g,
                        x,
                        w,
                        u,
                        s,
                        c1,
                        c2,
                        outer,
                        weight_sums,
                        bias_sums,
                        dx,
                        streamed,
                        next,
                    };
                    return Some(way.run(c, pass));
                }
            };
        }
        halves!(job.input.dtype(), direct, ());
        let (u, next) = (None, job.next(row, at + len, len));
        let (g, x) = (g.get(row, at, len), x.get(row, at, len));
        let out = sink.begin(row, at, out, len);
        let streamed = job.streamed.filter(|_| sink.is_direct::<F>(row, at, len));
        let streamed = streamed.and_then(|streaming| streaming.to(out));
        let dx = &mut *out;
        let pass = GradInput { g, x, w, u, s, c1, c2, outer, weight_sums, bias_sums, dx, streamed, next };
        let result = way.run(c, pass);
        sink.commit(row, at, out);
        Some(result)
    }

    /// Whether nothing in a row is out of the ordinary, but for an outer weight.
    pub(super) fn is_usual(&self, s: Statistics<F>, sums: &Sums<F>) -> bool {
        let c = &self.job.constants;
        let is_simple = self.mask.is_none() && c.is_plain() && self.job.grad_input.is_some();
        is_simple && s.exponent == 0 && sums.exponents() == (0, 0) && c.has_squares()
    }
}
