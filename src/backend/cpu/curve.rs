//! Functions of an element and of alpha, a batch of elements at a time, and the two passes that all of them share: each
//! an operation for [`Isa::run`](super::Isa).

use super::lanes::{BLOCK, Block};
use super::memory::stream;
use super::real::Real;
use pulp::NullaryFnOnce;
use std::marker::PhantomData;

/// Elements that pass through the steps of a function together. One element's steps are a chain of some thirty
/// dependent operations, of which a core sees little more than two ahead; in passes over a batch it sees shorter ones.
pub(super) const BATCH: usize = 128;

/// One number for each element of a batch.
pub(super) type Batch<F> = [F; BATCH];

/// A function `f(alpha, x)`.
pub(super) trait Curve<F> {
    /// `out = f(x) * w + b`.
    fn values(alpha: F, x: &Batch<F>, w: &Batch<F>, b: &Batch<F>, out: &mut Batch<F>);
    /// What `g`, the gradient of `f(x) * w + b`, contributes to the other gradients.
    fn terms(alpha: F, g: &Batch<F>, x: &Batch<F>, w: &Batch<F>) -> Terms<F>;
}

/// Contributions to gradients.
pub(super) struct Terms<F> {
    pub(super) input: Batch<F>,
    pub(super) weight: Batch<F>,
    pub(super) alpha: Batch<F>,
}

/// `out = f(x) * w + b`, past the caches if `streamed`, for which `out` must be aligned.
pub(super) struct Values<'a, C, F> {
    pub(super) alpha: F,
    pub(super) x: &'a [F],
    pub(super) w: &'a [F],
    pub(super) b: &'a [F],
    pub(super) out: &'a mut [F],
    pub(super) streamed: bool,
    pub(super) curve: PhantomData<C>,
}

impl<C: Curve<F>, F: Real> NullaryFnOnce for Values<'_, C, F> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        let Values { alpha, x, w, b, out, streamed, .. } = self;
        let [mut x_rest, mut w_rest, mut b_rest, mut y] = [[F::ZERO; BATCH]; 4];
        for at in (0..out.len()).step_by(BATCH) {
            let x = batch(x, at, &mut x_rest);
            let (w, b) = (batch(w, at, &mut w_rest), batch(b, at, &mut b_rest));
            C::values(alpha, x, w, b, &mut y);
            if streamed && out.len() - at >= BATCH {
                for from in (0..BATCH).step_by(BLOCK) {
                    let block: &Block<F> = y[from..from + BLOCK].try_into().expect("a block");
                    stream(block, out, at + from);
                }
            } else {
                store(&y, out, at);
            }
        }
    }
}

/// The gradient of the input, where it is asked for, and `sums += terms` for weight, bias and alpha.
pub(super) struct Gradients<'a, C, F> {
    pub(super) alpha: F,
    pub(super) g: &'a [F],
    pub(super) x: &'a [F],
    pub(super) w: &'a [F],
    pub(super) dx: Option<&'a mut [F]>,
    pub(super) sums: [Option<&'a mut [F]>; 3],
    pub(super) curve: PhantomData<C>,
}

impl<C: Curve<F>, F: Real> NullaryFnOnce for Gradients<'_, C, F> {
    type Output = ();
    #[inline(always)]
    fn call(mut self) {
        let [mut g_rest, mut x_rest, mut w_rest] = [[F::ZERO; BATCH]; 3];
        for at in (0..self.x.len()).step_by(BATCH) {
            let g = batch(self.g, at, &mut g_rest);
            let x = batch(self.x, at, &mut x_rest);
            let w = batch(self.w, at, &mut w_rest);
            let Terms { input, weight, alpha } = C::terms(self.alpha, g, x, w);
            if let Some(dx) = &mut self.dx {
                store(&input, dx, at);
            }
            for (sums, terms) in self.sums.iter_mut().zip([&weight, g, &alpha]) {
                if let Some(sums) = sums {
                    add(terms, sums, at);
                }
            }
        }
    }
}

/// The elements from `at` on: where fewer than a batch are left, put into `rest`, before whatever it holds.
#[inline(always)]
fn batch<'a, F: Real>(from: &'a [F], at: usize, rest: &'a mut Batch<F>) -> &'a Batch<F> {
    match from[at..].first_chunk() {
        Some(whole) => whole,
        None => {
            rest[..from.len() - at].copy_from_slice(&from[at..]);
            rest
        }
    }
}

/// Stores a batch, or as much of it as there is room for.
#[inline(always)]
fn store<F: Real>(batch: &Batch<F>, to: &mut [F], at: usize) {
    let to = &mut to[at..];
    match to.first_chunk_mut::<BATCH>() {
        Some(to) => *to = *batch,
        None => to.copy_from_slice(&batch[..to.len()]),
    }
}

/// Adds a batch, or as much of it as there are sums.
#[inline(always)]
fn add<F: Real>(batch: &Batch<F>, sums: &mut [F], at: usize) {
    for (sum, term) in sums[at..].iter_mut().zip(batch) {
        *sum += *term;
    }
}
