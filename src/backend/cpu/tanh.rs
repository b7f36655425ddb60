//! tanh and its derivative, as `docs/numerics.md` defines them: additions, multiplications and one division, so that
//! every device can repeat them bit for bit.
//!
//! Both come from `exp(-2|z|) = power * exp(-2 rho)`. A quotient is taken apart into a head of few bits, whose products
//! with other heads are exact, and a small rest, which one division by rounded numbers gives well enough.
#![allow(clippy::needless_range_loop, reason = "several arrays are walked by one index")]

use super::curve::{BATCH, Batch, Curve, Scratch, Terms};
use super::real::{Real, two_prod};

/// `-a` in halves of ln 2, rounded: the number, and what adding it to MAGIC_POWER leaves.
#[inline(always)]
pub(super) fn halves<F: Real>(a: F) -> (F, F) {
    let u = a * -(F::TWO * F::LOG2E) + F::MAGIC_POWER;
    (u - F::MAGIC_POWER, u)
}

/// `a`, or `limit` beyond it; NaN stays.
#[inline(always)]
pub(super) fn held<F: Real>(a: F, limit: F) -> F {
    if a > limit { limit } else { a }
}

/// `f` of `exp(-2 rho) = 1 - 2 (rho - f)`.
#[inline(always)]
pub(super) fn bend<F: Real>(rho: F) -> F {
    let mut g = F::BEND[F::BEND.len() - 1];
    for i in (0..F::BEND.len() - 1).rev() {
        g = g * rho + F::BEND[i];
    }
    (rho * rho) * g
}

/// `|tanh(z)|` and the reciprocal of `1 - m`, with `m = (1 - exp(-2|z|)) / 2`: tanh is `m / (1 - m)`.
#[inline(always)]
fn quotient<F: Real>(power: F, rho: F, f: F) -> (F, F) {
    let half_power = F::HALF * power;
    let (below, above) = (F::HALF - half_power, F::HALF + half_power);
    let (straight, bent) = (power * rho, power * f);
    let step = straight - bent;
    let m = below + step;
    let y = F::ONE / (F::ONE - m);
    let head = (m * y).head();
    // m - head (1 - m), of which the large parts cancel without an error.
    let rest = ((below - head * above) + straight) - (bent - step * head);
    (head + rest * y, y)
}

/// tanh of `alpha * x`.
pub(super) struct Tanh;

impl<F: Real> Curve<F> for Tanh {
    #[inline(always)]
    fn values(
        alpha: F,
        x: &Batch<F>,
        w: &Batch<F>,
        b: &Batch<F>,
        [power, rho, f, ..]: &mut Scratch<F>,
        out: &mut Batch<F>,
    ) {
        for i in 0..BATCH {
            let a = held((alpha * x[i]).abs(), F::TANH_LIMIT);
            let (k, u) = halves(a);
            power[i] = F::power_left(u);
            // What ln 2 has beyond its last bit here, and what the product rounds, tanh damps.
            rho[i] = a + k * (F::HALF * F::LN2);
            f[i] = bend(rho[i]);
        }
        for i in 0..BATCH {
            let (t, _) = quotient(power[i], rho[i], f[i]);
            out[i] = t.or_sign(alpha * x[i]) * w[i] + b[i];
        }
    }

    #[inline(always)]
    fn terms(
        alpha: F,
        g: &Batch<F>,
        x: &Batch<F>,
        w: &Batch<F>,
        [power, below, rho, f, y]: &mut Scratch<F>,
        terms: &mut Terms<F>,
    ) {
        for i in 0..BATCH {
            let (z, low) = two_prod(alpha, x[i]);
            let a = held(z.abs(), F::SLOPE_LIMIT);
            let (k, u) = halves(a);
            (power[i], below[i]) = F::power_left_split(u);
            // Errors of the argument count here: exp makes relative ones of them.
            let low = if is_beyond(z) { F::ZERO } else { low.flip_sign(z) };
            rho[i] = (a + k * (F::HALF * F::LN2_HI)) + (k * (F::HALF * F::LN2_LO) + low);
            f[i] = bend(rho[i]);
        }
        for i in 0..BATCH {
            let t;
            (t, y[i]) = quotient(power[i], rho[i], f[i]);
            terms.weight[i] = g[i] * t.or_sign(alpha * x[i]);
        }
        for i in 0..BATCH {
            let h = slope(alpha * x[i], power[i], rho[i], f[i], y[i]);
            terms.input[i] = (((g[i] * (w[i] * alpha)) * h) * power[i]) * below[i];
            terms.alpha[i] = (((g[i] * w[i]) * (h * x[i])) * power[i]) * below[i];
        }
    }
}

/// Whether sech² is too small for any finite gradient; not so for NaN.
#[inline(always)]
fn is_beyond<F: Real>(z: F) -> bool {
    z.abs() > F::SLOPE_LIMIT
}

