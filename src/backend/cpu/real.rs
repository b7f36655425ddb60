//! What the kernels need to know of a compute type; `floats` has the two that there are.

use super::simd::{Numbers, Simd};
use super::stored::Stored;
use crate::tensor::DType;
use half::{bf16, f16};
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// float32 or float64: arithmetic, bits, and the constants of `docs/numerics.md`.
pub(crate) trait Real:
    Stored
    + Default
    + PartialOrd
    + std::fmt::Debug
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// A block of these in an instruction set's registers.
    type Block<S: Simd>: Numbers<Self>;
    /// The unsigned integer of the same width.
    type Bits: Copy + PartialEq + Ord + Default;

    const ZERO: Self;
    const HALF: Self;
    const ONE: Self;
    const TWO: Self;
    const FOUR: Self;
    const MAX: Self;
    /// The magnitude of infinity, above which there is NaN.
    const INFINITE: Self::Bits;

    /// A leaf is regular while its mean term is within this range: for sums of squares, and for sums of magnitudes.
    const REGULAR: [(Self, Self); 2];
    /// A leaf of gradients is regular while its sums are below this.
    const SUM_LIMIT: Self;
    /// Weights of at least this magnitude, or below its reciprocal, pass their exponent to the result.
    const WEIGHT_LIMIT: Self;
    /// The exponent of a row of zeros: below that of any number.
    const NONE: i32;
    /// Newton steps from the quadratic seed to full precision.
    const NEWTON_STEPS: usize;
    /// Beyond this tanh is 1.
    const TANH_LIMIT: Self;
    /// Beyond this sech² is too small for any finite gradient.
    const SLOPE_LIMIT: Self;
    /// Beyond this the smaller sigmoid is taken for 0: `exp` of its negative is the least that is a normal number.
    const SIGMOID_LIMIT: Self;
    /// The magnitude that counts at most in the normal distribution.
    const NORMAL_LIMIT: Self;
    /// `exp(z² / 2)` times the share below `-z` is a polynomial in `1 / (1 + 5 z / 16)`, here the highest power first: the least
    /// largest error of that share, found in higher precision.
    const TAIL: &'static [Self];
    /// `2 sqrt(2 / π)`, 0.044715 of that, and three times as much.
    const GELU: [Self; 3];
    const LOG2E: Self;
    const LN2: Self;
    /// ln 2 as two numbers, products of the first with whole exponents being exact.
    const LN2_HI: Self;
    const LN2_LO: Self;
    /// 1.5 * 2^mantissa: adding it rounds to an integer, found in the low bits.
    const MAGIC: Self;
    /// 1/2!, 1/3!, ….
    const TAYLOR: &'static [Self];
    /// Coefficients of `(rho - (1 - exp(-2 rho)) / 2) / rho²`, for |rho| up to a quarter of ln 2.
    const BEND: &'static [Self];

    fn of(x: f64) -> Self;
    fn from_f16(x: f16) -> Self;
    fn from_bf16(x: bf16) -> Self;
    fn from_f32(x: f32) -> Self;
    fn to_f16(self) -> f16;
    fn to_bf16(self) -> bf16;
    /// The same of a number; of a NaN too whose lower half is zero.
    fn number_to_bf16(self) -> bf16 {
        self.to_bf16()
    }
    fn to_f32(self) -> f32;
    fn abs(self) -> Self;
    /// Magnitude bits: the bits without the sign. NaN > infinity > finite.
    fn magnitude(self) -> Self::Bits;
    /// The number with these bits.
    fn from_bits(bits: Self::Bits) -> Self;
    /// Whether the magnitude is zero, infinite or NaN.
    fn is_special(bits: Self::Bits) -> bool;
    /// Biased exponent less the bias; subnormals count as the lowest.
    fn exponent(bits: Self::Bits) -> i32;
    /// The sign of `sign` on `self`, which has none.
    fn or_sign(self, sign: Self) -> Self;
    /// The other sign if that of `sign` is minus.
    fn flip_sign(self, sign: Self) -> Self;
    /// The upper half of the mantissa.
    fn upper(self) -> Self;
    /// The first third of the mantissa: the product of three such numbers is exact.
    fn head(self) -> Self;
    /// `2^k` for k within the normal range.
    fn exp2(k: i32) -> Self;
    /// The nearest number to 1 / sqrt(self).
    fn rsqrt(self) -> Self {
        Self::rsqrt_inside(self, Self::ONE, Self::ZERO)
    }
    /// The nearest number to sqrt(self).
    fn sqrt(self) -> Self;
    /// The nearest number to 1 / sqrt(sum / count + eps).
    fn rsqrt_inside(sum: Self, count: Self, eps: Self) -> Self;
    /// The nearest numbers to 1 / (q + eps) and to q = sqrt(sum / count).
    fn rsqrt_outside(sum: Self, count: Self, eps: Self) -> (Self, Self);
    /// With `d = alpha + x²`, not rounded: the nearest numbers to 1 / sqrt(d), alpha d^(-3/2) and x d^(-3/2).
    fn inverse_square_roots(alpha: Self, x: Self) -> [Self; 3];
    /// Exponents for which the squares in these are in range.
    const SQUARABLE: (i32, i32);
    /// The nearest number to 1 / self.
    fn recip(self) -> Self;
    /// MAGIC and the bias of an exponent: adding it leaves the exponent field of a power of two in the low bits.
    const MAGIC_POWER: Self;
    /// `2^k`, which adding MAGIC_POWER to `k` has left in the low bits of `u`, for k within the normal range.
    fn power_left(u: Self) -> Self;
    /// The same for any `k`, as a normal number and a factor for what is below.
    fn power_left_split(u: Self) -> (Self, Self);
    /// Rounded to `dtype` and widened again.
    fn rounded_to(self, dtype: DType) -> Self;

    /// `self * 2^p` in up to three steps, which reach from any number to any other.
    #[inline(always)]
    fn scale(self, p: i32) -> Self {
        let [first, second, third] = Self::scale_factors(p);
        self * first * second * third
    }
    /// The three steps.
    #[inline(always)]
    fn scale_factors(p: i32) -> [Self; 3] {
        let limit = Self::SCALE_STEP;
        let p = p.clamp(-3 * limit, 3 * limit);
        let p1 = p.clamp(-limit, limit);
        let p2 = (p - p1).clamp(-limit, limit);
        [p1, p2, p - p1 - p2].map(Self::exp2)
    }
    /// Largest exponent that one step of `scale` takes.
    const SCALE_STEP: i32;
}

/// A sum as a number and its error, whichever of both is larger.
#[inline(always)]
pub(super) fn two_sum<F: Real>(x: F, y: F) -> (F, F) {
    let s = x + y;
    let z = s - x;
    (s, (x - (s - z)) + (y - z))
}

/// A product and its exact error, without a fused multiply-add.
#[inline(always)]
pub(super) fn two_prod<F: Real>(a: F, b: F) -> (F, F) {
    let (ah, bh) = (a.upper(), b.upper());
    let (al, bl) = (a - ah, b - bh);
    let p = a * b;
    (p, (((ah * bh - p) + ah * bl) + al * bh) + al * bl)
}
