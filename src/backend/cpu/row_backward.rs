//! The `row` schedule's backward pass: two means of each row, the gradient of the input, and the row's terms of the
//! parameter gradients, from one read of the row.

use super::affine::{self, ColumnSums};
use super::elementwise::{Ghat, GradInput, Statistics};
use super::lanes::{LeafSums, Plain, Product, RowSums, Term};
use super::operand::{Leaves, Sink, Source};
use super::real::Real;
use super::row::{Constants, Parameter, round_all};
use super::{Cpu, Isa};
use crate::plan::tree::LEAF;
use crate::spec::{Norm, STATISTICS};

/// What one task of a backward pass works on.
#[derive(Clone, Copy)]
pub(super) struct Backward<'a> {
    pub(super) spec: &'a Norm,
    pub(super) cols: usize,
    pub(super) grad_output: Source<'a>,
    pub(super) input: Source<'a>,
    pub(super) statistics: Source<'a>,
    pub(super) weight: Option<Source<'a>>,
    pub(super) grad_input: Option<Sink<'a>>,
    pub(super) wants_weight: bool,
    pub(super) wants_bias: bool,
}

/// A row's two means, and the exponents taken out of `g` and of the weight where the row is irregular.
#[derive(Clone, Copy, Default)]
struct Means<F> {
    c1: F,
    c2: F,
    scaled: bool,
    g_exponent: i32,
    w_exponent: i32,
}

/// `ghat` and `ghat * x_hat`.
struct Both;

impl<F: Real> Term<F, 2, 2> for Both {
    #[inline(always)]
    fn of(&self, [ghat, hat]: [F; 2]) -> [F; 2] {
        [ghat, ghat * hat]
    }
}

/// Gradients of the rows of one chunk; `partials` receives the chunk's sums, weight's first, then bias's.
pub(super) fn backward<F: Real>(
    job: &Backward<'_>,
    isa: Isa,
    rows: std::ops::Range<usize>,
    partials: &mut [F],
    leaves: &mut [F],
    tiles: super::Tiles<'_, F>,
) {
    let cols = job.cols;
    let constants = Constants::<F>::new(isa, job.spec, cols, job.input.dtype());
    let [x_tile, g_tile, w_tile, hat_tile, ghat_tile, out_tile, scaled_tile, ..] = tiles;
    let (weight_chunk, bias_chunk) = partials.split_at_mut(if job.wants_weight { cols } else { 0 });
    let (weight_leaf, bias_leaf) = leaves.split_at_mut(weight_chunk.len());
    let mut weight_sums = job.wants_weight.then(|| ColumnSums::new(isa, weight_leaf, weight_chunk));
    let mut bias_sums = job.wants_bias.then(|| ColumnSums::new(isa, bias_leaf, bias_chunk));
    let mut weight = Parameter::new(job.weight.as_ref(), cols, w_tile);
    for (index, row) in rows.enumerate() {
        let saved = job.statistics.load(row, 0, out_tile, STATISTICS);
        let exponent = saved[3].to_f32() as i32;
        let s = Statistics { mean: saved[0], correction: saved[1], rstd: saved[2], exponent };
        let mut x = Leaves::new(&job.input, row, cols, x_tile);
        if exponent != 0 {
            x = x.scaled(exponent, scaled_tile);
        }
        let mut g = Leaves::new(&job.grad_output, row, cols, g_tile);
        let mut operands = Operands { x: &mut x, g: &mut g, weight: &mut weight, s, constants: &constants };
        let mut means = Means::default();
        if job.grad_input.is_some() {
            means = operands.means(cols, hat_tile, ghat_tile);
        }
        // A row of one leaf still has x_hat and ghat in their tiles from taking the means.
        let filled = cols <= LEAF && job.grad_input.is_some();
        for leaf in 0..cols.div_ceil(LEAF) {
            let at = leaf * LEAF;
            let len = LEAF.min(cols - at);
            let (hat, ghat) = (&mut hat_tile[..len], &mut ghat_tile[..len]);
            if !filled {
                operands.fill(leaf, &means, hat, ghat);
            }
            if let Some(sink) = &job.grad_input {
                let out = sink.begin(row, at, out_tile, len);
                grad_input(ghat, hat, at, &s, &means, &constants, out);
                sink.commit(row, at, out);
            }
            let g = operands.g.leaf(leaf);
            if let Some(sums) = &mut bias_sums {
                sums.begin_leaf(index, at, len);
                sums.add(at, [g], Plain);
            }
            if let Some(sums) = &mut weight_sums {
                if let Some(dtype) = constants.rounded {
                    round_all(hat, dtype);
                }
                sums.begin_leaf(index, at, len);
                sums.add(at, [g, hat], Product);
            }
        }
    }
    for sums in [weight_sums, bias_sums].into_iter().flatten() {
        sums.finish();
    }
}

/// One row's operands.
struct Operands<'r, 't, 'w, F> {
    x: &'r mut Leaves<'t, F>,
    g: &'r mut Leaves<'t, F>,
    weight: &'r mut Parameter<'w, F>,
    s: Statistics<F>,
    constants: &'r Constants<F>,
}

