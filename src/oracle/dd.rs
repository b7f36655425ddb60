//! Double-double arithmetic: some 106 bits of precision with the range of float64.
//!
//! A number is the unevaluated sum of a float64 and the part that did not fit into it. Everything rests on two
//! error-free transformations: the rounding error of a float64 sum (Knuth 1969) and of a product (by a fused
//! multiply-add) is itself a float64 and can be computed. Relative errors are a few 2^-104 per operation; the
//! functions are good to better than 2^-90, far below the 2^-53 that they are compared against.

use super::real::{Real, exponent, power_of_two};
use std::cmp::Ordering;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A double-double number: `hi + lo`, with `hi` the nearest float64 to the sum. `lo` is zero where `hi` is not finite.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Dd {
    hi: f64,
    lo: f64,
}

/// The natural logarithm of 2.
const LN2: Dd = Dd { hi: f64::from_bits(0x3FE6_2E42_FEFA_39EF), lo: f64::from_bits(0x3C7A_BC9E_3B39_803F) };

/// The sum of two numbers and its exact error.
fn two_sum(a: f64, b: f64) -> Dd {
    let sum = a + b;
    let b_part = sum - a;
    Dd { hi: sum, lo: (a - (sum - b_part)) + (b - b_part) }.checked()
}

/// The product of two numbers and its exact error.
fn two_prod(a: f64, b: f64) -> Dd {
    let product = a * b;
    Dd { hi: product, lo: a.mul_add(b, -product) }.checked()
}

impl Dd {
    /// Infinity minus infinity is how the error of an overflow comes out; it has no meaning.
    fn checked(self) -> Self {
        if self.hi.is_finite() { self } else { Dd { hi: self.hi, lo: 0.0 } }
    }

    /// `hi + lo` with `lo` small but perhaps not yet below half an ulp of `hi`.
    fn renormalized(hi: f64, lo: f64) -> Self {
        let sum = hi + lo;
        Dd { hi: sum, lo: lo - (sum - hi) }.checked()
    }

    /// `exp(self) - 1` for `|self| <= 0.35`: the series for a 256th of it, then `e^2a - 1 = (e^a - 1)(e^a + 1)` eight
    /// times.
    fn exp_m1_small(self) -> Self {
        let r = self.scale(-8);
        // |r| < 0.0014, so that the first omitted term is 2^-106 of the sum.
        let series =
            (2..=11).rev().fold(Dd::new(1.0), |sum, n| Dd::new(1.0) + r * sum / Dd::new(f64::from(n)));
        (0..8).fold(r * series, |e, _| e * (e + Dd::new(2.0)))
    }
}

impl Add for Dd {
    type Output = Dd;
    fn add(self, other: Dd) -> Dd {
        let (high, low) = (two_sum(self.hi, other.hi), two_sum(self.lo, other.lo));
        let sum = Dd::renormalized(high.hi, high.lo + low.hi);
        Dd::renormalized(sum.hi, sum.lo + low.lo)
    }
}

impl Neg for Dd {
    type Output = Dd;
    fn neg(self) -> Dd {
        Dd { hi: -self.hi, lo: -self.lo }
    }
}

impl Sub for Dd {
    type Output = Dd;
    fn sub(self, other: Dd) -> Dd {
        self + -other
    }
}

impl Mul for Dd {
    type Output = Dd;
    fn mul(self, other: Dd) -> Dd {
        let product = two_prod(self.hi, other.hi);
        if !product.hi.is_finite() {
            return product;
        }
        Dd::renormalized(product.hi, product.lo + (self.hi * other.lo + self.lo * other.hi))
    }
}

impl Div for Dd {
    type Output = Dd;
    fn div(self, other: Dd) -> Dd {
        let first = self.hi / other.hi;
        if !first.is_finite() || !other.hi.is_finite() || first == 0.0 {
            return Dd::new(first);
        }
        // Long division: each quotient digit is a float64.
        let rest = self - other * Dd::new(first);
        let second = rest.hi / other.hi;
        let rest = rest - other * Dd::new(second);
        Dd::renormalized(first, second) + Dd::new(rest.hi / other.hi)
    }
}

impl PartialOrd for Dd {
    fn partial_cmp(&self, other: &Dd) -> Option<Ordering> {
        match self.hi.partial_cmp(&other.hi) {
            Some(Ordering::Equal) => self.lo.partial_cmp(&other.lo),
            order => order,
        }
    }
}

impl Real for Dd {
    fn new(x: f64) -> Self {
        Dd { hi: x, lo: 0.0 }
    }

    fn to_f64(self) -> f64 {
        self.hi
    }

    fn sqrt(self) -> Self {
        let root = self.hi.sqrt();
        if root == 0.0 || !root.is_finite() {
            return Dd::new(root);
        }
        // One Newton step from the float64 root doubles its digits.
        let root = Dd::new(root);
        root + (self - root * root) / root.scale(1)
    }

    fn exp(self) -> Self {
        if self.hi.is_nan() || self.hi > 710.0 || self.hi < -1500.0 {
            return Dd::new(self.hi.exp());
        }
        let k = (self.hi / LN2.hi).round();
        let r = self - LN2 * Dd::new(k);
        (r.exp_m1_small() + Dd::new(1.0)).scale(k as i32)
    }

