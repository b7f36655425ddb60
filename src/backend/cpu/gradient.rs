//! The gradient of the input, in a piece of a row whose sums are known.

use super::elementwise::{Factor, GradInput};
use super::lanes::Over;
use super::leaf_backward::{Gradients, scaled_ghat};
use super::memory::{Ahead, Streaming};
use super::power::Exponent;
use super::real::Real;
use super::row::clear_masked;
use super::row_backward::Backward;
use super::statistics::{Constants, Measure, Statistics, Sums};

/// The gradient of the input in a piece of a row; `x` is read with the row's exponent already. `ghat` and `u` are scratch.
pub(super) fn piece_gradient<F: Real>(
    job: &Backward<'_, F>,
    operands: Gradients<'_, F>,
    s: Statistics<F>,
    sums: &Sums<F>,
    [ghat, u]: [&mut [F]; 2],
    out: &mut [F],
) {
    let c = &job.constants;
    let Gradients { mut g, x, mut w, mask, seen } = operands;
    let (g_exponent, w_exponent) = sums.exponents();
    let mut power = g_exponent + w_exponent - s.exponent;
    let mut outer = None;
    if job.is_outer {
        outer = w.at(0).map(|w| {
            let exponent = outer_exponent(w);
            power += exponent;
            w.scale(-exponent)
        });
        w = Factor::Absent;
    }
    if (g_exponent, w_exponent) != (0, 0) {
        let ghat = &mut ghat[..g.len()];
        scaled_ghat(g, w, g_exponent, w_exponent, ghat);
        (g, w) = (ghat, Factor::Absent);
    }
    let means = sums.means(c, &s);
    let u = direction(c, x, &s, &mut u[..x.len()]);
    let (seen_dx, unseen_dx) = out.split_at_mut(seen);
    grad_input(c, &g[..seen], &x[..seen], w.part(0, seen), u, s, means, outer, seen_dx);
    // What the statistic does not see has no second term.
    for (i, dx) in unseen_dx.iter_mut().enumerate() {
        let ghat = w.at(seen + i).map_or(g[seen + i], |w| g[seen + i] * w);
        *dx = outer.map_or(s.rstd * ghat, |outer| (s.rstd * ghat) * outer);
    }
    if power != 0 {
        out.iter_mut().for_each(|dx| *dx = dx.scale(power));
    }
    if let Some(mask) = mask {
        clear_masked(mask, out);
    }
}

/// A piece of a row without anything out of the ordinary.
pub(super) struct Usual<'a, F> {
    pub(super) c: &'a Constants<F>,
    pub(super) w: Factor<'a, F>,
    pub(super) s: Statistics<F>,
    pub(super) c1: F,
    pub(super) c2: F,
    pub(super) outer: Option<F>,
    pub(super) weight_sums: Option<&'a mut [F]>,
    pub(super) bias_sums: Option<&'a mut [F]>,
    pub(super) streamed: Option<Streaming>,
}

impl<F: Real> Usual<'_, F> {
    pub(super) fn run(self, g: &[F], x: &[F], dx: &mut [F], next: Option<[Ahead<F>; 2]>) {
        let Usual { c, w, s, c1, c2, outer, weight_sums, bias_sums, streamed } = self;
        let (u, streamed) = (None, streamed.and_then(|streaming| streaming.to(dx)));
        if c.is_centred() {
            c.isa.run(Over(GradInput::<F, true> {
                g,
                x,
                w,
                u,
                s,
                c1,
                c2,
                outer,
                weight_sums,
                bias_sums,
                dx,
                streamed,
                next,
            }));
        } else {
            c.isa.run(Over(GradInput::<F, false> {
                g,
                x,
                w,
                u,
                s,
                c1,
                c2,
                outer,
                weight_sums,
                bias_sums,
                dx,
                streamed,
                next,
            }));
        }
    }
}

/// The exponent that an outer weight passes to the result.
pub(super) fn outer_exponent<F: Real>(w: F) -> i32 {
    let bits = w.magnitude();
    let is_usual = bits >= F::WEIGHT_LIMIT.recip().magnitude() && bits < F::WEIGHT_LIMIT.magnitude();
    if is_usual || F::is_special(bits) { 0 } else { F::exponent(bits) }
}

/// `u` where it is not `x_hat`: along what the gradient's second term points.
fn direction<'t, F: Real>(c: &Constants<F>, x: &[F], s: &Statistics<F>, u: &'t mut [F]) -> Option<&'t [F]> {
    let sign = |x: F| {
        if x > F::ZERO {
            F::ONE
        } else if x < F::ZERO {
            -F::ONE
        } else {
            F::ZERO
        }
    };
    let each = u.iter_mut().zip(x);
    match c.measure {
        Measure::Moments | Measure::Squares => return None,
        Measure::Magnitudes => each.for_each(|(u, &x)| *u = sign(x)),
        Measure::Largest => each.for_each(|(u, &x)| *u = if x.abs() == s.mean { sign(x) } else { F::ZERO }),
        Measure::Powers(p) => {
            let power = Exponent::new(p - 1.0);
            each.for_each(|(u, &x)| *u = sign(x) * power.of((x * s.rstd).abs()));
        }
    }
    Some(u)
}

fn grad_input<F: Real>(
    c: &Constants<F>,
    g: &[F],
    x: &[F],
    w: Factor<'_, F>,
    u: Option<&[F]>,
    s: Statistics<F>,
    (c1, c2): (F, F),
    outer: Option<F>,
    dx: &mut [F],
) {
    let u = u.map(|u| &u[..dx.len()]);
    let (weight_sums, bias_sums, streamed, next) = (None, None, None, None);
    if c.is_centred() {
        c.isa.run(Over(GradInput::<F, true> {
            g,
            x,
            w,
            u,
            s,
            c1,
            c2,
            outer,
            weight_sums,
            bias_sums,
            dx,
            streamed,
            next,
        }));
    } else {
        c.isa.run(Over(GradInput::<F, false> {
            g,
            x,
            w,
            u,
            s,
            c1,
            c2,
            outer,
            weight_sums,
            bias_sums,
            dx,
            streamed,
            next,
        }));
    }
}
