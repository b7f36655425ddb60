//! The `pointwise` schedule: a function of each element, then scale and shift. Backward sums over rows as it goes.

use super::Cpu;
use super::affine::{self, ColumnSums};
use super::lanes::{leaf_sums, row_sums};
use super::math::{self, Slope, slope, two_prod};
use super::operand::{Sink, Source};
use super::real::Real;
use crate::plan::tree::{LEAF, lanes};

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

/// Pieces of at most [`LEAF`] columns: `(first, len)`.
fn pieces(cols: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..cols).step_by(LEAF).map(move |first| (first, LEAF.min(cols - first)))
}

/// `y = tanh(alpha * x) * w + b` for rows `rows`.
#[inline(always)]
pub(super) fn forward<F: Real>(
    job: &Forward<'_, F>,
    rows: std::ops::Range<usize>,
    tiles: super::Tiles<'_, F>,
) {
    let [x_tile, w_tile, b_tile, out_tile, ..] = tiles;
    for (first, len) in pieces(job.cols) {
        let w = job.weight.as_ref().map(|w| w.load(0, first, w_tile, len));
        let b = job.bias.as_ref().map(|b| b.load(0, first, b_tile, len));
        for row in rows.clone() {
            let x = job.input.load(row, first, x_tile, len);
            job.output.store(row, first, out_tile, len, |out| {
                let alpha = job.alpha;
                for (y, &x) in out.iter_mut().zip(x) {
                    let (z, zl) = math::argument(alpha, x);
                    *y = math::tanh(z, zl);
                }
                if let Some(w) = w {
                    out.iter_mut().zip(w).for_each(|(y, &w)| *y = *y * w);
                }
                if let Some(b) = b {
                    out.iter_mut().zip(b).for_each(|(y, &b)| *y += b);
                }
            });
        }
    }
}

/// Gradients of the rows of one chunk. `partials` receives the chunk's sums: weight's, bias's, alpha's, of those asked.
#[inline(always)]
pub(super) fn backward<F: Real>(
    job: &Backward<'_, F>,
    rows: std::ops::Range<usize>,
    partials: &mut [F],
    leaves: &mut [F],
    tiles: super::Tiles<'_, F>,
) {
    let cols = job.cols;
    let [x_tile, g_tile, w_tile, out_tile, b_tile, bl_tile] = tiles;
    for (first, len) in pieces(cols) {
        // Sums of this piece, in the order weight, bias, alpha.
        let mut parts = partials.chunks_exact_mut(cols).map(|sums| &mut sums[first..first + len]);
        let mut scratch = leaves.chunks_exact_mut(cols).map(|sums| &mut sums[..len]);
        let mut sums = |wanted: bool| {
            if !wanted {
                return None;
            }
            Some(ColumnSums::new(scratch.next()?, parts.next()?))
        };
        let (mut weight_sums, mut bias_sums, mut alpha_sums) =
            (sums(job.wants_weight), sums(job.wants_bias), sums(job.wants_alpha));
        let w = job.weight.as_ref().map(|w| w.load(0, first, w_tile, len));
        let (big, low) = (&mut b_tile[..len], &mut bl_tile[..len]);
        match w {
            None => {
                big.fill(job.alpha);
                low.fill(F::ZERO);
            }
            Some(w) => {
                for ((big, low), &w) in big.iter_mut().zip(low.iter_mut()).zip(w) {
                    (*big, *low) = two_prod(w, job.alpha);
                }
            }
        }
        let (big, low) = (&*big, &*low);
        for (index, row) in rows.clone().enumerate() {
            let x = job.input.load(row, first, x_tile, len);
            let g = job.grad_output.load(row, first, g_tile, len);
            for sums in [&mut weight_sums, &mut bias_sums, &mut alpha_sums].into_iter().flatten() {
                sums.begin_row(index);
            }
            let alpha = job.alpha;
            let at = move |x: F| {
                let (z, zl) = math::argument(alpha, x);
                slope(z, zl)
            };
            if let Some(sums) = &mut bias_sums {
                sums.add(0, [g], |[g]| g);
            }
            if let Some(sums) = &mut weight_sums {
                sums.add(0, [g, x], |[g, x]| g * at(x).t);
            }
            if let Some(sums) = &mut alpha_sums {
                let term = |gw: F, x: F| {
                    let Slope { h, hl, power, rest, .. } = at(x);
                    gw * (((h * x + hl * x) * power) * rest)
                };
                match w {
                    None => sums.add(0, [g, x], |[g, x]| term(g, x)),
                    Some(w) => sums.add(0, [g, x, w], |[g, x, w]| term(g * w, x)),
                }
            }
            if let Some(sink) = &job.grad_input {
                sink.store(row, first, out_tile, len, |out| {
                    for ((((dx, &x), &g), &b), &bl) in out.iter_mut().zip(x).zip(g).zip(big).zip(low) {
                        let Slope { h, hl, power, rest, .. } = at(x);
                        let (t, te) = two_prod(b, h);
                        let tl = te + (b * hl + bl * h);
                        *dx = ((g * t + g * tl) * power) * rest;
                    }
                });
            }
        }
        for sums in [weight_sums, bias_sums, alpha_sums].into_iter().flatten() {
            sums.finish();
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
        let [sum] = row_sums(cols, |leaf| {
            let first = leaf * LEAF;
            let columns = &mut columns[..LEAF.min(cols - first)];
            affine::sum_chunks(partials, stride, offset + first, columns);
            leaf_sums([columns], lanes(cols), |[x]| [x])
        });
        sink.store(0, 0, tile, 1, |out| out[0] = sum);
    });
}
