//! Single passes over slices, each an operation for [`Isa::run`](super::Isa): small bodies that compile to SIMD loops
//! once per instruction set, so that the schedules that call them are compiled once.

use super::lanes::{Over, Pass, Terms, read, write, write_numbers};
use super::memory::{Ahead, Streaming};
use super::real::Real;
use super::simd::{Block, Numbers, Simd};
use super::statistics::{Constants, Statistics};
use super::stored::Stored;

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

    /// Whether no number is NaN.
    #[inline(always)]
    pub(super) fn is_number(self) -> bool {
        match self {
            Factor::Absent => true,
            Factor::One(w) => w.magnitude() <= F::INFINITE,
            Factor::Each(slice, _) => {
                slice.iter().fold(F::Bits::default(), |most, w| most.max(w.magnitude())) <= F::INFINITE
            }
        }
    }

    /// `w + offset`; no addition where there is nothing to add.
    #[inline(always)]
    pub(super) fn offset(w: F, offset: F) -> F {
        if offset == F::ZERO { w } else { w + offset }
    }

    /// The numbers for a block.
    #[inline(always)]
    fn block<S: Simd, const WHOLE: bool>(self, at: usize, len: usize) -> Option<Block<S, F>> {
        match self {
            Factor::Absent => None,
            Factor::One(w) => Some(Block::<S, F>::splat(w)),
            Factor::Each(slice, offset) => {
                let block = read::<S, WHOLE, F, F>(slice, at, len);
                Some(if offset == F::ZERO { block } else { block + Block::<S, F>::splat(offset) })
            }
        }
    }

    /// `y * w`.
    #[inline(always)]
    pub(super) fn times<S: Simd, const WHOLE: bool>(
        self,
        at: usize,
        len: usize,
        y: Block<S, F>,
    ) -> Block<S, F> {
        self.block::<S, WHOLE>(at, len).map_or(y, |w| y * w)
    }

    /// `y + b`.
    #[inline(always)]
    pub(super) fn plus<S: Simd, const WHOLE: bool>(
        self,
        at: usize,
        len: usize,
        y: Block<S, F>,
    ) -> Block<S, F> {
        self.block::<S, WHOLE>(at, len).map_or(y, |b| y + b)
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

/// `out = x_hat * w + b`, with what is absent left out. Where memory holds 16 bits, operands are numbers.
pub(super) struct Apply<'a, T, F> {
    pub(super) x: &'a [T],
    pub(super) w: Factor<'a, F>,
    pub(super) b: Factor<'a, F>,
    pub(super) s: Statistics<F>,
    pub(super) out: &'a mut [T],
    /// Leave to write past the caches.
    pub(super) streamed: Option<Streaming>,
    /// What comes after `x`.
    pub(super) next: Option<Ahead<T>>,
}

impl<T: Stored, F: Real, const CENTRED: bool> Pass for Form<Apply<'_, T, F>, CENTRED> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.out.len()
    }
    #[inline(always)]
    fn is_repeatable(&self) -> bool {
        true
    }
    #[inline(always)]
    fn step<S: Simd, const WHOLE: bool>(&mut self, at: usize, len: usize) {
        let Form(pass) = self;
        if let Some(next) = pass.next {
            next.touch(at);
        }
        let y = pass.s.normalized::<S, CENTRED>(read::<S, WHOLE, T, F>(pass.x, at, len));
        let y = pass.b.plus::<S, WHOLE>(at, len, pass.w.times::<S, WHOLE>(at, len, y));
        write_numbers::<S, WHOLE, T, F>(y, pass.out, at, len, pass.streamed);
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
    fn step<S: Simd, const WHOLE: bool>(&mut self, at: usize, len: usize) {
        let y = self.w.times::<S, WHOLE>(at, len, read::<S, WHOLE, F, F>(self.out, at, len));
        write::<S, WHOLE, F, F>(self.b.plus::<S, WHOLE>(at, len, y), self.out, at, len);
    }
}

/// `dx = (rstd * ((ghat - c1) - u * c2)) * outer`, `u` being `x_hat` or what is given; and the terms of the parameter
/// gradients, `weight_sums += g * x_hat` and `bias_sums += g`; with what is absent left out. Where memory holds 16 bits,
/// operands are numbers.
pub(super) struct GradInput<'a, T, F> {
    pub(super) g: &'a [T],
    pub(super) x: &'a [T],
    pub(super) w: Factor<'a, F>,
    pub(super) u: Option<&'a [F]>,
    pub(super) s: Statistics<F>,
    pub(super) c1: F,
    pub(super) c2: F,
    pub(super) outer: Option<F>,
    pub(super) weight_sums: Option<&'a mut [F]>,
    pub(super) bias_sums: Option<&'a mut [F]>,
    pub(super) dx: &'a mut [T],
    /// Leave to write past the caches.
    pub(super) streamed: Option<Streaming>,
    /// What comes after `g` and `x`.
    pub(super) next: Option<[Ahead<T>; 2]>,
}