impl<F: Real> Operands<'_, '_, '_, F> {
    /// The two means, scaled where the row's gradients call for it.
    fn means(&mut self, cols: usize, hat: &mut [F], ghat: &mut [F]) -> Means<F> {
        let mut means = Means::default();
        let (mut s1, mut s2, any_large) = self.sums(cols, &means, hat, ghat);
        let regular = s1.abs() < F::SUM_LIMIT && s2.abs() < F::SUM_LIMIT && any_large;
        if !regular && let Some((g, w)) = self.irregular_exponents(cols) {
            means = Means { g_exponent: g, w_exponent: w, scaled: true, ..means };
            (s1, s2, _) = self.sums(cols, &means, hat, ghat);
        }
        let constants = self.constants;
        if constants.moments {
            means.c1 = s1 * constants.inv_prefix;
        }
        means.c2 = s2 * constants.inv_prefix;
        if constants.outside {
            let q = self.s.mean;
            means.c2 = if q == F::ZERO { F::ZERO } else { means.c2 * (self.s.rstd * q).recip() };
        }
        means
    }

    /// `Σ ghat`, `Σ ghat * x_hat`, and whether some `ghat` is large enough. Leaves the last leaf in the tiles.
    fn sums(&mut self, cols: usize, means: &Means<F>, hat: &mut [F], ghat: &mut [F]) -> (F, F, bool) {
        let mut bits = F::Bits::default();
        let mut sums = RowSums::new();
        let Constants { isa, lanes, moments, .. } = *self.constants;
        for leaf in 0..cols.div_ceil(LEAF) {
            let len = LEAF.min(cols - leaf * LEAF);
            let (hat, ghat) = (&mut hat[..len], &mut ghat[..len]);
            bits = F::or(bits, self.fill(leaf, means, hat, ghat));
            let inputs = [&*ghat, &*hat];
            sums.push(if moments {
                isa.run(LeafSums { inputs, lanes, term: Both })
            } else {
                let [s2] = isa.run(LeafSums { inputs, lanes, term: Product });
                [F::ZERO, s2]
            });
        }
        let [s1, s2] = sums.total();
        (s1, s2, F::any_large(bits))
    }

    /// `hat = x_hat`, unrounded, and `ghat = g * w'`, scaled if the row is; `g` where there is no weight. Returns the
    /// OR of `ghat`'s magnitude bits.
    fn fill(&mut self, leaf: usize, means: &Means<F>, hat: &mut [F], ghat: &mut [F]) -> F::Bits {
        self.constants.normalize(self.x.leaf(leaf), self.s, hat);
        let (g, w) = (self.g.leaf(leaf), self.weight.leaf(leaf));
        if means.scaled {
            return fill_scaled(g, w, means, self.constants, ghat);
        }
        self.constants.isa.run(Ghat { g, w, offset: self.constants.weight_offset, out: ghat })
    }

    /// Exponents of the largest `g` and `w'`; `None` where scaling by them cannot help.
    fn irregular_exponents(&mut self, cols: usize) -> Option<(i32, i32)> {
        let (mut g, mut w) = (F::Bits::default(), F::Bits::default());
        for leaf in 0..cols.div_ceil(LEAF) {
            g = self.g.leaf(leaf).iter().fold(g, |most, g| most.max(g.magnitude()));
            match self.weight.leaf(leaf) {
                None => w = F::ONE.magnitude(),
                Some(part) => {
                    w = part.iter().fold(w, |most, &w| most.max(self.constants.offset(w).magnitude()));
                }
            }
        }
        (!F::is_special(g) && !F::is_special(w)).then(|| (F::exponent(g), F::exponent(w)))
    }
}

/// `ghat` of an irregular row.
fn fill_scaled<F: Real>(
    g: &[F],
    w: Option<&[F]>,
    means: &Means<F>,
    constants: &Constants<F>,
    ghat: &mut [F],
) -> F::Bits {
    for (i, (ghat, &g)) in ghat.iter_mut().zip(g).enumerate() {
        let g = g.scale(-means.g_exponent);
        *ghat = match w {
            None => g,
            Some(w) => g * constants.offset(w[i]).scale(-means.w_exponent),
        };
    }
    F::Bits::default()
}

/// `out = scale(rstd * ((ghat - c1) - x_hat * c2), P - E)`, with what the statistic lacks left out.
fn grad_input<F: Real>(
    ghat: &[F],
    hat: &[F],
    at: usize,
    s: &Statistics<F>,
    means: &Means<F>,
    constants: &Constants<F>,
    out: &mut [F],
) {
    let (isa, rstd, c2) = (constants.isa, s.rstd, means.c2);
    if constants.moments {
        isa.run(GradInput { ghat, hat, rstd, c1: Some(means.c1), c2, out: &mut *out });
    } else {
        let (seen, unseen) = out.split_at_mut(constants.prefix.saturating_sub(at).min(ghat.len()));
        let (ghat, ghat_unseen) = ghat.split_at(seen.len());
        for (dx, &ghat) in unseen.iter_mut().zip(ghat_unseen) {
            *dx = rstd * ghat;
        }
        isa.run(GradInput { ghat, hat, rstd, c1: None, c2, out: seen });
    }
    let power = means.g_exponent + means.w_exponent - s.exponent;
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