/// sech² of `z` without its power of two: `exp(-2 rho) / q²` with `q = (1 + exp(-2|z|)) / 2`, of whose reciprocal `y` is
/// near.
#[inline(always)]
fn slope<F: Real>(z: F, power: F, rho: F, f: F, y: F) -> F {
    let p = rho - f;
    let e = F::ONE - F::TWO * p;
    let e_low = (F::ONE - e) - F::TWO * p;
    let half_power = F::HALF * power;
    let q = F::HALF + half_power * e;
    let q_low = ((F::HALF - q) + half_power * e) + half_power * e_low;
    let square = y * y;
    let (head, q_head) = ((e * square).head(), q.head());
    let q_rest = (q - q_head) + q_low;
    // e - head q², of which the large parts cancel without an error.
    let rest = ((e - head * (q_head * q_head)) + e_low) - head * (q_rest * (F::TWO * q_head + q_rest));
    let h = head + rest * square;
    // Beyond the limit, so little that no finite gradient survives it, but an infinite one stays infinite.
    let little = if z.abs() <= F::MAX { F::exp2(-100) } else { F::ZERO };
    if is_beyond(z) { little } else { h }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tanh_at<F: Real>(z: F) -> F {
        let (mut out, mut between) = ([F::ZERO; BATCH], [[F::ZERO; BATCH]; 5]);
        Tanh::values(F::ONE, &[z; BATCH], &[F::ONE; BATCH], &[-F::ZERO; BATCH], &mut between, &mut out);
        out[0]
    }

    /// tanh, and sech² as a float64: with a gradient that keeps it from underflowing where it is small.
    fn slope_at(z: f32) -> (f32, f64) {
        let (scale, ones) = (if z.abs() > 20.0 { f32::exp2(120.0) } else { 1.0 }, [1.0; BATCH]);
        let mut between = [[0.0; BATCH]; 5];
        let mut terms = Terms { input: ones, weight: ones, alpha: ones };
        Tanh::terms(1.0, &[scale; BATCH], &[z; BATCH], &ones, &mut between, &mut terms);
        (terms.weight[0] / scale, f64::from(terms.input[0]) / f64::from(scale))
    }

    /// Distance of `x` from the exact value, in units of 2^-24 of that.
    fn error(x: f64, exact: f64) -> f64 {
        (x / exact - 1.0).abs() * 2f64.powi(24)
    }

    /// Every `step`-th float32 from the smallest normal number to `to`.
    fn sweep(to: f32, step: u32) -> impl Iterator<Item = f32> {
        (f32::MIN_POSITIVE.to_bits()..to.to_bits()).step_by(step as usize).map(f32::from_bits)
    }

    fn worst(errors: impl Iterator<Item = (f64, f32)>) -> (f64, f32) {
        errors.fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a })
    }

    /// The largest error of `tanh`, and of the rounding of its argument where it has one.
    fn worst_tanh(rounded: bool, tanh: impl Fn(f32) -> f32) -> (f64, f32) {
        worst(sweep(100.0, 97).map(|z| {
            let exact = f64::from(z);
            // How much of the argument's relative error reaches the result.
            let condition = 2.0 * exact / (2.0 * exact).sinh();
            let significand = exact / exact.log2().floor().exp2();
            let of_argument = if rounded { condition / significand } else { 0.0 };
            (error(f64::from(tanh(z)), exact.tanh()) + of_argument, z)
        }))
    }

    #[test]
    fn tanh_leaves_an_ulp_of_four_to_scale_and_shift() {
        let forward = worst_tanh(true, tanh_at);
        let backward = worst_tanh(false, |z| slope_at(z).0);
        println!("tanh: at most {forward:?}, and {backward:?} in the backward pass");
        // What docs/numerics.md says of the forward pass.
        assert!(forward.0 <= 2.5 && backward.0 <= 1.6, "{forward:?} {backward:?}");
    }

    #[test]
    fn tanh_keeps_sign_and_special_values() {
        assert_eq!(tanh_at(0.0f32).to_bits(), 0);
        assert_eq!(tanh_at(-0.0f32).to_bits(), (-0.0f32).to_bits());
        assert_eq!((tanh_at(f32::INFINITY), tanh_at(f32::NEG_INFINITY)), (1.0, -1.0));
        assert!(tanh_at(f32::NAN).is_nan());
        assert_eq!(tanh_at(-0.5f32), -tanh_at(0.5f32));
    }

    #[test]
    fn slope_keeps_its_digits_where_tanh_is_one() {
        let found = worst(sweep(80.0, 97).map(|z| {
            let q = (-2.0 * f64::from(z)).exp();
            (error(slope_at(z).1, 4.0 * q / ((1.0 + q) * (1.0 + q))), z)
        }));
        println!("sech²: at most {} at {:e}", found.0, found.1);
        assert!(found.0 <= 1.5, "{found:?}");
        assert_eq!(slope_at(f32::INFINITY), (1.0, 0.0));
        assert_eq!(slope_at(1e3).1, 0.0);
        assert!(slope_at(f32::NAN).1.is_nan());
    }

    #[test]
    fn float64_agrees_with_the_system_library() {
        for i in 1..200_000 {
            let z = f64::from(i) * 1.7e-4;
            let (t, exact) = (tanh_at(z), z.tanh());
            assert!((t - exact).abs() <= 2.5 * f64::EPSILON * exact, "{z}: {t} {exact}");
        }
    }
}
