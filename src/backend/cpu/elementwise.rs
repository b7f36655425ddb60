//! Single passes over slices, each an operation for [`Isa::run`](super::Isa): small bodies that compile to SIMD loops
//! once per instruction set, so that the schedules that call them are compiled once.
#![allow(clippy::needless_range_loop, reason = "several arrays are walked by one index")]

use super::lanes::{BLOCK, Block, Over, Pass, read, write};
use super::memory::{Ahead, Streaming, store};
use super::real::Real;
use super::statistics::{Constants, Statistics};

/// A weight or bias: none, the same number everywhere, or one for each element and what is added to it.
#[derive(Clone, Copy)]
pub(super) enum Factor<'a, F> {
    Absent,
    One(F),
    Each(&'a [F], F),
}

impl<'a, F: Real> Factor<'a, F> {
    /// The elements `from..to`.
    pub(super) fn part(self, from: usize, to: usize) -> Self {
        match self {
            Factor::Each(slice, offset) => Factor::Each(&slice[from..to], offset),
            other => other,
        }
    }

    /// The number for element `i`.
    #[inline(always)]
    pub(super) fn at(self, i: usize) -> Option<F> {
        match self {
            Factor::Absent => None,
            Factor::One(w) => Some(w),
            Factor::Each(slice, offset) => Some(Self::offset(slice[i], offset)),
        }
    }

    /// `w + offset`; no addition where there is nothing to add.
    #[inline(always)]
    pub(super) fn offset(w: F, offset: F) -> F {
        if offset == F::ZERO { w } else { w + offset }
    }

    /// The numbers for a block.
    #[inline(always)]
    fn block<const WHOLE: bool>(self, at: usize, len: usize) -> Option<Block<F>> {
        match self {
            Factor::Absent => None,
            Factor::One(w) => Some([w; BLOCK]),
            Factor::Each(slice, offset) => {
                let mut block = read::<WHOLE, F, F>(slice, at, len);
                if offset != F::ZERO {
                    for i in 0..BLOCK {
                        block[i] += offset;
                    }
                }
                Some(block)
            }
        }
    }

    /// `y = y * w`.
    #[inline(always)]
    pub(super) fn times<const WHOLE: bool>(self, at: usize, len: usize, y: &mut Block<F>) {
        if let Some(w) = self.block::<WHOLE>(at, len) {
            for i in 0..BLOCK {
                y[i] = y[i] * w[i];
            }
        }
    }

    /// `y = y + b`.
    #[inline(always)]
    pub(super) fn plus<const WHOLE: bool>(self, at: usize, len: usize, y: &mut Block<F>) {
        if let Some(b) = self.block::<WHOLE>(at, len) {
            for i in 0..BLOCK {
                y[i] += b[i];
            }
        }
    }
}

/// What is done to rows that are centred or not, which is known when it is compiled.
pub(super) struct Form<P, const CENTRED: bool>(pub(super) P);

/// Runs a pass in the form that the spec's rows have.
pub(super) fn run<F: Real, P>(c: &Constants<F>, pass: P)
where
    Form<P, true>: Pass,
    Form<P, false>: Pass,
{
    if c.is_centred() {
        c.isa.run(Over(Form::<P, true>(pass)));
    } else {
        c.isa.run(Over(Form::<P, false>(pass)));
    }
}

/// `out = x_hat * w + b`, with what is absent left out.
pub(super) struct Apply<'a, F> {
    pub(super) x: &'a [F],
    pub(super) w: Factor<'a, F>,
    pub(super) b: Factor<'a, F>,
    pub(super) s: Statistics<F>,
    pub(super) out: &'a mut [F],
    /// Leave to write past the caches.
    pub(super) streamed: Option<Streaming>,
    /// What comes after `x`.
    pub(super) next: Option<Ahead<F>>,
}

impl<F: Real, const CENTRED: bool> Pass for Form<Apply<'_, F>, CENTRED> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.out.len()
    }
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, at: usize, len: usize) {
        let Form(pass) = self;
        if let Some(next) = pass.next {
            next.touch(at);
        }
        let mut y = read::<WHOLE, F, F>(pass.x, at, len);
        for i in 0..BLOCK {
            y[i] = pass.s.centred::<CENTRED>(y[i]) * pass.s.rstd;
        }
        pass.w.times::<WHOLE>(at, len, &mut y);
        pass.b.plus::<WHOLE>(at, len, &mut y);
        if WHOLE {
            store(&y, pass.out, at, pass.streamed);
        } else {
            write::<WHOLE, F, F>(&y, pass.out, at, len);
        }
    }
}

/// `out = out * w + b`, with what is absent left out.
pub(super) struct Affine<'a, F> {
    pub(super) w: Factor<'a, F>,
    pub(super) b: Factor<'a, F>,
    pub(super) out: &'a mut [F],
}

