//! The gradient of the input, in a piece of a row whose sums are known.

use super::elementwise::{Factor, GradInput, run};
use super::leaf_backward::{Gradients, scaled_ghat};
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
    let (c1, c2) = sums.means(c, &s);
    let (seen_dx, unseen_dx) = out.split_at_mut(seen);
    let pass = GradInput {
        g: &g[..seen],
        x: &x[..seen],
        w: w.part(0, seen),
        u: direction(c, &x[..seen], &s, &mut u[..seen]),
        s,
        c1,
        c2,
        outer,
        weight_sums: None,
        bias_sums: None,
        dx: seen_dx,
        streamed: None,
        next: None,
    };
    run(c, pass);
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
