//! Functions of an element and of alpha, a batch of elements at a time, and the two passes that all of them share: each
//! an operation for [`Isa::run`](super::Isa).

use super::isa::Operation;
use super::memory::{Staged, Streaming, stream};
use super::real::Real;
use super::simd::Simd;
use std::marker::PhantomData;

/// Elements that pass through the steps of a function together. One element's steps are a chain of some thirty
/// dependent operations, of which a core sees little more than two ahead; in passes over a batch it sees shorter ones.
pub(super) const BATCH: usize = 128;

/// One number for each element of a batch.
pub(super) type Batch<F> = [F; BATCH];

/// What the passes over a batch hand on to each other.
pub(super) type Scratch<F> = [Batch<F>; 5];

/// A function `f(alpha, x)`. `between` holds anything.
pub(super) trait Curve<F> {
    /// `out = f(x) * w + b`.
    fn values(
        alpha: F,
        x: &Batch<F>,
        w: &Batch<F>,
        b: &Batch<F>,
        between: &mut Scratch<F>,
        out: &mut Batch<F>,
    );
    /// What `g`, the gradient of `f(x) * w + b`, contributes to the other gradients.
    fn terms(
        alpha: F,
        g: &Batch<F>,
        x: &Batch<F>,
        w: &Batch<F>,
        between: &mut Scratch<F>,
        terms: &mut Terms<F>,
    );
}

/// Contributions to gradients.
pub(super) struct Terms<F> {
    pub(super) input: Batch<F>,
    pub(super) weight: Batch<F>,
    pub(super) alpha: Batch<F>,
}

impl<F: Real> Terms<F> {
    fn zero() -> Self {
        let zero = [F::ZERO; BATCH];
        Terms { input: zero, weight: zero, alpha: zero }
    }
}

/// `out = f(x) * w + b`, with leave to write past the caches.
pub(super) struct Values<'a, C, F> {
    pub(super) alpha: F,
    pub(super) x: &'a [F],
    pub(super) w: &'a [F],
    pub(super) b: &'a [F],
    pub(super) out: &'a mut [F],
    pub(super) streamed: Option<Streaming>,
    pub(super) curve: PhantomData<C>,
}

impl<C: Curve<F>, F: Real> Operation for Values<'_, C, F> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(self) {
        let Values { alpha, x, w, b, out, streamed, .. } = self;
        let (mut y, mut between) = (Staged([F::ZERO; BATCH]), Staged([[F::ZERO; BATCH]; 5]));
        let (y, between) = (&mut y.0, &mut between.0);
        let whole = out.len() - out.len() % BATCH;
        for at in (0..whole).step_by(BATCH) {
            if let Some(streaming) = streamed {
                C::values(alpha, batch(x, at), batch(w, at), batch(b, at), between, y);
                stream(streaming, y, &mut out[at..at + BATCH]);
            } else {
                let out = out[at..].first_chunk_mut().expect("a batch");
                C::values(alpha, batch(x, at), batch(w, at), batch(b, at), between, out);
            }
        }
        if whole < out.len() {
            let (x, w, b) = (padded(x, whole), padded(w, whole), padded(b, whole));
            C::values(alpha, &x, &w, &b, between, y);
            let out = &mut out[whole..];
            out.copy_from_slice(&y[..out.len()]);
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

impl<C: Curve<F>, F: Real> Operation for Gradients<'_, C, F> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(mut self) {
        let Gradients { alpha, g, x, w, .. } = self;
        let (mut terms, mut between) = (Staged(Terms::zero()), Staged([[F::ZERO; BATCH]; 5]));
        let (terms, between) = (&mut terms.0, &mut between.0);
        let whole = x.len() - x.len() % BATCH;
        for at in (0..whole).step_by(BATCH) {
            let g = batch(g, at);
            C::terms(alpha, g, batch(x, at), batch(w, at), between, terms);
            self.take(at, BATCH, g, terms);
        }
        if whole < x.len() {
            let g = padded(g, whole);
            C::terms(alpha, &g, &padded(x, whole), &padded(w, whole), between, terms);
            self.take(whole, x.len() - whole, &g, terms);
        }
    }
}

impl<C, F: Real> Gradients<'_, C, F> {
    /// Stores and adds the terms of `len` elements from `at` on.
    #[inline(always)]
    fn take(&mut self, at: usize, len: usize, g: &Batch<F>, terms: &Terms<F>) {
        if let Some(dx) = &mut self.dx {
            dx[at..at + len].copy_from_slice(&terms.input[..len]);
        }
        for (sums, terms) in self.sums.iter_mut().zip([&terms.weight, g, &terms.alpha]) {
            if let Some(sums) = sums {
                for (sum, term) in sums[at..at + len].iter_mut().zip(terms) {
                    *sum += *term;
                }
            }
        }
    }
}

/// The batch from `at` on.
#[inline(always)]
fn batch<F>(from: &[F], at: usize) -> &Batch<F> {
    from[at..].first_chunk().expect("a batch")
}

/// The elements from `at` on, fewer than a batch, and zeros.
#[inline(always)]
fn padded<F: Real>(from: &[F], at: usize) -> Batch<F> {
    let mut batch = [F::ZERO; BATCH];
    batch[..from.len() - at].copy_from_slice(&from[at..]);
    batch
}
