//! The `pointwise` schedule: a function of each element, then scale and shift. Backward sums over rows as it goes.

use super::affine::{self, ColumnSums};
use super::elementwise::affine as affine_of;
use super::lanes::{LeafSums, Plain, Product, RowSums};
use super::math::{self, BATCH, two_prod};
use super::operand::{Sink, Source};
use super::real::Real;
use super::{Cpu, Isa};
use crate::plan::tree::{LEAF, lanes};
use pulp::NullaryFnOnce;

/// What one task of a forward pass works on.
#[derive(Clone, Copy)]
pub(super) struct Forward<'a, F> {
    pub(super) cols: usize,
    pub(super) alpha: F,
    pub(super) input: Source<'a>,
    pub(super) weight: Option<Source<'a>>,
    pub(super) bias: Option<Source<'a>>,
    pub(super) output: Sink<'a>,
}

/// What one task of a backward pass works on.
#[derive(Clone, Copy)]
pub(super) struct Backward<'a, F> {
    pub(super) cols: usize,
    pub(super) alpha: F,
    pub(super) grad_output: Source<'a>,
    pub(super) input: Source<'a>,
    pub(super) weight: Option<Source<'a>>,
    pub(super) grad_input: Option<Sink<'a>>,
    pub(super) wants_weight: bool,
    pub(super) wants_bias: bool,
    pub(super) wants_alpha: bool,
}

impl<F> Backward<'_, F> {
    /// How many sums over rows each column has.
    pub(super) fn params(&self) -> usize {
        usize::from(self.wants_weight) + usize::from(self.wants_bias) + usize::from(self.wants_alpha)
    }
}

/// `y = tanh(alpha * x) * w + b` for rows `rows`.
pub(super) fn forward<F: Real>(
    job: &Forward<'_, F>,
    isa: Isa,
    rows: std::ops::Range<usize>,
    tiles: super::Tiles<'_, F>,
) {
    let [x_tile, w_tile, b_tile, out_tile, ..] = tiles;
    let short = job.input.dtype().size() == 2;
    for first in (0..job.cols).step_by(LEAF) {
        let len = LEAF.min(job.cols - first);
        let w = job.weight.map(|w| w.load(0, first, w_tile, len));
        let b = job.bias.map(|b| b.load(0, first, b_tile, len));
        for row in rows.clone() {
            let x = job.input.load(row, first, x_tile, len);
            let out = job.output.begin(row, first, out_tile, len);
            isa.run(Tanh { alpha: job.alpha, short, x, w, b, out: &mut *out });
            job.output.commit(row, first, out);
        }
    }
}

/// Gradients of the rows of one chunk. `partials` receives the chunk's sums: weight's, bias's, alpha's, of those asked.
pub(super) fn backward<F: Real>(
    job: &Backward<'_, F>,
    isa: Isa,
    rows: std::ops::Range<usize>,
    partials: &mut [F],
    leaves: &mut [F],
    tiles: super::Tiles<'_, F>,
) {
    let cols = job.cols;
    let [x_tile, g_tile, w_tile, out_tile, b_tile, bl_tile, t_tile, s_tile] = tiles;
    for first in (0..cols).step_by(LEAF) {
        let len = LEAF.min(cols - first);
        let piece = first..first + len;
        let (weight_part, rest) = partials.split_at_mut(if job.wants_weight { cols } else { 0 });
        let (bias_part, alpha_part) = rest.split_at_mut(if job.wants_bias { cols } else { 0 });
        let (weight_leaf, rest) = leaves.split_at_mut(weight_part.len());
        let (bias_leaf, alpha_leaf) = rest.split_at_mut(bias_part.len());
        let mut weight_sums = None;
        if job.wants_weight {
            weight_sums =
                Some(ColumnSums::new(isa, &mut weight_leaf[piece.clone()], &mut weight_part[piece.clone()]));
        }
        let mut bias_sums = None;
        if job.wants_bias {
            bias_sums =
                Some(ColumnSums::new(isa, &mut bias_leaf[piece.clone()], &mut bias_part[piece.clone()]));
        }
        let mut alpha_sums = None;
        if job.wants_alpha {
            alpha_sums =
                Some(ColumnSums::new(isa, &mut alpha_leaf[piece.clone()], &mut alpha_part[piece.clone()]));
        }
        // Without a weight, one of ones: multiplying by it changes nothing.
        let w = match &job.weight {
            Some(w) => w.load(0, first, w_tile, len),
            None => {
                w_tile[..len].fill(F::ONE);
                &w_tile[..len]
            }
        };
        let (b, bl) = (&mut b_tile[..len], &mut bl_tile[..len]);
        for ((b, bl), &w) in b.iter_mut().zip(bl.iter_mut()).zip(w) {
            (*b, *bl) = two_prod(w, job.alpha);
        }
        for (index, row) in rows.clone().enumerate() {
            let x = job.input.load(row, first, x_tile, len);
            let g = job.grad_output.load(row, first, g_tile, len);
            let (t, s) = (&mut t_tile[..len], &mut s_tile[..len]);
            match &job.grad_input {
                Some(sink) => {
                    let out = sink.begin(row, first, out_tile, len);
                    isa.run(Slopes {
                        alpha: job.alpha,
                        x,
                        g,
                        w,
                        b,
                        bl,
                        t: &mut *t,
                        s: &mut *s,
                        dx: &mut *out,
                    });
                    sink.commit(row, first, out);
                }
                None => {
                    let dx = &mut out_tile[..len];
                    isa.run(Slopes { alpha: job.alpha, x, g, w, b, bl, t: &mut *t, s: &mut *s, dx });
                }
            }
            if let Some(sums) = &mut bias_sums {
                sums.begin_leaf(index, 0, len);
                sums.add(0, [g], Plain);
            }
            if let Some(sums) = &mut weight_sums {
                sums.begin_leaf(index, 0, len);
                sums.add(0, [g, t], Product);
            }
            if let Some(sums) = &mut alpha_sums {
                sums.begin_leaf(index, 0, len);
                sums.add(0, [s], Plain);
            }
        }
        for sums in [weight_sums, bias_sums, alpha_sums].into_iter().flatten() {
            sums.finish();
        }
    }
}

