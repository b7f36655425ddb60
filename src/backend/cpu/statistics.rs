//! The numbers of a row: moments and gradient sums that merge, and the statistics that follow from them.

use super::Isa;
use super::real::{Real, two_sum};
use super::simd::{Block, Numbers, Simd};
use crate::plan::tree;
use crate::spec::{EpsPosition, MOMENTS, Norm, STATISTICS, SUMS, Statistic};
use crate::tensor::DType;

/// What is summed over a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Measure {
    /// Differences from the mean, and their squares.
    Moments,
    /// Squares.
    Squares,
    /// Magnitudes.
    Magnitudes,
    /// The largest magnitude.
    Largest,
    /// Powers of magnitudes.
    Powers(f64),
}

/// The numbers of a spec in the compute type.
#[derive(Clone, Copy)]
pub(super) struct Constants<F> {
    pub(super) isa: Isa,
    pub(super) measure: Measure,
    /// Whether the statistic is a norm: not divided by the number of elements.
    pub(super) is_norm: bool,
    pub(super) eps_position: EpsPosition,
    pub(super) frozen: bool,
    pub(super) cols: usize,
    pub(super) prefix: usize,
    pub(super) eps: F,
    pub(super) weight_offset: F,
    pub(super) rounded: Option<DType>,
    pub(super) lanes: usize,
}

impl<F: Real> Constants<F> {
    pub(super) fn new(isa: Isa, spec: &Norm, cols: usize, dtype: DType) -> Self {
        let measure = match spec.statistic {
            Statistic::Moments => Measure::Moments,
            Statistic::MeanSquare => Measure::Squares,
            Statistic::Norm(1.0) => Measure::Magnitudes,
            Statistic::Norm(2.0) => Measure::Squares,
            Statistic::Norm(f64::INFINITY) => Measure::Largest,
            Statistic::Norm(p) => Measure::Powers(p),
        };
        Constants {
            isa,
            measure,
            is_norm: matches!(spec.statistic, Statistic::Norm(_)),
            eps_position: spec.eps_position,
            frozen: spec.frozen,
            cols,
            prefix: spec.prefix,
            eps: F::of(spec.eps),
            weight_offset: F::of(spec.weight_offset),
            rounded: (spec.round_normalized && dtype != F::DTYPE).then_some(dtype),
            lanes: tree::lanes(cols),
        }
    }

    /// Whether a row is read as it is: every element seen, and nothing rounded in between.
    pub(super) fn is_plain(&self) -> bool {
        self.prefix == self.cols && self.rounded.is_none()
    }

    /// Whether the measure is a sum of squares, of centred elements or of others: what the quick ways know.
    pub(super) fn has_squares(&self) -> bool {
        matches!(self.measure, Measure::Moments | Measure::Squares)
    }

    /// Whether the row is centred.
    pub(super) fn is_centred(&self) -> bool {
        self.measure == Measure::Moments
    }
}

/// [`MOMENTS`] of a row or a part of one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Moments<F> {
    pub(super) count: F,
    pub(super) mean: F,
    pub(super) correction: F,
    pub(super) m2: F,
    pub(super) exponent: i32,
}

impl<F: Real> Moments<F> {
    /// Of no element.
    pub(super) fn none() -> Self {
        let zero = F::ZERO;
        Moments { count: zero, mean: zero, correction: zero, m2: zero, exponent: F::NONE }
    }

    pub(super) fn to_numbers(self) -> [F; MOMENTS] {
        [self.count, self.mean, self.correction, self.m2, of_exponent(self.exponent)]
    }

    pub(super) fn from_numbers(numbers: &[F]) -> Self {
        let &[count, mean, correction, m2, exponent] = numbers else { return Moments::none() };
        Moments { count, mean, correction, m2, exponent: to_exponent(exponent) }
    }

    /// The exponent, of numbers that are zero where there is none.
    fn usable_exponent(&self) -> i32 {
        if self.exponent == F::NONE { 0 } else { self.exponent }
    }

    /// The mean of the elements as they are.
    pub(super) fn batch_mean(&self) -> F {
        (self.mean + self.correction).scale(self.usable_exponent())
    }

    /// The variance of the elements as they are, with one degree of freedom less.
    pub(super) fn unbiased_variance(&self) -> F {
        (self.m2 * (self.count - F::ONE).recip()).scale(2 * self.usable_exponent())
    }

