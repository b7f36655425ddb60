//! Single passes over slices, each an operation for [`Isa::run`](super::Isa): small bodies that compile to SIMD loops
//! once per instruction set, so that the schedules that call them are compiled once.

use super::lanes::Term;
use super::real::Real;
use pulp::NullaryFnOnce;

/// What a row's normalization needs: `[mean, correction, rstd, exponent]` of `spec::STATISTICS`.
#[derive(Clone, Copy)]
pub(super) struct Statistics<F> {
    pub(super) mean: F,
    pub(super) correction: F,
    pub(super) rstd: F,
    pub(super) exponent: i32,
}

impl<F: Real> Statistics<F> {
    /// The centred element.
    #[inline(always)]
    pub(super) fn centred<const MOMENTS: bool>(&self, x: F) -> F {
        if MOMENTS { (x - self.mean) - self.correction } else { x }
    }
}

/// `out = x_hat`, unrounded.
pub(super) struct Normalize<'a, F, const MOMENTS: bool> {
    pub(super) x: &'a [F],
    pub(super) s: Statistics<F>,
    pub(super) out: &'a mut [F],
}

impl<F: Real, const MOMENTS: bool> NullaryFnOnce for Normalize<'_, F, MOMENTS> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        let Normalize { x, s, out } = self;
        for (out, &x) in out.iter_mut().zip(x) {
            *out = s.centred::<MOMENTS>(x) * s.rstd;
        }
    }
}

/// `out = x_hat * (w + offset) + b`, with what is absent left out.
pub(super) struct Apply<'a, F, const MOMENTS: bool> {
    pub(super) x: &'a [F],
    pub(super) w: Option<&'a [F]>,
    pub(super) b: Option<&'a [F]>,
    pub(super) s: Statistics<F>,
    pub(super) offset: F,
    pub(super) out: &'a mut [F],
}

impl<F: Real, const MOMENTS: bool> NullaryFnOnce for Apply<'_, F, MOMENTS> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        let Apply { x, w, b, s, offset, out } = self;
        match (w, b) {
            (Some(w), Some(b)) if offset == F::ZERO => {
                for (((y, &x), &w), &b) in out.iter_mut().zip(x).zip(w).zip(b) {
                    *y = s.centred::<MOMENTS>(x) * s.rstd * w + b;
                }
            }
            (Some(w), None) if offset == F::ZERO => {
                for ((y, &x), &w) in out.iter_mut().zip(x).zip(w) {
                    *y = s.centred::<MOMENTS>(x) * s.rstd * w;
                }
            }
            (Some(w), None) => {
                for ((y, &x), &w) in out.iter_mut().zip(x).zip(w) {
                    *y = s.centred::<MOMENTS>(x) * s.rstd * (w + offset);
                }
            }
            _ => {
                for (y, &x) in out.iter_mut().zip(x) {
                    *y = s.centred::<MOMENTS>(x) * s.rstd;
                }
                affine(w, b, offset, out);
            }
        }
    }
}

/// `out = out * (w + offset) + b`, with what is absent left out.
#[inline(always)]
pub(super) fn affine<F: Real>(w: Option<&[F]>, b: Option<&[F]>, offset: F, out: &mut [F]) {
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

/// As [`Apply`]'s last step, for values that are normalized already.
pub(super) struct Affine<'a, F> {
    pub(super) w: Option<&'a [F]>,
    pub(super) b: Option<&'a [F]>,
    pub(super) offset: F,
    pub(super) out: &'a mut [F],
}

impl<F: Real> NullaryFnOnce for Affine<'_, F> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        affine(self.w, self.b, self.offset, self.out);
    }
}

/// `out = g * (w + offset)`, or `g` without a weight; returns the OR of the magnitude bits.
pub(super) struct Ghat<'a, F> {
    pub(super) g: &'a [F],
    pub(super) w: Option<&'a [F]>,
    pub(super) offset: F,
    pub(super) out: &'a mut [F],
}

impl<F: Real> NullaryFnOnce for Ghat<'_, F> {
    type Output = F::Bits;
    #[inline(always)]
    fn call(self) -> F::Bits {
        let Ghat { g, w, offset, out } = self;
        let mut bits = F::Bits::default();
        match w {
            None => {
                for (out, &g) in out.iter_mut().zip(g) {
                    *out = g;
                    bits = F::or(bits, g.magnitude());
                }
            }
            Some(w) => {
                for ((out, &g), &w) in out.iter_mut().zip(g).zip(w) {
                    let ghat = g * if offset == F::ZERO { w } else { w + offset };
                    *out = ghat;
                    bits = F::or(bits, ghat.magnitude());
                }
            }
        }
        bits
    }
}

/// `out = rstd * ((ghat - c1) - x_hat * c2)`.
pub(super) struct GradInput<'a, F> {
    pub(super) ghat: &'a [F],
    pub(super) hat: &'a [F],
    pub(super) rstd: F,
    /// Absent for statistics without a mean.
    pub(super) c1: Option<F>,
    pub(super) c2: F,
    pub(super) out: &'a mut [F],
}

impl<F: Real> NullaryFnOnce for GradInput<'_, F> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        let GradInput { ghat, hat, rstd, c1, c2, out } = self;
        match c1 {
            Some(c1) => {
                for ((dx, &ghat), &hat) in out.iter_mut().zip(ghat).zip(hat) {
                    *dx = rstd * ((ghat - c1) - hat * c2);
                }
            }
            None => {
                for ((dx, &ghat), &hat) in out.iter_mut().zip(ghat).zip(hat) {
                    *dx = rstd * (ghat - hat * c2);
                }
            }
        }
    }
}

/// `sums = sums + term(inputs)`, column by column.
pub(super) struct AddTerms<'a, F, T, const K: usize> {
    pub(super) sums: &'a mut [F],
    pub(super) inputs: [&'a [F]; K],
    pub(super) term: T,
}

impl<F: Real, T: Term<F, K, 1>, const K: usize> NullaryFnOnce for AddTerms<'_, F, T, K> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        let AddTerms { sums, inputs, term } = self;
        let inputs = inputs.map(|input| &input[..sums.len()]);
        for i in 0..sums.len() {
            let mut elements = [F::ZERO; K];
            for k in 0..K {
                elements[k] = inputs[k][i];
            }
            sums[i] += term.of(elements)[0];
        }
    }
}