impl<T: Stored, F: Real> GradInput<'_, T, F> {
    /// `g` and `x_hat` of a block.
    #[inline(always)]
    fn operands<S: Simd, const WHOLE: bool, const CENTRED: bool>(
        &self,
        at: usize,
        len: usize,
    ) -> [Block<S, F>; 2] {
        if let Some([g, x]) = self.next {
            g.touch(at);
            x.touch(at);
        }
        let x = read::<S, WHOLE, T, F>(self.x, at, len);
        [read::<S, WHOLE, T, F>(self.g, at, len), self.s.normalized::<S, CENTRED>(x)]
    }

    /// Writes a block of `dx`.
    #[inline(always)]
    fn put<S: Simd, const WHOLE: bool>(&mut self, at: usize, len: usize, [g, hat]: [Block<S, F>; 2]) {
        let ghat = self.w.times::<S, WHOLE>(at, len, g);
        let u = match self.u {
            Some(u) => read::<S, WHOLE, F, F>(u, at, len),
            None => hat,
        };
        let splat = Block::<S, F>::splat;
        let mut dx = splat(self.s.rstd) * ((ghat - splat(self.c1)) - u * splat(self.c2));
        if let Some(outer) = self.outer {
            dx = dx * splat(outer);
        }
        write_numbers::<S, WHOLE, T, F>(dx, self.dx, at, len, self.streamed);
    }
}

impl<T: Stored, F: Real, const CENTRED: bool> Pass for Form<GradInput<'_, T, F>, CENTRED> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.dx.len()
    }
    #[inline(always)]
    fn is_repeatable(&self) -> bool {
        self.0.weight_sums.is_none() && self.0.bias_sums.is_none()
    }
    #[inline(always)]
    fn step<S: Simd, const WHOLE: bool>(&mut self, at: usize, len: usize) {
        let Form(pass) = self;
        let [g, hat] = pass.operands::<S, WHOLE, CENTRED>(at, len);
        if let Some(sums) = &mut pass.weight_sums {
            let sum = read::<S, WHOLE, F, F>(sums, at, len) + g * hat;
            write::<S, WHOLE, F, F>(sum, sums, at, len);
        }
        if let Some(sums) = &mut pass.bias_sums {
            let sum = read::<S, WHOLE, F, F>(sums, at, len) + g;
            write::<S, WHOLE, F, F>(sum, sums, at, len);
        }
        pass.put::<S, WHOLE>(at, len, [g, hat]);
    }
}

/// `dx` on the way to the sums of `g` and of `g * x_hat`.
pub(super) struct SummedGradInput<'a, T, F>(pub(super) GradInput<'a, T, F>);

impl<T: Stored, F: Real, const CENTRED: bool> Terms<F, 2> for Form<SummedGradInput<'_, T, F>, CENTRED> {
    const IN_ORDER: bool = true;
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.0.dx.len()
    }
    #[inline(always)]
    fn terms<S: Simd, const WHOLE: bool>(&mut self, at: usize, len: usize) -> [Block<S, F>; 2] {
        let Form(SummedGradInput(pass)) = self;
        let [g, hat] = pass.operands::<S, WHOLE, CENTRED>(at, len);
        pass.put::<S, WHOLE>(at, len, [g, hat]);
        [g, g * hat]
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
    fn is_repeatable(&self) -> bool {
        true
    }
    #[inline(always)]
    fn step<S: Simd, const WHOLE: bool>(&mut self, at: usize, len: usize) {
        let Form(pass) = self;
        let hat = pass.s.normalized::<S, CENTRED>(read::<S, WHOLE, F, F>(pass.x, at, len));
        write::<S, WHOLE, F, F>(hat, pass.hat, at, len);
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
    fn step<S: Simd, const WHOLE: bool>(&mut self, at: usize, len: usize) {
        let mut terms = read::<S, WHOLE, F, F>(self.a, at, len);
        if let Some(b) = self.b {
            terms = terms * read::<S, WHOLE, F, F>(b, at, len);
        }
        let sums = read::<S, WHOLE, F, F>(self.sums, at, len) + terms;
        write::<S, WHOLE, F, F>(sums, self.sums, at, len);
    }
}
