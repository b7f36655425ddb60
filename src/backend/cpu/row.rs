//! The `row` schedule: statistics over a row that stays in the first-level cache, then scale and shift.
//!
//! A chunk of rows is one task of one thread. Rows of one leaf are loaded once and kept; longer rows are loaded leaf
//! by leaf for each pass. The operations and their order are those of `docs/numerics.md`.

use super::Isa;
use super::elementwise::{Affine, Apply, Normalize, Statistics};
use super::lanes::{LeafSums, RowSums, Term};
use super::operand::{Leaves, Sink, Source};
use super::real::Real;
use crate::plan::tree::{LEAF, lanes};
use crate::spec::{EpsPosition, Norm, STATISTICS, Statistic};
use crate::tensor::DType;

/// What one task of a forward pass works on.
#[derive(Clone, Copy)]
pub(super) struct Forward<'a> {
    pub(super) spec: &'a Norm,
    pub(super) cols: usize,
    pub(super) input: Source<'a>,
    pub(super) weight: Option<Source<'a>>,
    pub(super) bias: Option<Source<'a>>,
    pub(super) output: Sink<'a>,
    pub(super) statistics: Option<Sink<'a>>,
}

/// The numbers of a spec in the compute type.
#[derive(Clone, Copy)]
pub(super) struct Constants<F> {
    pub(super) isa: Isa,
    pub(super) moments: bool,
    pub(super) outside: bool,
    pub(super) prefix: usize,
    pub(super) inv_prefix: F,
    pub(super) eps: F,
    pub(super) weight_offset: F,
    pub(super) rounded: Option<DType>,
    pub(super) lanes: usize,
}

impl<F: Real> Constants<F> {
    pub(super) fn new(isa: Isa, spec: &Norm, cols: usize, dtype: DType) -> Self {
        Constants {
            isa,
            moments: spec.statistic == Statistic::Moments,
            outside: spec.eps_position == EpsPosition::Outside,
            prefix: spec.prefix,
            inv_prefix: F::of(1.0 / spec.prefix as f64),
            eps: F::of(spec.eps),
            weight_offset: F::of(spec.weight_offset),
            rounded: (spec.round_normalized && dtype != F::DTYPE).then_some(dtype),
            lanes: lanes(cols),
        }
    }

    /// `hat = x_hat`, unrounded.
    pub(super) fn normalize(&self, x: &[F], s: Statistics<F>, hat: &mut [F]) {
        if self.moments {
            self.isa.run(Normalize::<F, true> { x, s, out: hat });
        } else {
            self.isa.run(Normalize::<F, false> { x, s, out: hat });
        }
    }

    /// `out = x_hat * w' + b`, with what is absent left out.
    fn apply(&self, x: &[F], w: Option<&[F]>, b: Option<&[F]>, s: Statistics<F>, out: &mut [F]) {
        let offset = self.weight_offset;
        if let Some(dtype) = self.rounded {
            self.normalize(x, s, out);
            round_all(out, dtype);
            self.isa.run(Affine { w, b, offset, out });
        } else if self.moments {
            self.isa.run(Apply::<F, true> { x, w, b, s, offset, out });
        } else {
            self.isa.run(Apply::<F, false> { x, w, b, s, offset, out });
        }
    }

    /// `w'`.
    pub(super) fn offset(&self, w: F) -> F {
        if self.weight_offset == F::ZERO { w } else { w + self.weight_offset }
    }
}

/// `x - shift`.
struct Less<F>(F);

impl<F: Real> Term<F, 1, 1> for Less<F> {
    #[inline(always)]
    fn of(&self, [x]: [F; 1]) -> [F; 1] {
        [x - self.0]
    }
}

/// The square of the centred element.
struct Square<F, const MOMENTS: bool>(Statistics<F>);

impl<F: Real, const MOMENTS: bool> Term<F, 1, 1> for Square<F, MOMENTS> {
    #[inline(always)]
    fn of(&self, [x]: [F; 1]) -> [F; 1] {
        let e = self.0.centred::<MOMENTS>(x);
        [e * e]
    }
}

/// Columns of `leaf` that the statistic sees.
#[inline(always)]
fn prefix_of<F>(row: &[F], leaf: usize, prefix: usize) -> &[F] {
    &row[..row.len().min(prefix.saturating_sub(leaf * LEAF))]
}

/// The statistic of a row read with `exponent`; also the variance or mean square, and what decides whether the row is
/// regular.
fn statistics_at<F: Real>(
    x: &mut Leaves<'_, F>,
    constants: &Constants<F>,
    cols: usize,
    exponent: i32,
) -> (Statistics<F>, F, F) {
    let Constants { isa, prefix, inv_prefix, lanes, .. } = *constants;
    let mut s = Statistics { mean: F::ZERO, correction: F::ZERO, rstd: F::ZERO, exponent };
    if constants.moments {
        let shift = x.leaf(0)[0];
        s.mean = shift + difference(x, constants, cols, shift) * inv_prefix;
        s.correction = difference(x, constants, cols, s.mean) * inv_prefix;
    }
    let mut sums = RowSums::new();
    for leaf in 0..prefix.div_ceil(LEAF) {
        let part = prefix_of(x.leaf(leaf), leaf, prefix);
        sums.push(if constants.moments {
            isa.run(LeafSums { inputs: [part], lanes, term: Square::<F, true>(s) })
        } else {
            isa.run(LeafSums { inputs: [part], lanes, term: Square::<F, false>(s) })
        });
    }
    let v = sums.total()[0] * inv_prefix;
    let d;
    if constants.outside {
        let (q, eps) = (v.sqrt(), constants.eps.scale(-exponent));
        s.rstd = v.rsqrt_outside(eps);
        s.mean = q;
        d = q + eps;
    } else {
        d = v + constants.eps.scale(-2 * exponent);
        s.rstd = d.rsqrt();
    }
    (s, v, d)
}