impl<F: Real> Pass for Affine<'_, F> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.out.len()
    }
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, at: usize, len: usize) {
        let mut y = read::<WHOLE, F, F>(self.out, at, len);
        self.w.times::<WHOLE>(at, len, &mut y);
        self.b.plus::<WHOLE>(at, len, &mut y);
        write::<WHOLE, F, F>(&y, self.out, at, len);
    }
}

/// `dx = (rstd * ((ghat - c1) - u * c2)) * outer`, `u` being `x_hat` or what is given; and the terms of the parameter
/// gradients, `weight_sums += g * x_hat` and `bias_sums += g`; with what is absent left out.
pub(super) struct GradInput<'a, F> {
    pub(super) g: &'a [F],
    pub(super) x: &'a [F],
    pub(super) w: Factor<'a, F>,
    pub(super) u: Option<&'a [F]>,
    pub(super) s: Statistics<F>,
    pub(super) c1: F,
    pub(super) c2: F,
    pub(super) outer: Option<F>,
    pub(super) weight_sums: Option<&'a mut [F]>,
    pub(super) bias_sums: Option<&'a mut [F]>,
    pub(super) dx: &'a mut [F],
    /// Leave to write past the caches.
    pub(super) streamed: Option<Streaming>,
    /// What comes after `g` and `x`.
    pub(super) next: Option<[Ahead<F>; 2]>,
}

impl<F: Real, const CENTRED: bool> Pass for Form<GradInput<'_, F>, CENTRED> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.dx.len()
    }
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, at: usize, len: usize) {
        let Form(pass) = self;
        let (rstd, c1, c2) = (pass.s.rstd, pass.c1, pass.c2);
        if let Some([g, x]) = pass.next {
            g.touch(at);
            x.touch(at);
        }
        let g = read::<WHOLE, F, F>(pass.g, at, len);
        let mut hat = read::<WHOLE, F, F>(pass.x, at, len);
        for i in 0..BLOCK {
            hat[i] = pass.s.centred::<CENTRED>(hat[i]) * rstd;
        }
        if let Some(sums) = &mut pass.weight_sums {
            let mut sum = read::<WHOLE, F, F>(sums, at, len);
            for i in 0..BLOCK {
                sum[i] += g[i] * hat[i];
            }
            write::<WHOLE, F, F>(&sum, sums, at, len);
        }
        if let Some(sums) = &mut pass.bias_sums {
            let mut sum = read::<WHOLE, F, F>(sums, at, len);
            for i in 0..BLOCK {
                sum[i] += g[i];
            }
            write::<WHOLE, F, F>(&sum, sums, at, len);
        }
        let mut d = g;
        pass.w.times::<WHOLE>(at, len, &mut d);
        let u = match pass.u {
            Some(u) => read::<WHOLE, F, F>(u, at, len),
            None => hat,
        };
        for i in 0..BLOCK {
            d[i] = rstd * ((d[i] - c1) - u[i] * c2);
        }
        if let Some(outer) = pass.outer {
            for i in 0..BLOCK {
                d[i] = d[i] * outer;
            }
        }
        if WHOLE {
            store(&d, pass.dx, at, pass.streamed);
        } else {
            write::<WHOLE, F, F>(&d, pass.dx, at, len);
        }
    }
}

/// `hat = x_hat`.
pub(super) struct Normalize<'a, F> {
    pub(super) x: &'a [F],
    pub(super) s: Statistics<F>,
    pub(super) hat: &'a mut [F],
}

impl<F: Real, const CENTRED: bool> Pass for Form<Normalize<'_, F>, CENTRED> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.hat.len()
    }
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, at: usize, len: usize) {
        let Form(pass) = self;
        let mut hat = read::<WHOLE, F, F>(pass.x, at, len);
        for i in 0..BLOCK {
            hat[i] = pass.s.centred::<CENTRED>(hat[i]) * pass.s.rstd;
        }
        write::<WHOLE, F, F>(&hat, pass.hat, at, len);
    }
}

/// `sums = sums + a`, or `sums + a * b`, column by column.
pub(super) struct AddTerms<'a, F> {
    pub(super) sums: &'a mut [F],
    pub(super) a: &'a [F],
    pub(super) b: Option<&'a [F]>,
}

impl<F: Real> Pass for AddTerms<'_, F> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.sums.len()
    }
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, at: usize, len: usize) {
        let mut sums = read::<WHOLE, F, F>(self.sums, at, len);
        let mut a = read::<WHOLE, F, F>(self.a, at, len);
        if let Some(b) = self.b {
            let b = read::<WHOLE, F, F>(b, at, len);
            for i in 0..BLOCK {
                a[i] = a[i] * b[i];
            }
        }
        for i in 0..BLOCK {
            sums[i] += a[i];
        }
        write::<WHOLE, F, F>(&sums, self.sums, at, len);
    }
}