    /// The same, read with another exponent.
    fn rescaled(self, measure: Measure, exponent: i32) -> Self {
        if self.exponent == F::NONE || self.exponent == exponent {
            return Moments { exponent, ..self };
        }
        let by = self.exponent - exponent;
        let m2 = match measure {
            Measure::Moments | Measure::Squares => self.m2.scale(2 * by),
            Measure::Magnitudes | Measure::Largest => self.m2.scale(by),
            Measure::Powers(p) => super::power::scale_power(self.m2, by, p),
        };
        Moments { mean: self.mean.scale(by), correction: self.correction.scale(by), m2, exponent, ..self }
    }

    /// Of the elements of both.
    pub(super) fn merged(self, measure: Measure, b: Self) -> Self {
        if self.count == F::ZERO {
            return b;
        }
        if b.count == F::ZERO {
            return self;
        }
        let exponent = self.exponent.max(b.exponent);
        let (a, b) = (self.rescaled(measure, exponent), b.rescaled(measure, exponent));
        let count = a.count + b.count;
        let zero = F::ZERO;
        match measure {
            Measure::Moments => {
                let r = b.count * count.recip();
                let d = (b.mean - a.mean) + (b.correction - a.correction);
                let t = d * r;
                let m2 = (a.m2 + b.m2) + (d * t) * a.count;
                let (mean, correction) = two_sum(a.mean, a.correction + t);
                Moments { count, mean, correction, m2, exponent }
            }
            Measure::Largest => {
                let m2 = if b.m2.magnitude() > a.m2.magnitude() { b.m2 } else { a.m2 };
                Moments { count, mean: zero, correction: zero, m2, exponent }
            }
            _ => Moments { count, mean: zero, correction: zero, m2: a.m2 + b.m2, exponent },
        }
    }

    /// The statistics of a row with these moments.
    pub(super) fn finished(self, c: &Constants<F>) -> Statistics<F> {
        let zero = F::ZERO;
        let mut s = Statistics { mean: zero, correction: zero, rstd: zero, exponent: 0 };
        if self.count == zero {
            return s;
        }
        let has_eps = c.eps > zero;
        let mut exponent = self.exponent;
        if has_eps && exponent != 0 {
            let of_eps = F::exponent(c.eps.magnitude());
            exponent = exponent.max(match c.eps_position {
                EpsPosition::Inside => of_eps.div_euclid(2),
                EpsPosition::Outside | EpsPosition::Floor => of_eps,
            });
        } else if exponent == F::NONE {
            exponent = 0;
        }
        let m = self.rescaled(c.measure, exponent);
        s.exponent = exponent;
        if c.is_norm {
            let q = match c.measure {
                Measure::Squares => m.m2.sqrt(),
                Measure::Powers(p) => super::power::root(m.m2, p),
                _ => m.m2,
            };
            let floor = c.eps.scale(-exponent);
            if q > floor || q.magnitude() > F::MAX.magnitude() {
                (s.rstd, s.mean) = (q.recip(), q);
            } else if has_eps {
                s.rstd = floor.recip();
            }
            return s;
        }
        (s.mean, s.correction) = (m.mean, m.correction);
        let outside = c.eps_position == EpsPosition::Outside;
        if outside {
            let (rstd, q) = F::rsqrt_outside(m.m2, m.count, c.eps.scale(-exponent));
            s.rstd = rstd;
            if !c.is_centred() {
                s.mean = q;
            }
        } else {
            s.rstd = F::rsqrt_inside(m.m2, m.count, c.eps.scale(-2 * exponent));
        }
        if m.m2 == zero && has_eps && exponent != 0 {
            let r = if outside { c.eps.recip() } else { c.eps.rsqrt() }.scale(exponent);
            s.rstd = if r > F::MAX { F::MAX } else { r };
        }
        s
    }
}

/// What a row's normalization needs: [`STATISTICS`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Statistics<F> {
    pub(super) mean: F,
    pub(super) correction: F,
    pub(super) rstd: F,
    pub(super) exponent: i32,
}

impl<F: Real> Statistics<F> {
    pub(super) fn to_numbers(self) -> [F; STATISTICS] {
        [self.mean, self.correction, self.rstd, of_exponent(self.exponent)]
    }

    pub(super) fn from_numbers(numbers: &[F]) -> Self {
        Statistics {
            mean: numbers[0],
            correction: numbers[1],
            rstd: numbers[2],
            exponent: to_exponent(numbers[3]),
        }
    }

    /// From a mean and a variance that were not taken of the row.
    pub(super) fn from_running(mean: F, var: F, eps: F) -> Self {
        let is_large = |x: F| x.abs() >= F::SUM_LIMIT && x.abs() <= F::MAX;
        let mut exponent = 0;
        if is_large(mean) || is_large(var) {
            let of_var = F::exponent(var.magnitude()).div_euclid(2);
            exponent = F::exponent(mean.magnitude()).max(of_var);
        }
        let (var, eps) = (var.scale(-2 * exponent), eps.scale(-2 * exponent));
        let rstd = F::rsqrt_inside(var, F::ONE, eps);
        Statistics { mean: mean.scale(-exponent), correction: F::ZERO, rstd, exponent }
    }

