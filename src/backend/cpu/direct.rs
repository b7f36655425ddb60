//! Parts of rows that memory holds in 16 bits, from their elements to their results, without a copy in the compute type
//! between; for rows that are not [`usual`](super::usual) because they are long, or because several parameters or runs of
//! memory make them up. What is out of the ordinary is left to [`row`](super::row) and
//! [`row_backward`](super::row_backward), whose numbers these are.

use super::elementwise::{Apply, Factor, run};
use super::isa::Operation;
use super::leaf::{Round, first_round, is_regular};
use super::leaf_backward::{self, GradientTerms, plain_sums};
use super::memory::Ahead;
use super::real::{Real, two_sum};
use super::row::{self, by_runs};
use super::row_backward::{self, Backward};
use super::simd::Simd;
use super::statistics::{Moments, Statistics, Sums};
use super::stored::Stored;

/// Runs `$run!(T)` for the 16-bit type that a dtype is; else `$other`.
macro_rules! halves {
    ($dtype:expr, $run:ident, $other:expr) => {
        match $dtype {
            $crate::tensor::DType::F16 => $run!(half::f16),
            $crate::tensor::DType::BF16 => $run!(half::bf16),
            _ => $other,
        }
    };
}
pub(super) use halves;

/// Whether statistics are numbers, as far as rounding to 16 bits has to know; see [`Stored::store_numbers`].
fn are_numbers<F: Real>(s: Statistics<F>) -> bool {
    [s.mean, s.correction, s.rstd].into_iter().all(|number| Factor::One(number).is_number())
}

/// The first round of a leaf's moments: an operation for [`Isa::run`](super::Isa).
struct FirstRound<'a, T, F, const CENTRED: bool> {
    lanes: usize,
    x: &'a [T],
    inv_count: F,
}

impl<T: Stored, F: Real, const CENTRED: bool> Operation for FirstRound<'_, T, F, CENTRED> {
    type Output = Round<F>;
    #[inline(always)]
    fn call<S: Simd>(self) -> Round<F> {
        first_round::<S, T, F, CENTRED>(self.lanes, self.x, self.inv_count)
    }
}

impl<F: Real> row::Rows<'_, '_, F> {
    /// The moments of `len` columns of a leaf from `at` on, of which the statistic sees the first `seen`.
    pub(super) fn direct_moments(
        &self,
        row: usize,
        (at, len): (usize, usize),
        seen: usize,
    ) -> Option<Moments<F>> {
        let (job, c) = (self.job, &self.job.constants);
        if job.mask.is_some() || !c.has_squares() || seen == 0 {
            return None;
        }
        let count = F::of(seen as f64);
        let inv_count = count.recip();
        macro_rules! round {
            ($t:ty) => {{
                let x: &[$t] = &job.input.lend(row, at, len)?[..seen];
                if c.is_centred() {
                    c.isa.run(FirstRound::<_, _, true> { lanes: c.lanes, x, inv_count })
                } else {
                    c.isa.run(FirstRound::<_, _, false> { lanes: c.lanes, x, inv_count })
                }
            }};
        }
        let round: Round<F> = halves!(job.input.dtype(), round, return None);
        if !round.is_close || !is_regular(c.measure, round.m2, inv_count) {
            return None;
        }
        let (mean, correction) = two_sum(round.shift, round.correction);
        Some(Moments { count, mean, correction, m2: round.m2, exponent: 0 })
    }

    /// Normalizes `len` columns from `at` on; false where that is left to others.
    pub(super) fn direct_apply(&mut self, row: usize, s: Statistics<F>, (at, len): (usize, usize)) -> bool {
        let (job, c) = (self.job, &self.job.constants);
        let is_plain = s.exponent == 0 && job.mask.is_none() && c.rounded.is_none();
        let Some(sink) = job.output.as_ref().filter(|_| is_plain && are_numbers(s)) else { return false };
        macro_rules! apply {
            ($t:ty) => {{
                let elements = (job.input.lend::<$t>(row, at, len), sink.lend::<$t>(row, at, len));
                let (Some(x), Some(out)) = elements else { return false };
                if job.has_wide_parameters::<$t>() && !self.are_numbers(row, at, len) {
                    return false;
                }
                let next: Option<Ahead<$t>> = self.next(row, at + len, len);
                let (w, b) = (Factor::Absent, Factor::Absent);
                let pass = Apply { x, w, b, s, out, streamed: job.streamed, next };
                by_runs([&mut self.weight, &mut self.bias], row, at, pass, |pass| run(c, pass));
                true
            }};
        }
        halves!(sink.dtype(), apply, false)
    }

    /// Whether no parameter of some columns is NaN.
    fn are_numbers(&mut self, row: usize, at: usize, len: usize) -> bool {
        self.weight.get(row, at, len).is_number() && self.bias.get(row, at, len).is_number()
    }
}

impl<F: Real> row_backward::Rows<'_, '_, F> {
    /// The sums of `len` columns of a leaf from `at` on.
    pub(super) fn direct_sums(
        &mut self,
        row: usize,
        s: Statistics<F>,
        (at, len): (usize, usize),
    ) -> Option<Sums<F>> {
        let (job, c) = (self.job, &self.job.constants);
        if s.exponent != 0 || job.mask.is_some() || !c.has_squares() || c.prefix < c.cols {
            return None;
        }
        macro_rules! sums {
            ($t:ty) => {{
                let (g, x) = (job.grad_output.lend::<$t>(row, at, len)?, job.input.lend::<$t>(row, at, len)?);
                let w = if job.is_outer { Factor::Absent } else { self.weight.get(row, at, len) };
                plain_sums(c, c.lanes, GradientTerms { g, x, w, mask: None, s })
            }};
        }
        let [s1, s2] = halves!(job.input.dtype(), sums, return None);
        let count = F::of(len as f64);
        let sums = Sums { count, s1, s2, ties: F::ZERO, g_exponent: 0, w_exponent: 0 };
        leaf_backward::is_regular([s1, s2], count).then_some(sums)
    }
}

/// Columns of a row of a backward pass, as memory holds them.
pub(super) struct Direct<'a, T> {
    pub(super) g: &'a [T],
    pub(super) x: &'a [T],
    pub(super) dx: &'a mut [T],
}

impl<'a, T: Stored> Direct<'a, T> {
    /// Where memory has all of them side by side.
    pub(super) fn new<F: Real>(job: &Backward<'a, F>, row: usize, at: usize, len: usize) -> Option<Self> {
        Some(Direct {
            g: job.grad_output.lend(row, at, len)?,
            x: job.input.lend(row, at, len)?,
            dx: job.grad_input.as_ref()?.lend(row, at, len)?,
        })
    }
}

impl<F: Real> Backward<'_, F> {
    /// Whether what a row's gradient is made of is no NaN, as far as rounding to 16 bits has to know.
    pub(super) fn are_numbers<T: Stored>(
        &self,
        s: Statistics<F>,
        sums: &Sums<F>,
        weights: [Factor<'_, F>; 2],
    ) -> bool {
        let is_wide = self.weight.is_some_and(|weight| weight.dtype() != T::DTYPE);
        are_numbers(s)
            && [sums.s1, sums.s2].into_iter().all(|sum| Factor::One(sum).is_number())
            && (!is_wide || weights.into_iter().all(Factor::is_number))
    }
}
