//! The `row` schedule: statistics over a row that stays in the first-level cache, then scale and shift.
//!
//! A chunk of rows is one task of one thread. Rows of one leaf are loaded once and kept; longer rows are loaded leaf
//! by leaf for each pass. The operations and their order are those of `docs/numerics.md`.

use super::Cpu;
use super::affine::{self, ColumnSums};
use super::lanes::{leaf_sums, row_sums};
use super::operand::{Leaves, Sink, Source};
use super::real::Real;
use crate::plan::tree::{LEAF, lanes};
use crate::spec::{EpsPosition, Row, STATISTICS, Statistic};
use crate::tensor::DType;

/// What one task of a forward pass works on.
#[derive(Clone, Copy)]
pub(super) struct Forward<'a> {
    pub(super) spec: &'a Row,
    pub(super) cols: usize,
    pub(super) input: Source<'a>,
    pub(super) weight: Option<Source<'a>>,
    pub(super) bias: Option<Source<'a>>,
    pub(super) output: Sink<'a>,
    pub(super) statistics: Option<Sink<'a>>,
}

/// What one task of a backward pass works on.
#[derive(Clone, Copy)]
pub(super) struct Backward<'a> {
    pub(super) spec: &'a Row,
    pub(super) cols: usize,
    pub(super) grad_output: Source<'a>,
    pub(super) input: Source<'a>,
    pub(super) statistics: Source<'a>,
    pub(super) weight: Option<Source<'a>>,
    pub(super) grad_input: Option<Sink<'a>>,
    pub(super) wants_weight: bool,
    pub(super) wants_bias: bool,
}

/// The numbers of a spec in the compute type.
#[derive(Clone, Copy)]
struct Constants<F> {
    moments: bool,
    outside: bool,
    prefix: usize,
    inv_prefix: F,
    eps: F,
    weight_offset: F,
    rounded: Option<DType>,
    lanes: usize,
}

