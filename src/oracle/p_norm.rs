//! The p-norm of one row: divided by its length.

use super::real::Real;
use super::row::{Derivative, Normalized, Row, largest, row_exponent};
use crate::spec::Norm;

/// ```text
/// norm  = (Σ |x|^p)^(1/p)                 p = infinity: max |x|
/// x_hat = x / max(norm, eps)
///
/// grad_input = (ĝ - u * Σ ĝ x_hat) / norm     where norm > eps
/// grad_input = ĝ / eps                        where it is not: the divisor is a constant
/// u          = sign(x) |x_hat|^(p - 1)        p = infinity: sign(x) / ties where |x| = norm, else 0
/// ```
///
/// `sign(0) = 0`. Elements that share the largest magnitude share the gradient evenly. A row of zeros without eps is
/// left as it is and passes no gradient.
pub(super) fn normalize<R: Real>(row: &Row<R>, p: f64, spec: &Norm) -> Normalized<R> {
    let (cols, zero, one) = (row.x.len(), R::new(0.0), R::new(1.0));
    let exponent = row_exponent(row.counted(), spec);
    let scaled = |x: R| x.scale(-exponent);
    let sizes: Vec<R> = row.counted().map(|x| scaled(x).abs()).collect();
    let (norm, eps) = (p_norm(&sizes, p), R::new(spec.eps).scale(-exponent));
    // A norm that is NaN is not below eps either.
    let floored = norm <= eps;
    let rstd = match floored {
        false => one / norm,
        true if spec.eps > 0.0 => one / eps,
        true => return Normalized::nothing(cols),
    };
    let x_hat: Vec<R> = row.x.iter().map(|&x| scaled(x) * rstd).collect();
    let mag: Vec<f64> = row.size.iter().map(|&size| (scaled(size) * rstd).to_f64()).collect();
    let derivative = if floored {
        Derivative::none(cols)
    } else {
        let attains = |x: R| scaled(x).abs() == norm;
        let ties = R::new(row.counted().filter(|&x| attains(x)).count() as f64);
        let direction = |(&x, &x_hat): (&R, &R)| match p {
            _ if x.to_f64() == 0.0 => zero,
            f64::INFINITY if attains(x) => sign(x) / ties,
            f64::INFINITY => zero,
            p => sign(x) * x_hat.abs().pow(p - 1.0),
        };
        let along: Vec<R> = row.x.iter().zip(&x_hat).map(direction).collect();
        // A power multiplies the relative error of what it is a power of, here of a number that is rounded about twice.
        let factors = if p.is_finite() { ((p - 1.0) / 2.0).max(1.0) } else { 1.0 };
        let along_mag = along.iter().map(|u| factors * u.abs().to_f64()).collect();
        Derivative { centre: zero, along, along_mag, slope: one }
    };
    // General powers are good to two ulp; a gradient that is a single term has no others to hide that among.
    let of_power = if [1.0, 2.0, f64::INFINITY].contains(&p) { 1.0 } else { 1.5 };
    let term_mag = mag.iter().map(|mag| of_power * mag).collect();
    Normalized { x_hat, mag, term_mag, rstd, exponent, derivative }
}

/// The p-norm of magnitudes. Powers of what is divided by the largest neither overflow nor all underflow, whatever p.
fn p_norm<R: Real>(sizes: &[R], p: f64) -> R {
    let most = largest(sizes.iter().copied());
    if p == f64::INFINITY || most.to_f64() == 0.0 || !most.to_f64().is_finite() {
        return most;
    }
    most * R::sum(sizes.iter().map(|&size| (size / most).pow(p))).root(p)
}

fn sign<R: Real>(x: R) -> R {
    R::new(x.to_f64().signum())
}