/// `out = tanh(alpha x) * w + b`, with what is absent left out.
struct Tanh<'a, F> {
    alpha: F,
    /// Whether the result is rounded to 16 bits.
    short: bool,
    x: &'a [F],
    w: Option<&'a [F]>,
    b: Option<&'a [F]>,
    out: &'a mut [F],
}

impl<F: Real> NullaryFnOnce for Tanh<'_, F> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        let Tanh { alpha, short, x, w, b, out } = self;
        if short {
            for (y, &x) in out.iter_mut().zip(x) {
                *y = math::tanh_product_short(alpha, x);
            }
        } else {
            let (mut batch, mut t) = ([F::ZERO; BATCH], [F::ZERO; BATCH]);
            for (x, out) in x.chunks(BATCH).zip(out.chunks_mut(BATCH)) {
                batch[..x.len()].copy_from_slice(x);
                math::tanh(alpha, &batch, &mut t);
                out.copy_from_slice(&t[..x.len()]);
            }
        }
        affine_of(w, b, F::ZERO, out);
    }
}

/// `t = tanh(alpha x)`, `s = g w x sech²(alpha x)`, and `dx = g (b + bl) sech²(alpha x)`.
struct Slopes<'a, F> {
    alpha: F,
    x: &'a [F],
    g: &'a [F],
    w: &'a [F],
    b: &'a [F],
    bl: &'a [F],
    t: &'a mut [F],
    s: &'a mut [F],
    dx: &'a mut [F],
}

impl<F: Real> NullaryFnOnce for Slopes<'_, F> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        let Slopes { alpha, x, g, w, b, bl, t, s, dx } = self;
        let mut batch = [F::ZERO; BATCH];
        for first in (0..dx.len()).step_by(BATCH) {
            let piece = first..dx.len().min(first + BATCH);
            let len = piece.len();
            let (x, g, w) = (&x[piece.clone()], &g[piece.clone()], &w[piece.clone()]);
            let (b, bl) = (&b[piece.clone()], &bl[piece.clone()]);
            let (t, s, dx) = (&mut t[piece.clone()], &mut s[piece.clone()], &mut dx[piece]);
            batch[..len].copy_from_slice(x);
            let at = math::slopes(alpha, &batch);
            t.copy_from_slice(&at.t[..len]);
            let (h, hl, power, rest) = (&at.h[..len], &at.hl[..len], &at.power[..len], &at.rest[..len]);
            for i in 0..len {
                s[i] = (((g[i] * w[i]) * (h[i] * x[i] + hl[i] * x[i])) * power[i]) * rest[i];
                let (p, pe) = two_prod(b[i], h[i]);
                let pl = pe + (b[i] * hl[i] + bl[i] * h[i]);
                // An infinite gradient has no low part to add: it would only meet the high part as inf - inf.
                let (high, low) = (g[i] * p, g[i] * pl);
                let sum = if low.abs() <= F::MAX { high + low } else { high };
                dx[i] = (sum * power[i]) * rest[i];
            }
        }
    }
}

/// Writes the parameter gradients from the chunks' partials.
pub(super) fn finish<F: Real>(
    [weight, bias, alpha]: [Option<&Sink<'_>>; 3],
    partials: &[F],
    cols: usize,
    cpu: &Cpu,
) {
    let wanted = [weight, bias, alpha];
    let stride = cols * wanted.iter().flatten().count();
    let mut offset = 0;
    for sink in [weight, bias].into_iter().flatten() {
        affine::finish(sink, partials, stride, offset, cols, cpu);
        offset += cols;
    }
    let Some(sink) = alpha else { return };
    super::with_tiles::<F, _>(|[columns, tile, ..], _| {
        let mut sums = RowSums::new();
        for first in (0..cols).step_by(LEAF) {
            let columns = &mut columns[..LEAF.min(cols - first)];
            affine::sum_chunks(partials, stride, offset + first, columns);
            sums.push(cpu.isa().run(LeafSums { inputs: [&*columns], lanes: lanes(cols), term: Plain }));
        }
        let out = sink.begin(0, 0, tile, 1);
        out.copy_from_slice(&sums.total());
        sink.commit(0, 0, out);
    });
}