impl<F: Real> Constants<F> {
    fn new(spec: &Row, cols: usize, dtype: DType) -> Self {
        Constants {
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
}

/// What a row's normalization needs: `[mean, correction, rstd, exponent]` of `spec::STATISTICS`.
#[derive(Clone, Copy)]
struct Statistics<F> {
    mean: F,
    correction: F,
    rstd: F,
    exponent: i32,
}

impl<F: Real> Statistics<F> {
    /// The scaled, centred element.
    #[inline(always)]
    fn centred<const MOMENTS: bool, const SCALED: bool>(&self, x: F) -> F {
        let x = if SCALED { x.scale(-self.exponent) } else { x };
        if MOMENTS { (x - self.mean) - self.correction } else { x }
    }
}

/// Runs `$body` with `MOMENTS` and `SCALED` as constants; scaled rows are rare, so they share one compiled copy each.
macro_rules! specialised {
    ($moments:expr, $scaled:expr, $body:ident($($args:expr),*)) => {
        match ($moments, $scaled) {
            (true, false) => $body::<F, true, false>($($args),*),
            (false, false) => $body::<F, false, false>($($args),*),
            (true, true) => $body::<F, true, true>($($args),*),
            (false, true) => $body::<F, false, true>($($args),*),
        }
    };
}

/// Columns of `leaf` that the statistic sees.
#[inline(always)]
fn prefix_of<F>(row: &[F], leaf: usize, prefix: usize) -> &[F] {
    &row[..row.len().min(prefix.saturating_sub(leaf * LEAF))]
}

/// The statistic with a given exponent, and the divisor's square (inside) or the divisor (outside).
#[inline(always)]
fn statistics_at<F: Real, const MOMENTS: bool, const SCALED: bool>(
    x: &mut Leaves<'_, F>,
    constants: &Constants<F>,
    cols: usize,
    exponent: i32,
) -> (Statistics<F>, F, F) {
    let Constants { prefix, inv_prefix, lanes, .. } = *constants;
    let mut s = Statistics { mean: F::ZERO, correction: F::ZERO, rstd: F::ZERO, exponent };
    let scaled = move |x: F| if SCALED { x.scale(-exponent) } else { x };
    if MOMENTS {
        let shift = scaled(x.leaf(0)[0]);
        let [sum] = row_sums(cols, |j| leaf_sums([x.leaf(j)], lanes, |[x]| [scaled(x) - shift]));
        s.mean = shift + sum * inv_prefix;
        let mean = s.mean;
        let [sum] = row_sums(cols, |j| leaf_sums([x.leaf(j)], lanes, |[x]| [scaled(x) - mean]));
        s.correction = sum * inv_prefix;
    }
    let [sum] = row_sums(prefix, |j| {
        leaf_sums([prefix_of(x.leaf(j), j, prefix)], lanes, |[x]| {
            let e = s.centred::<MOMENTS, SCALED>(x);
            [e * e]
        })
    });
    let v = sum * inv_prefix;
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

/// The row's statistics, with an exponent where its magnitude calls for one.
#[inline(always)]
fn statistics<F: Real>(x: &mut Leaves<'_, F>, constants: &Constants<F>, cols: usize) -> Statistics<F> {
    let (plain, _, d) = specialised!(constants.moments, false, statistics_at(x, constants, cols, 0));
    let (low, high) = F::REGULAR[usize::from(constants.outside)];
    if d >= low && d <= high {
        return plain;
    }
    let Some(exponent) = irregular_exponent(x, constants) else { return plain };
    let (mut s, v, _) = specialised!(constants.moments, true, statistics_at(x, constants, cols, exponent));
    if v == F::ZERO {
        let r = if constants.outside { constants.eps.recip() } else { constants.eps.rsqrt() };
        let r = r.scale(exponent);
        s.rstd = if r > F::MAX { F::MAX } else { r };
    }
    s
}

/// The exponent that brings an irregular row into range; `None` where none helps.
#[inline(never)]
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

/// Loads a parameter's row once where it is a single leaf, with the offset added.
struct Parameter<'t, F> {
    leaves: Option<Leaves<'t, F>>,
}

impl<'t, F: Real> Parameter<'t, F> {
    #[inline(always)]
    fn new(source: Option<&Source<'t>>, cols: usize, tile: &'t mut [F]) -> Self {
        Parameter { leaves: source.map(|source| Leaves::new(source, 0, cols, tile)) }
    }

    #[inline(always)]
    fn leaf(&mut self, leaf: usize) -> Option<&[F]> {
        self.leaves.as_mut().map(|leaves| leaves.leaf(leaf))
    }
}

/// Normalizes rows `rows`.
#[inline(always)]
pub(super) fn forward<F: Real>(job: &Forward<'_>, rows: std::ops::Range<usize>, tiles: super::Tiles<'_, F>) {
    let constants = Constants::<F>::new(job.spec, job.cols, job.input.dtype());
    let [x_tile, w_tile, b_tile, out_tile, ..] = tiles;
    let mut weight = Parameter::new(job.weight.as_ref(), job.cols, w_tile);
    let mut bias = Parameter::new(job.bias.as_ref(), job.cols, b_tile);
    for row in rows {
        let mut x = Leaves::new(&job.input, row, job.cols, x_tile);
        let s = statistics(&mut x, &constants, job.cols);
        for leaf in 0..job.cols.div_ceil(LEAF) {
            let (x, w, b) = (x.leaf(leaf), weight.leaf(leaf), bias.leaf(leaf));
            job.output.store(row, leaf * LEAF, out_tile, x.len(), |out| {
                specialised!(constants.moments, s.exponent != 0, apply(x, w, b, &s, &constants, out));
            });
        }
        if let Some(sink) = &job.statistics {
            sink.store(row, 0, out_tile, STATISTICS, |out| {
                out.copy_from_slice(&[s.mean, s.correction, s.rstd, F::of(f64::from(s.exponent))]);
            });
        }
    }
}

/// `out = x_hat * w' + b`, with what is absent left out.
#[inline(always)]
fn apply<F: Real, const MOMENTS: bool, const SCALED: bool>(
    x: &[F],
    w: Option<&[F]>,
    b: Option<&[F]>,
    s: &Statistics<F>,
    constants: &Constants<F>,
    out: &mut [F],
) {
    let s = *s;
    let x_hat = move |x: F| s.centred::<MOMENTS, SCALED>(x) * s.rstd;
    if let Some(dtype) = constants.rounded {
        return apply_rounded(x, w, b, x_hat, dtype, constants.weight_offset, out);
    }
    let offset = constants.weight_offset;
    let x = &x[..out.len()];
    match (w, b) {
        (None, None) => {
            for (y, &x) in out.iter_mut().zip(x) {
                *y = x_hat(x);
            }
        }
        (Some(w), None) if offset == F::ZERO => {
            for ((y, &x), &w) in out.iter_mut().zip(x).zip(w) {
                *y = x_hat(x) * w;
            }
        }
        (Some(w), None) => {
            for ((y, &x), &w) in out.iter_mut().zip(x).zip(w) {
                *y = x_hat(x) * (w + offset);
            }
        }
        (None, Some(b)) => {
            for ((y, &x), &b) in out.iter_mut().zip(x).zip(b) {
                *y = x_hat(x) + b;
            }
        }
        (Some(w), Some(b)) if offset == F::ZERO => {
            for (((y, &x), &w), &b) in out.iter_mut().zip(x).zip(w).zip(b) {
                *y = x_hat(x) * w + b;
            }
        }
        (Some(w), Some(b)) => {
            for (((y, &x), &w), &b) in out.iter_mut().zip(x).zip(w).zip(b) {
                *y = x_hat(x) * (w + offset) + b;
            }
        }
    }
}

/// As [`apply`], with `x_hat` rounded to the input's dtype.
#[inline(always)]
fn apply_rounded<F: Real>(
    x: &[F],
    w: Option<&[F]>,
    b: Option<&[F]>,
    x_hat: impl Fn(F) -> F,
    dtype: DType,
    offset: F,
    out: &mut [F],
) {
    for (y, &x) in out.iter_mut().zip(x) {
        *y = x_hat(x).rounded_to(dtype);
    }
    if let Some(w) = w {
        for (y, &w) in out.iter_mut().zip(w) {
            *y = *y * if offset == F::ZERO { w } else { w + offset };
        }
    }
    if let Some(b) = b {
        for (y, &b) in out.iter_mut().zip(b) {
            *y += b;
        }
    }
}

/// A row's two means, and the exponent that its gradients were scaled down by.
#[derive(Clone, Copy)]
struct GradStatistics<F> {
    c1: F,
    c2: F,
    /// Exponents taken out of `g` and of the weight; both 0 in a regular row.
    g_exponent: i32,
    w_exponent: i32,
}

impl<F: Real> GradStatistics<F> {
    /// `ghat`, scaled if the row is.
    #[inline(always)]
    fn ghat<const SCALED: bool>(&self, g: F, w: F) -> F {
        if SCALED { g.scale(-self.g_exponent) * w.scale(-self.w_exponent) } else { g * w }
    }
}

/// Gradients of the rows of one chunk; `partials` receives the chunk's sums, weight's first, then bias's.
#[inline(always)]
pub(super) fn backward<F: Real>(
    job: &Backward<'_>,
    rows: std::ops::Range<usize>,
    partials: &mut [F],
    leaves: &mut [F],
    tiles: super::Tiles<'_, F>,
) {
    let cols = job.cols;
    let constants = Constants::<F>::new(job.spec, cols, job.input.dtype());
    let [x_tile, g_tile, w_tile, hat_tile, ghat_tile, out_tile] = tiles;
    let (weight_chunk, bias_chunk) = partials.split_at_mut(if job.wants_weight { cols } else { 0 });
    let (weight_leaf, bias_leaf) = leaves.split_at_mut(weight_chunk.len());
    let mut weight_sums = job.wants_weight.then(|| ColumnSums::new(weight_leaf, weight_chunk));
    let mut bias_sums = job.wants_bias.then(|| ColumnSums::new(bias_leaf, bias_chunk));
    let mut weight = Parameter::new(job.weight.as_ref(), cols, w_tile);
    for (index, row) in rows.enumerate() {
        let mut x = Leaves::new(&job.input, row, cols, x_tile);
        let mut g = Leaves::new(&job.grad_output, row, cols, g_tile);
        let saved = job.statistics.load(row, 0, out_tile, STATISTICS);
        let s = Statistics {
            mean: saved[0],
            correction: saved[1],
            rstd: saved[2],
            exponent: saved[3].to_f64() as i32,
        };
        for sums in [&mut weight_sums, &mut bias_sums].into_iter().flatten() {
            sums.begin_row(index);
        }
        let mut rowwise = RowGradient { x: &mut x, g: &mut g, weight: &mut weight, s, constants: &constants, cols };
        let grad = job.grad_input.map(|_| rowwise.means(hat_tile, ghat_tile));
        for leaf in 0..cols.div_ceil(LEAF) {
            let at = leaf * LEAF;
            let len = LEAF.min(cols - at);
            let hat = &mut hat_tile[..len];
            if weight_sums.is_some() || grad.is_some() {
                normalize(rowwise.x.leaf(leaf), &s, &constants, hat);
            }
            let g = rowwise.g.leaf(leaf);
            if let Some(sums) = &mut bias_sums {
                sums.add(at, [g], |[g]| g);
            }
            if let Some(sums) = &mut weight_sums {
                match constants.rounded {
                    None => sums.add(at, [g, hat], |[g, hat]| g * hat),
                    Some(dtype) => sums.add(at, [g, hat], |[g, hat]| g * hat.rounded_to(dtype)),
                }
            }
            if let (Some(sink), Some(grad)) = (&job.grad_input, &grad) {
                let scaled = grad.g_exponent != 0 || grad.w_exponent != 0;
                let ghat = &mut ghat_tile[..len];
                fill_ghat(g, rowwise.weight.leaf(leaf), &constants, grad, scaled, ghat);
                sink.store(row, at, out_tile, len, |out| {
                    grad_input(ghat, hat, at, &s, grad, &constants, out);
                });
            }
        }
    }
    for sums in [weight_sums, bias_sums].into_iter().flatten() {
        sums.finish();
    }
}

/// `hat = x_hat`, unrounded.
#[inline(always)]
fn normalize<F: Real>(x: &[F], s: &Statistics<F>, constants: &Constants<F>, hat: &mut [F]) {
    #[inline(always)]
    fn fill<F: Real, const MOMENTS: bool, const SCALED: bool>(x: &[F], s: &Statistics<F>, hat: &mut [F]) {
        for (hat, &x) in hat.iter_mut().zip(x) {
            *hat = s.centred::<MOMENTS, SCALED>(x) * s.rstd;
        }
    }
    specialised!(constants.moments, s.exponent != 0, fill(x, s, hat));
}

/// `ghat = g * w'`, or `g` where there is no weight.
#[inline(always)]
fn fill_ghat<F: Real>(
    g: &[F],
    w: Option<&[F]>,
    constants: &Constants<F>,
    grad: &GradStatistics<F>,
    scaled: bool,
    ghat: &mut [F],
) {
    let offset = constants.weight_offset;
    match w {
        None if scaled => {
            for (ghat, &g) in ghat.iter_mut().zip(g) {
                *ghat = g.scale(-grad.g_exponent);
            }
        }
        None => ghat.copy_from_slice(g),
        Some(w) if scaled => {
            for ((ghat, &g), &w) in ghat.iter_mut().zip(g).zip(w) {
                *ghat = grad.ghat::<true>(g, if offset == F::ZERO { w } else { w + offset });
            }
        }
        Some(w) if offset == F::ZERO => {
            for ((ghat, &g), &w) in ghat.iter_mut().zip(g).zip(w) {
                *ghat = grad.ghat::<false>(g, w);
            }
        }
        Some(w) => {
            for ((ghat, &g), &w) in ghat.iter_mut().zip(g).zip(w) {
                *ghat = grad.ghat::<false>(g, w + offset);
            }
        }
    }
}

/// One row's operands in a backward pass.
struct RowGradient<'r, 't, 'w, F> {
    x: &'r mut Leaves<'t, F>,
    g: &'r mut Leaves<'t, F>,
    weight: &'r mut Parameter<'w, F>,
    s: Statistics<F>,
    constants: &'r Constants<F>,
    cols: usize,
}

impl<F: Real> RowGradient<'_, '_, '_, F> {
    /// The two means, scaled where the row's gradients call for it.
    #[inline(always)]
    fn means(&mut self, hat: &mut [F], ghat: &mut [F]) -> GradStatistics<F> {
        let mut grad = GradStatistics { c1: F::ZERO, c2: F::ZERO, g_exponent: 0, w_exponent: 0 };
        let (mut s1, mut s2, any_large) = self.sums(&grad, false, hat, ghat);
        let regular = s1.abs() < F::SUM_LIMIT && s2.abs() < F::SUM_LIMIT && any_large;
        if !regular && let Some((g, w)) = self.irregular_exponents() {
            (grad.g_exponent, grad.w_exponent) = (g, w);
            (s1, s2, _) = self.sums(&grad, true, hat, ghat);
        }
        if self.constants.moments {
            grad.c1 = s1 * self.constants.inv_prefix;
        }
        grad.c2 = s2 * self.constants.inv_prefix;
        if self.constants.outside {
            let q = self.s.mean;
            grad.c2 = if q == F::ZERO { F::ZERO } else { grad.c2 * (self.s.rstd * q).recip() };
        }
        grad
    }

