//! The numbers that a definition is evaluated in.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// A real number in more digits than the dtype under test: `f64` for tensors of up to 32 bits, [`Dd`](super::Dd) for
/// float64 tensors. Infinity and NaN behave as IEEE 754 says.
pub trait Real:
    Copy
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + 'static
{
    /// The number itself, exactly.
    fn new(x: f64) -> Self;
    /// The nearest float64.
    fn to_f64(self) -> f64;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Exponential function.
    fn exp(self) -> Self;
    /// Natural logarithm of a number that is not negative.
    fn ln(self) -> Self;
    /// Hyperbolic tangent, with all its digits near zero too.
    fn tanh(self) -> Self;
    /// `self * 2^exponent`, exact unless it leaves the range.
    fn scale(self, exponent: i32) -> Self;

    /// Absolute value.
    fn abs(self) -> Self {
        if self.to_f64().is_sign_negative() { -self } else { self }
    }

    /// `self^p` of a number that is not negative, `p >= 0`.
    fn pow(self, p: f64) -> Self {
        match p {
            0.0 => Self::new(1.0),
            0.5 => self.sqrt(),
            1.0 => self,
            2.0 => self * self,
            p if self.to_f64() > 0.0 => (Self::new(p) * self.ln()).exp(),
            // Zero stays, and so does NaN.
            _ => self,
        }
    }

    /// The number whose `p`-th power this is; neither is negative.
    fn root(self, p: f64) -> Self {
        match p {
            1.0 => self,
            2.0 => self.sqrt(),
            p if self.to_f64() > 0.0 => (self.ln() / Self::new(p)).exp(),
            _ => self,
        }
    }

    /// Sum of `terms`.
    fn sum(terms: impl Iterator<Item = Self>) -> Self {
        terms.fold(Self::new(0.0), |sum, term| sum + term)
    }
}

impl Real for f64 {
    fn new(x: f64) -> Self {
        x
    }
    fn to_f64(self) -> f64 {
        self
    }
    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }
    fn exp(self) -> Self {
        f64::exp(self)
    }
    fn ln(self) -> Self {
        f64::ln(self)
    }
    fn tanh(self) -> Self {
        f64::tanh(self)
    }
    fn pow(self, p: f64) -> Self {
        f64::powf(self, p)
    }
    fn scale(self, exponent: i32) -> Self {
        // Two steps of at most half the way each: 2^exponent itself may be out of range where the result is not.
        let half = exponent / 2;
        self * power_of_two(half) * power_of_two(exponent - half)
    }
}

/// `2^exponent`, saturating to zero or infinity.
pub fn power_of_two(exponent: i32) -> f64 {
    match exponent {
        ..-1074 => 0.0,
        -1074..-1022 => f64::from_bits(1 << (exponent + 1074)),
        -1022..1024 => f64::from_bits(((exponent + 1023) as u64) << 52),
        _ => f64::INFINITY,
    }
}

/// `floor(log2 |x|)` of a finite `x`; that of the smallest number for zero.
pub fn exponent(x: f64) -> i32 {
    let bits = x.to_bits() << 1 >> 1;
    match (bits >> 52) as i32 {
        0 => 63 - (bits | 1).leading_zeros() as i32 - 1074,
        biased => biased - 1023,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_and_exponents_are_inverse() {
        for e in [-1074, -1073, -1023, -1022, -1, 0, 1, 1023] {
            assert_eq!(exponent(power_of_two(e)), e);
        }
        assert_eq!((exponent(-1.99), exponent(0.75), exponent(0.0)), (0, -1, -1074));
        assert_eq!((power_of_two(-1075), power_of_two(1024)), (0.0, f64::INFINITY));
        assert_eq!(Real::scale(1.5f64, -1074), 2.0 * f64::from_bits(1));
        assert_eq!(Real::scale(f64::from_bits(1), 2000), power_of_two(926));
    }
}