    /// `x_hat` of a block.
    #[inline(always)]
    pub(super) fn normalized<S: Simd, const CENTRED: bool>(&self, x: Block<S, F>) -> Block<S, F> {
        let rstd = Block::<S, F>::splat(self.rstd);
        if !CENTRED {
            return x * rstd;
        }
        let (mean, correction) = (Block::<S, F>::splat(self.mean), Block::<S, F>::splat(self.correction));
        ((x - mean) - correction) * rstd
    }
}

/// [`SUMS`] of a row or a part of one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sums<F> {
    pub(super) count: F,
    pub(super) s1: F,
    pub(super) s2: F,
    pub(super) ties: F,
    pub(super) g_exponent: i32,
    pub(super) w_exponent: i32,
}

impl<F: Real> Sums<F> {
    /// Over no element.
    pub(super) fn none() -> Self {
        let zero = F::ZERO;
        Sums { count: zero, s1: zero, s2: zero, ties: zero, g_exponent: F::NONE, w_exponent: 0 }
    }

    pub(super) fn to_numbers(self) -> [F; SUMS] {
        let Sums { count, s1, s2, ties, g_exponent, w_exponent } = self;
        [count, s1, s2, ties, of_exponent(g_exponent), of_exponent(w_exponent)]
    }

    pub(super) fn from_numbers(numbers: &[F]) -> Self {
        let &[count, s1, s2, ties, g_exponent, w_exponent] = numbers else { return Sums::none() };
        let (g_exponent, w_exponent) = (to_exponent(g_exponent), to_exponent(w_exponent));
        Sums { count, s1, s2, ties, g_exponent, w_exponent }
    }

    /// Over the elements of both.
    pub(super) fn merged(self, b: Self) -> Self {
        let (count, ties) = (self.count + b.count, self.ties + b.ties);
        if b.g_exponent == F::NONE {
            return Sums { count, ties, ..self };
        }
        if self.g_exponent == F::NONE {
            return Sums { count, ties, ..b };
        }
        let by = (b.g_exponent + b.w_exponent) - (self.g_exponent + self.w_exponent);
        let (large, s1, s2) = if by > 0 {
            (b, self.s1.scale(-by) + b.s1, self.s2.scale(-by) + b.s2)
        } else if by < 0 {
            (self, self.s1 + b.s1.scale(by), self.s2 + b.s2.scale(by))
        } else {
            (self, self.s1 + b.s1, self.s2 + b.s2)
        };
        Sums { count, s1, s2, ties, ..large }
    }

    /// The exponents taken out of gradient and weight; none of a row without terms.
    pub(super) fn exponents(&self) -> (i32, i32) {
        if self.g_exponent == F::NONE { (0, 0) } else { (self.g_exponent, self.w_exponent) }
    }

    /// The gradients' means, `c1` and `c2`.
    pub(super) fn means(&self, c: &Constants<F>, s: &Statistics<F>) -> (F, F) {
        if c.frozen {
            return (F::ZERO, F::ZERO);
        }
        let inv = if c.is_norm { F::ONE } else { self.count.recip() };
        let c1 = if c.is_centred() { self.s1 * inv } else { F::ZERO };
        let c2 = if c.is_norm {
            if s.mean == F::ZERO {
                F::ZERO
            } else if c.measure == Measure::Largest {
                self.s2 * self.ties.recip()
            } else {
                self.s2
            }
        } else if c.eps_position == EpsPosition::Outside && c.is_centred() {
            // The deviation's share of the divisor.
            let share = F::ONE - s.rstd * c.eps.scale(-s.exponent);
            if share > F::ZERO { (self.s2 * inv) * share.recip() } else { F::ZERO }
        } else if c.eps_position == EpsPosition::Outside {
            let q = s.mean;
            if q == F::ZERO { F::ZERO } else { (self.s2 * inv) * (s.rstd * q).recip() }
        } else {
            self.s2 * inv
        };
        (c1, c2)
    }
}

/// An exponent as a stored number.
fn of_exponent<F: Real>(exponent: i32) -> F {
    F::of(f64::from(exponent))
}

/// A stored exponent; what a caller gives is held to what a row can have.
fn to_exponent<F: Real>(number: F) -> i32 {
    (number.to_f32() as i32).max(F::NONE)
}