    /// `Σ ghat`, `Σ ghat * x_hat`, and whether some `ghat` is large enough.
    #[inline(always)]
    fn sums(
        &mut self,
        grad: &GradStatistics<F>,
        scaled: bool,
        hat: &mut [F],
        ghat: &mut [F],
    ) -> (F, F, bool) {
        let mut bits = F::Bits::default();
        let [s1, s2] = row_sums(self.cols, |leaf| {
            let x = self.x.leaf(leaf);
            let (hat, ghat) = (&mut hat[..x.len()], &mut ghat[..x.len()]);
            normalize(x, &self.s, self.constants, hat);
            fill_ghat(self.g.leaf(leaf), self.weight.leaf(leaf), self.constants, grad, scaled, ghat);
            bits = ghat.iter().fold(bits, |bits, g| F::or(bits, g.magnitude()));
            if self.constants.moments {
                leaf_sums([ghat, hat], self.constants.lanes, |[ghat, hat]| [ghat, ghat * hat])
            } else {
                let [s2] = leaf_sums([ghat, hat], self.constants.lanes, |[ghat, hat]| [ghat * hat]);
                [F::ZERO, s2]
            }
        });
        (s1, s2, F::any_large(bits))
    }

    /// Exponents of the largest `g` and `w'`; `None` where scaling by them cannot help.
    #[inline(never)]
    fn irregular_exponents(&mut self) -> Option<(i32, i32)> {
        let (mut g, mut w) = (F::Bits::default(), F::Bits::default());
        for leaf in 0..self.cols.div_ceil(LEAF) {
            g = self.g.leaf(leaf).iter().fold(g, |most, g| most.max(g.magnitude()));
            let offset = self.constants.weight_offset;
            match self.weight.leaf(leaf) {
                None => w = F::ONE.magnitude(),
                Some(part) => {
                    let shifted = |w: F| if offset == F::ZERO { w } else { w + offset };
                    w = part.iter().fold(w, |most, &w| most.max(shifted(w).magnitude()));
                }
            }
        }
        (!F::is_special(g) && !F::is_special(w)).then(|| (F::exponent(g), F::exponent(w)))
    }
}