/// The row's sum of `x - shift`.
fn difference<F: Real>(x: &mut Leaves<'_, F>, constants: &Constants<F>, cols: usize, shift: F) -> F {
    let lanes = constants.lanes;
    let mut sums = RowSums::new();
    for leaf in 0..cols.div_ceil(LEAF) {
        sums.push(constants.isa.run(LeafSums { inputs: [x.leaf(leaf)], lanes, term: Less(shift) }));
    }
    sums.total()[0]
}

/// The row's statistics; where its magnitude calls for an exponent, `x` comes back scaled, with `tile` behind it.
fn statistics<'t, F: Real>(
    mut x: Leaves<'t, F>,
    constants: &Constants<F>,
    cols: usize,
    tile: &'t mut [F],
) -> (Statistics<F>, Leaves<'t, F>) {
    let (s, _, d) = statistics_at(&mut x, constants, cols, 0);
    let (low, high) = F::REGULAR[usize::from(constants.outside)];
    if d >= low && d <= high {
        return (s, x);
    }
    match irregular_exponent(&mut x, constants) {
        Some(exponent) => rescaled(x, constants, cols, tile, exponent),
        None => (s, x),
    }
}

/// The statistics of an irregular row.
fn rescaled<'t, F: Real>(
    x: Leaves<'t, F>,
    constants: &Constants<F>,
    cols: usize,
    tile: &'t mut [F],
    exponent: i32,
) -> (Statistics<F>, Leaves<'t, F>) {
    let mut x = x.scaled(exponent, tile);
    let (mut s, v, _) = statistics_at(&mut x, constants, cols, exponent);
    if v == F::ZERO {
        let r = if constants.outside { constants.eps.recip() } else { constants.eps.rsqrt() };
        let r = r.scale(exponent);
        s.rstd = if r > F::MAX { F::MAX } else { r };
    }
    (s, x)
}

/// The exponent that brings an irregular row into range; `None` where none helps.
fn irregular_exponent<F: Real>(x: &mut Leaves<'_, F>, constants: &Constants<F>) -> Option<i32> {
    let mut largest = F::Bits::default();
    for leaf in 0..constants.prefix.div_ceil(LEAF) {
        let part = prefix_of(x.leaf(leaf), leaf, constants.prefix);
        largest = part.iter().fold(largest, |most, x| most.max(x.magnitude()));
    }
    if largest > F::MAX.magnitude() {
        return None;
    }
    let row = (!F::is_special(largest)).then(|| F::exponent(largest));
    let eps = (constants.eps > F::ZERO).then(|| F::exponent(constants.eps.magnitude()));
    let eps = eps.map(|e| if constants.outside { e } else { e.div_euclid(2) });
    row.max(eps).filter(|&exponent| exponent != 0)
}

/// A parameter's row, loaded once where it is a single leaf.
pub(super) struct Parameter<'t, F> {
    leaves: Option<Leaves<'t, F>>,
}

impl<'t, F: Real> Parameter<'t, F> {
    pub(super) fn new(source: Option<&Source<'t>>, cols: usize, tile: &'t mut [F]) -> Self {
        Parameter { leaves: source.map(|source| Leaves::new(source, 0, cols, tile)) }
    }

    pub(super) fn leaf(&mut self, leaf: usize) -> Option<&[F]> {
        self.leaves.as_mut().map(|leaves| leaves.leaf(leaf))
    }
}

/// Normalizes rows `rows`.
pub(super) fn forward<F: Real>(
    job: &Forward<'_>,
    isa: Isa,
    rows: std::ops::Range<usize>,
    tiles: super::Tiles<'_, F>,
) {
    let constants = Constants::<F>::new(isa, job.spec, job.cols, job.input.dtype());
    let [x_tile, w_tile, b_tile, out_tile, scaled_tile, ..] = tiles;
    let mut weight = Parameter::new(job.weight.as_ref(), job.cols, w_tile);
    let mut bias = Parameter::new(job.bias.as_ref(), job.cols, b_tile);
    for row in rows {
        let x = Leaves::new(&job.input, row, job.cols, x_tile);
        let (s, mut x) = statistics(x, &constants, job.cols, scaled_tile);
        for leaf in 0..job.cols.div_ceil(LEAF) {
            let (x, w, b) = (x.leaf(leaf), weight.leaf(leaf), bias.leaf(leaf));
            let out = job.output.begin(row, leaf * LEAF, out_tile, x.len());
            constants.apply(x, w, b, s, out);
            job.output.commit(row, leaf * LEAF, out);
        }
        if let Some(sink) = &job.statistics {
            let out = sink.begin(row, 0, out_tile, STATISTICS);
            out.copy_from_slice(&[s.mean, s.correction, s.rstd, F::of(f64::from(s.exponent))]);
            sink.commit(row, 0, out);
        }
    }
}

/// Rounds each number to `dtype`.
pub(super) fn round_all<F: Real>(values: &mut [F], dtype: DType) {
    match dtype {
        DType::BF16 => values.iter_mut().for_each(|y| *y = F::from_bf16(y.to_bf16())),
        _ => values.iter_mut().for_each(|y| *y = y.rounded_to(dtype)),
    }
}
