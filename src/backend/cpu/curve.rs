//! Functions of an element and of alpha, a batch of elements at a time, and the two passes that all of them share: each
//! an operation for [`Isa::run`](super::Isa).

use super::isa::Operation;
use super::memory::{Staged, Streaming, Upcoming};
use super::real::Real;
use super::simd::{BLOCK, Block, Numbers, Simd};
use super::stored::Stored;
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

/// `out = f(x) * w + b`, each rounded once, with leave to write past the caches.
pub(super) struct Values<'a, C, T, F> {
    pub(super) alpha: F,
    pub(super) x: &'a [T],
    pub(super) w: &'a [F],
    pub(super) b: &'a [F],
    pub(super) out: &'a mut [T],
    pub(super) streamed: Option<Streaming>,
    /// The elements that come after `x`.
    pub(super) next: Option<Upcoming>,
    pub(super) curve: PhantomData<C>,
}

impl<C: Curve<F>, T: Stored, F: Real> Operation for Values<'_, C, T, F> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(self) {
        let Values { alpha, x, w, b, out, streamed, next, .. } = self;
        let (mut widened, mut y) = (Staged([F::ZERO; BATCH]), Staged([F::ZERO; BATCH]));
        let mut between = Staged([[F::ZERO; BATCH]; 5]);
        let (y, between) = (&mut y.0, &mut between.0);
        let whole = out.len() - out.len() % BATCH;
        for at in (0..whole).step_by(BATCH) {
            if let Some(next) = next {
                next.touch(at, BATCH);
            }
            let x = wide::<S, T, F>(batch(x, at), &mut widened.0);
            C::values(alpha, x, batch(w, at), batch(b, at), between, y);
            write::<S, T, F>(y, &mut out[at..at + BATCH], streamed);
        }
        if whole < out.len() {
            let (x, w, b) = (padded(x, whole), padded(w, whole), padded(b, whole));
            C::values(alpha, &x, &w, &b, between, y);
            for (out, y) in out[whole..].iter_mut().zip(y) {
                *out = T::narrow(*y);
            }
        }
    }
}

/// The gradient of the input, where it is asked for, and `sums += terms` for weight, bias and alpha.
pub(super) struct Gradients<'a, C, T, F> {
    pub(super) alpha: F,
    pub(super) g: &'a [T],
    pub(super) x: &'a [T],
    pub(super) w: &'a [F],
    pub(super) dx: Option<&'a mut [T]>,
    pub(super) sums: [Option<&'a mut [F]>; 3],
    /// Leave to write `dx` past the caches.
    pub(super) streamed: Option<Streaming>,
    /// The elements that come after `g` and `x`.
    pub(super) next: [Option<Upcoming>; 2],
    pub(super) curve: PhantomData<C>,
}

impl<C: Curve<F>, T: Stored, F: Real> Operation for Gradients<'_, C, T, F> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(mut self) {
        let Gradients { alpha, g, x, w, streamed, next, .. } = self;
        let mut widened = [Staged([F::ZERO; BATCH]), Staged([F::ZERO; BATCH])];
        let (mut terms, mut between) = (Staged(Terms::zero()), Staged([[F::ZERO; BATCH]; 5]));
        let (terms, between) = (&mut terms.0, &mut between.0);
        let whole = x.len() - x.len() % BATCH;
        for at in (0..whole).step_by(BATCH) {
            for next in next.into_iter().flatten() {
                next.touch(at, BATCH);
            }
            let [of_g, of_x] = &mut widened;
            let g = wide::<S, T, F>(batch(g, at), &mut of_g.0);
            let x = wide::<S, T, F>(batch(x, at), &mut of_x.0);
            C::terms(alpha, g, x, batch(w, at), between, terms);
            if let Some(dx) = &mut self.dx {
                write::<S, T, F>(&terms.input, &mut dx[at..at + BATCH], streamed);
            }
            self.add(at, BATCH, g, terms);
        }
        if whole < x.len() {
            let g = padded(g, whole);
            C::terms(alpha, &g, &padded(x, whole), &padded(w, whole), between, terms);
            if let Some(dx) = &mut self.dx {
                for (dx, term) in dx[whole..].iter_mut().zip(&terms.input) {
                    *dx = T::narrow(*term);
                }
            }
            self.add(whole, x.len() - whole, &g, terms);
        }
    }
}

impl<C, T, F: Real> Gradients<'_, C, T, F> {
    /// Adds the terms of `len` elements from `at` on.
    #[inline(always)]
    fn add(&mut self, at: usize, len: usize, g: &Batch<F>, terms: &Terms<F>) {
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
fn batch<T>(from: &[T], at: usize) -> &[T; BATCH] {
    from[at..].first_chunk().expect("a batch")
}

/// A batch in the compute type: as it is, or in `to`.
#[inline(always)]
fn wide<'t, S: Simd, T: Stored, F: Real>(from: &'t [T; BATCH], to: &'t mut Batch<F>) -> &'t Batch<F> {
    if T::DTYPE == F::DTYPE {
        return bytemuck::cast_ref(from);
    }
    for (from, to) in from.as_chunks::<BLOCK>().0.iter().zip(to.as_chunks_mut::<BLOCK>().0) {
        T::load::<S, F>(from).store(to, None);
    }
    to
}

/// Writes a batch.
#[inline(always)]
fn write<S: Simd, T: Stored, F: Real>(from: &Batch<F>, to: &mut [T], streamed: Option<Streaming>) {
    for (from, to) in from.as_chunks::<BLOCK>().0.iter().zip(to.as_chunks_mut::<BLOCK>().0) {
        T::store::<S, F>(Block::<S, F>::load(from), to, streamed);
    }
}

/// The elements from `at` on, fewer than a batch, and zeros.
#[inline(always)]
fn padded<T: Stored, F: Real>(from: &[T], at: usize) -> Batch<F> {
    let mut batch = [F::ZERO; BATCH];
    for (to, from) in batch.iter_mut().zip(&from[at..]) {
        *to = from.widen();
    }
    batch
}