/// `out = scale(rstd * ((ghat - c1) - x_hat * c2), P - E)`, with what the statistic lacks left out.
#[inline(always)]
fn grad_input<F: Real>(
    ghat: &[F],
    hat: &[F],
    at: usize,
    s: &Statistics<F>,
    grad: &GradStatistics<F>,
    constants: &Constants<F>,
    out: &mut [F],
) {
    let (rstd, c1, c2) = (s.rstd, grad.c1, grad.c2);
    let (ghat, hat) = (&ghat[..out.len()], &hat[..out.len()]);
    if constants.moments {
        for ((dx, &ghat), &hat) in out.iter_mut().zip(ghat).zip(hat) {
            *dx = rstd * ((ghat - c1) - hat * c2);
        }
    } else {
        let (seen, unseen) = out.split_at_mut(constants.prefix.saturating_sub(at).min(ghat.len()));
        let (ghat_seen, ghat_unseen) = ghat.split_at(seen.len());
        for ((dx, &ghat), &hat) in seen.iter_mut().zip(ghat_seen).zip(hat) {
            *dx = rstd * (ghat - hat * c2);
        }
        for (dx, &ghat) in unseen.iter_mut().zip(ghat_unseen) {
            *dx = rstd * ghat;
        }
    }
    let power = grad.g_exponent + grad.w_exponent - s.exponent;
    if power != 0 {
        out.iter_mut().for_each(|dx| *dx = dx.scale(power));
    }
}

/// Writes the parameter gradients from the chunks' partials: the weight's columns first, then the bias's.
pub(super) fn finish<F: Real>(
    weight: Option<&Sink<'_>>,
    bias: Option<&Sink<'_>>,
    partials: &[F],
    cols: usize,
    cpu: &Cpu,
) {
    let stride = cols * (usize::from(weight.is_some()) + usize::from(bias.is_some()));
    if let Some(sink) = weight {
        affine::finish(sink, partials, stride, 0, cols, cpu);
    }
    if let Some(sink) = bias {
        affine::finish(sink, partials, stride, stride - cols, cols, cpu);
    }
}