    fn ln(self) -> Self {
        if self.hi <= 0.0 || !self.hi.is_finite() {
            return Dd::new(self.hi.ln());
        }
        let k = exponent(self.hi);
        let x = self.scale(-k);
        // One Newton step of exp(y) = x from the float64 logarithm doubles its digits.
        let y = Dd::new(x.hi.ln());
        y + (x * (-y).exp() - Dd::new(1.0)) + LN2 * Dd::new(f64::from(k))
    }

    fn tanh(self) -> Self {
        let doubled = -self.abs().scale(1);
        // e^2|x| - 1 of the negative argument, without cancellation where it is small.
        let e = if doubled.hi > -0.35 { doubled.exp_m1_small() } else { doubled.exp() - Dd::new(1.0) };
        let tanh = -e / (e + Dd::new(2.0));
        if self.hi.is_sign_negative() { -tanh } else { tanh }
    }

    fn scale(self, exponent: i32) -> Self {
        let half = exponent / 2;
        let (a, b) = (power_of_two(half), power_of_two(exponent - half));
        Dd { hi: self.hi * a * b, lo: self.lo * a * b }.checked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `|a - b| <= 2^-bits |b|`
    fn assert_close(a: Dd, b: Dd, bits: i32) {
        let error = (a - b).abs().to_f64();
        assert!(error <= b.hi.abs() * power_of_two(-bits), "{a:?} is not {b:?}: off by {error:e}");
    }

    fn numbers() -> impl Iterator<Item = Dd> {
        (1..60).map(|i| {
            let hi = f64::from(i * i) * 0.37 - 300.0 / f64::from(i);
            two_sum(hi, hi * 1.234e-17 * f64::from(i % 7))
        })
    }

    #[test]
    fn arithmetic_inverts_itself() {
        for a in numbers() {
            for b in numbers() {
                assert_close(a * b / b, a, 100);
                assert_close((a + b) * (a - b) + b * b, a * a, 85);
            }
            let square = a * a;
            assert_close(square.sqrt(), a.abs(), 100);
        }
    }

    #[test]
    fn thirds_have_all_their_digits() {
        let third = Dd::new(1.0) / Dd::new(3.0);
        assert_eq!(third.hi, 1.0 / 3.0);
        // 1/3 - fl(1/3) is a third of fl(1/3)'s last bit exactly.
        assert_eq!(third.lo, power_of_two(-54) / 3.0);
    }

    /// `e` to 32 digits beyond float64: the exponential at 1 against its published value.
    #[test]
    fn exponential_has_published_digits() {
        let e = Dd { hi: std::f64::consts::E, lo: 1.445_646_891_729_250_2e-16 };
        assert_close(Dd::new(1.0).exp(), e, 100);
        assert_close(LN2.exp(), Dd::new(2.0), 100);
    }

    #[test]
    fn functions_satisfy_their_identities() {
        for a in numbers() {
            let a = a.scale(-2);
            assert_close(a.exp() * (-a).exp(), Dd::new(1.0), 92);
            assert_close(a.scale(1).exp(), a.exp() * a.exp(), 90);
            let (t, t2) = (a.tanh(), a.scale(1).tanh());
            assert_close(t2, t.scale(1) / (Dd::new(1.0) + t * t), 95);
            assert!((t.to_f64() - a.to_f64().tanh()).abs() <= 2.0 * f64::EPSILON * t.to_f64().abs());
        }
        for small in [1e-300, 1e-30, 1e-9, 1e-3] {
            let x = Dd::new(small);
            let series = x - x * x * x / Dd::new(3.0) + x * x * x * x * x * Dd::new(2.0) / Dd::new(15.0);
            assert_close(x.tanh(), series, if small < 1e-4 { 95 } else { 60 });
        }
    }

    #[test]
    fn logarithms_and_powers_invert_exponentials() {
        for a in numbers().map(|a| a.abs()) {
            assert_close(a.ln().exp(), a, 92);
            assert_close(a.pow(3.0), a * a * a, 90);
            assert_close(a.pow(1.5), a * a.sqrt(), 90);
            assert_close(a.root(3.0).pow(3.0), a, 90);
        }
        assert_close(Dd::new(2f64.powi(-1070)).ln(), LN2 * Dd::new(-1070.0), 100);
        assert_eq!((Dd::new(0.0).pow(2.5), Dd::new(0.0).pow(0.0)), (Dd::new(0.0), Dd::new(1.0)));
    }

    #[test]
    fn special_values_are_ieee() {
        let (inf, nan, zero) = (Dd::new(f64::INFINITY), Dd::new(f64::NAN), Dd::new(0.0));
        assert!(
            (inf - inf).to_f64().is_nan() && (inf * zero).to_f64().is_nan() && nan.sqrt().to_f64().is_nan()
        );
        assert!((zero / zero).to_f64().is_nan() && nan.tanh().to_f64().is_nan());
        assert_eq!((inf + Dd::new(1.0), inf * Dd::new(-2.0)), (inf, -inf));
        assert_eq!((Dd::new(1.0) / inf, Dd::new(1.0) / zero), (zero, inf));
        assert_eq!((inf.sqrt(), inf.exp(), (-inf).exp()), (inf, inf, zero));
        assert_eq!((inf.tanh(), (-inf).tanh()), (Dd::new(1.0), Dd::new(-1.0)));
        assert_eq!(Dd::new(1e300) * Dd::new(1e300), inf);
    }
}
