//! The two compute types, float32 and float64.

use super::real::{Real, two_prod, two_sum};
use super::simd::Simd;
use crate::tensor::{DType, Element};
use half::{bf16, f16};

/// `2^k`.
const fn single(k: i32) -> f32 {
    f32::from_bits(((k + 127) as u32) << 23)
}

/// `2^k`.
const fn double(k: i32) -> f64 {
    f64::from_bits(((k + 1023) as u64) << 52)
}

/// `r * (1 + e)` for a tiny relative error `e`; `r` where the error is not a number, as beside infinities.
fn corrected(r: f64, e: f64) -> f64 {
    let better = r + r * e;
    if better.is_finite() { better } else { r }
}

/// `a / b` as a number and its error.
fn quotient(a: f64, b: f64) -> (f64, f64) {
    let q = a / b;
    let (p, pe) = two_prod(q, b);
    let low = ((a - p) - pe) / b;
    (q, if low.is_finite() { low } else { 0.0 })
}

macro_rules! real {
    ($t:ident, $block:ident, $bits:ident, $signed:ident, mantissa: $mantissa:literal, exponent_bits: $ebits:literal, split: $split:literal,
     head: $head:literal, { $($rest:tt)* }) => {
        impl Real for $t {
            type Block<S: Simd> = S::$block;
            type Bits = $bits;
            const ZERO: $t = 0.0;
            const HALF: $t = 0.5;
            const ONE: $t = 1.0;
            const TWO: $t = 2.0;
            const FOUR: $t = 4.0;
            const MAX: $t = $t::MAX;
            const INFINITE: $bits = $t::INFINITY.to_bits();
            const LOG2E: $t = std::$t::consts::LOG2_E;
            const LN2: $t = std::$t::consts::LN_2;
            #[allow(clippy::excessive_precision, reason = "one text for both types")]
            const GELU: [$t; 3] = [1.595_769_121_605_730_8, 0.071_354_816_272_600_25, 0.214_064_448_817_800_73];
            const MAGIC: $t = 1.5 * (1u64 << $mantissa) as $t;
            const SCALE_STEP: i32 = (1 << ($ebits - 1)) - 2;

            #[inline(always)]
            fn of(x: f64) -> $t {
                x as $t
            }
            #[inline(always)]
            fn abs(self) -> $t {
                $t::abs(self)
            }
            #[inline(always)]
            fn magnitude(self) -> $bits {
                self.to_bits() & ($bits::MAX >> 1)
            }
            #[inline(always)]
            fn from_bits(bits: $bits) -> $t {
                $t::from_bits(bits)
            }
            #[inline(always)]
            fn is_special(bits: $bits) -> bool {
                bits == 0 || bits >= $t::INFINITY.to_bits()
            }
            #[inline(always)]
            fn exponent(bits: $bits) -> i32 {
                (bits >> $mantissa) as i32 - ((1 << ($ebits - 1)) - 1)
            }
            #[inline(always)]
            fn or_sign(self, sign: $t) -> $t {
                $t::from_bits(self.to_bits() | sign.to_bits() & !($bits::MAX >> 1))
            }
            #[inline(always)]
            fn flip_sign(self, sign: $t) -> $t {
                $t::from_bits(self.to_bits() ^ sign.to_bits() & !($bits::MAX >> 1))
            }
            #[inline(always)]
            fn upper(self) -> $t {
                $t::from_bits(self.to_bits() & ($bits::MAX << $split))
            }
            #[inline(always)]
            fn head(self) -> $t {
                $t::from_bits(self.to_bits() & ($bits::MAX << $head))
            }
            #[inline(always)]
            fn exp2(k: i32) -> $t {
                $t::from_bits(((k + ((1 << ($ebits - 1)) - 1)) as $bits) << $mantissa)
            }
            #[inline(always)]
            fn sqrt(self) -> $t {
                $t::sqrt(self)
            }
            #[inline(always)]
            fn recip(self) -> $t {
                1.0 / self
            }
            const MAGIC_POWER: $t = <$t as Real>::MAGIC + ((1 << ($ebits - 1)) - 1) as $t;
            #[inline(always)]
            fn power_left(u: $t) -> $t {
                $t::from_bits(u.to_bits() << $mantissa)
            }
            #[inline(always)]
            fn power_left_split(u: $t) -> ($t, $t) {
                const ONE: $signed = <$t as Real>::MAGIC_POWER.to_bits() as $signed;
                const LEAST: $signed = ONE + 2 - (1 << ($ebits - 1));
                let k = u.to_bits() as $signed;
                let held = if k < LEAST { LEAST } else { k };
                let power = |k: $signed| $t::from_bits((k as $bits) << $mantissa);
                (power(held), power(k.wrapping_sub(held).wrapping_add(ONE)))
            }
            $($rest)*
        }
    };
}

/// The bits of a float32 plus what makes cutting off the lower half round to nearest even.
#[inline(always)]
fn rounded_up(bits: u32) -> u32 {
    bits.wrapping_add(0x7FFF + (bits >> 16 & 1))
}

real!(f32, F32, u32, i32, mantissa: 23, exponent_bits: 8, split: 12, head: 16, {
    const REGULAR: [(f32, f32); 2] = [(single(-80), single(100)), (single(-40), single(50))];
    const SUM_LIMIT: f32 = single(100);
    const WEIGHT_LIMIT: f32 = single(63);
    const NONE: i32 = -1000;
    const NEWTON_STEPS: usize = 3;
    const TANH_LIMIT: f32 = 20.0;
    const SLOPE_LIMIT: f32 = 87.0;
    const SIGMOID_LIMIT: f32 = 86.0;
    const NORMAL_LIMIT: f32 = 16.0;
    const TAIL: &'static [f32] = &[
        0.050_154_89, -0.281_178_74, 0.532_678_37, -0.315_283_7, 0.316_780_5, 0.062_397_51, 0.135_209_92, -0.000_758_792_4
    ];
    const LN2_HI: f32 = f32::from_bits(0x3F31_7200);
    const LN2_LO: f32 = 1.428_606_8e-6;
    const TAYLOR: &'static [f32] = &[
        1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0, 1.0 / 40320.0,
    ];
    // The least largest error of rho times the polynomial, 1.4e-8, by weighted least squares whose weights follow the
    // errors; the coefficients were rounded one after the other, those after it fitted anew.
    const BEND: &'static [f32] = &[1.0, -0.666_661_8, 0.333_331_23, -0.133_862_48, 0.044_610_064];

    /// By arithmetic on bits, which compiles to SIMD.
    #[inline(always)]
    fn from_f16(x: f16) -> f32 {
        let bits = u32::from(x.to_bits());
        let (sign, magnitude) = ((bits & 0x8000) << 16, bits & 0x7FFF);
        // The exponent field moves to float32's; multiplying by 2^112 makes up for the bias, of subnormal numbers too.
        let number = (f32::from_bits(magnitude << 13) * single(112)).to_bits();
        let special = number | 0x7F80_0000;
        f32::from_bits(sign | if magnitude >= 0x7C00 { special } else { number })
    }
    #[inline(always)]
    fn from_bf16(x: bf16) -> f32 {
        f32::from_bits(u32::from(x.to_bits()) << 16)
    }
    #[inline(always)]
    fn from_f32(x: f32) -> f32 {
        x
    }
    /// To nearest even by arithmetic on bits, which compiles to SIMD.
    #[inline(always)]
    fn to_f16(self) -> f16 {
        let bits = self.to_bits();
        let (sign, magnitude) = (bits >> 16 & 0x8000, bits & 0x7FFF_FFFF);
        // Subnormal results: adding a half leaves the result's units in the last bits of the sum.
        let small = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3F00_0000);
        let usual = magnitude.wrapping_add(0xC800_0FFF).wrapping_add(magnitude >> 13 & 1) >> 13;
        let nan = 0x7E00 | (magnitude >> 13 & 0x3FF);
        let finite = if magnitude < 0x3880_0000 { small } else { usual };
        let large = if magnitude > 0x7F80_0000 { nan } else { 0x7C00 };
        f16::from_bits((sign | if magnitude >= 0x4780_0000 { large } else { finite }) as u16)
    }
    /// To nearest even by integer arithmetic, which compiles to SIMD; NaN stays NaN.
    #[inline(always)]
    fn to_bf16(self) -> bf16 {
        let bits = self.to_bits();
        let quiet = bits | 0x40_0000;
        bf16::from_bits((if self.is_nan() { quiet } else { rounded_up(bits) } >> 16) as u16)
    }
    #[inline(always)]
    fn number_to_bf16(self) -> bf16 {
        bf16::from_bits((rounded_up(self.to_bits()) >> 16) as u16)
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn rsqrt_inside(sum: f32, count: f32, eps: f32) -> f32 {
        (1.0 / (f64::from(sum) / f64::from(count) + f64::from(eps)).sqrt()) as f32
    }
    #[inline(always)]
    fn rsqrt_outside(sum: f32, count: f32, eps: f32) -> (f32, f32) {
        let q = (f64::from(sum) / f64::from(count)).sqrt();
        ((1.0 / (q + f64::from(eps))) as f32, q as f32)
    }
    #[inline(always)]
    fn inverse_square_roots(alpha: f32, x: f32) -> [f32; 3] {
        let (alpha, x) = (f64::from(alpha), f64::from(x));
        let r = 1.0 / (alpha + x * x).sqrt();
        let cube = (r * r) * r;
        [r as f32, (alpha * cube) as f32, (x * cube) as f32]
    }
    const SQUARABLE: (i32, i32) = (-40, 25);
    #[inline(always)]
    fn rounded_to(self, dtype: DType) -> f32 {
        match dtype {
            DType::F16 => Self::from_f16(self.to_f16()),
            DType::BF16 => Self::from_bf16(self.to_bf16()),
            _ => self,
        }
    }
});

real!(f64, F64, u64, i64, mantissa: 52, exponent_bits: 11, split: 27, head: 36, {
    const REGULAR: [(f64, f64); 2] = [(double(-800), double(900)), (double(-400), double(450))];
    const SUM_LIMIT: f64 = double(900);
    const WEIGHT_LIMIT: f64 = double(511);
    const NONE: i32 = -10000;
    const NEWTON_STEPS: usize = 4;
    const TANH_LIMIT: f64 = 40.0;
    const SLOPE_LIMIT: f64 = 708.0;
    const SIGMOID_LIMIT: f64 = 708.0;
    const NORMAL_LIMIT: f64 = 40.0;
    #[allow(clippy::unreadable_literal, reason = "as they were found")]
    const TAIL: &'static [f64] = &[
        0.0028012915025244617, -0.03411723084846393, 0.19054856028930425, -0.6421215032479486, 1.4427500259545205, -2.2504909786496685, 2.4601945962075913, -1.8727446816522983, 0.9971138542455199, -0.3796376974750531, 0.05466483606552168, 0.036190092077958445, 0.04067117955037199, 0.09331930418504289, 0.11138063927017804, 0.12481947422899109, 0.12465784697934133, 3.913165665983069e-07
    ];
    const LN2_HI: f64 = f64::from_bits(0x3FE6_2E42_FEE0_0000);
    const LN2_LO: f64 = 1.908_214_929_270_587_7e-10;
    const TAYLOR: &'static [f64] = &[
        1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0, 1.0 / 40320.0,
        1.0 / 362_880.0, 1.0 / 3_628_800.0, 1.0 / 39_916_800.0, 1.0 / 479_001_600.0, 1.0 / 6_227_020_800.0,
        1.0 / 87_178_291_200.0, 1.0 / 1_307_674_368_000.0,
    ];
    // 2/2!, -4/3!, 8/4!, …: the series.
    const BEND: &'static [f64] = &[
        1.0, -4.0 / 6.0, 8.0 / 24.0, -16.0 / 120.0, 32.0 / 720.0, -64.0 / 5040.0, 128.0 / 40320.0,
        -256.0 / 362_880.0, 512.0 / 3_628_800.0, -1024.0 / 39_916_800.0, 2048.0 / 479_001_600.0,
        -4096.0 / 6_227_020_800.0, 8192.0 / 87_178_291_200.0, -16384.0 / 1_307_674_368_000.0,
    ];

    #[inline(always)]
    fn from_f16(x: f16) -> f64 {
        x.to_f64()
    }
    #[inline(always)]
    fn from_bf16(x: bf16) -> f64 {
        x.to_f64()
    }
    #[inline(always)]
    fn from_f32(x: f32) -> f64 {
        f64::from(x)
    }
    #[inline(always)]
    fn to_f16(self) -> f16 {
        Element::from_f64(self)
    }
    #[inline(always)]
    fn to_bf16(self) -> bf16 {
        Element::from_f64(self)
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self as f32
    }
    #[inline(always)]
    fn rsqrt_inside(sum: f64, count: f64, eps: f64) -> f64 {
        let (v, vl) = quotient(sum, count);
        let (d, dl) = two_sum(v, eps);
        let dl = dl + vl;
        let r = 1.0 / d.sqrt();
        let (p, pe) = two_prod(r, r);
        let (q, qe) = two_prod(d, p);
        corrected(r, 0.5 * (((1.0 - q) - qe) - (d * pe + dl * p)))
    }
    #[inline(always)]
    fn rsqrt_outside(sum: f64, count: f64, eps: f64) -> (f64, f64) {
        let (v, vl) = quotient(sum, count);
        let q = f64::sqrt(v);
        let (p, pe) = two_prod(q, q);
        let ql = if q > 0.0 && q.is_finite() { (((v - p) - pe) + vl) / (2.0 * q) } else { 0.0 };
        let (s, sl) = two_sum(q, eps);
        let sl = sl + ql;
        let r = 1.0 / s;
        let (t, te) = two_prod(r, s);
        (corrected(r, ((1.0 - t) - te) - r * sl), q + ql)
    }
    #[inline(always)]
    fn inverse_square_roots(alpha: f64, x: f64) -> [f64; 3] {
        let (square, low) = two_prod(x, x);
        let (d, dl) = two_sum(alpha, square);
        let dl = dl + low;
        let r = 1.0 / d.sqrt();
        let (p, pe) = two_prod(r, r);
        let (q, qe) = two_prod(d, p);
        let e = 0.5 * (((1.0 - q) - qe) - (d * pe + dl * p));
        // r (1 + e), and its cube as p r (1 + pe / p + 3 e).
        let (cube, cube_low) = two_prod(p, r);
        let cube_low = cube_low + (pe * r + 3.0 * e * cube);
        let times = |a: f64| {
            let (t, te) = two_prod(a, cube);
            let better = t + (te + a * cube_low);
            if better.is_finite() { better } else { t }
        };
        [corrected(r, e), times(alpha), times(x)]
    }
    const SQUARABLE: (i32, i32) = (-300, 300);
    #[inline(always)]
    fn rounded_to(self, dtype: DType) -> f64 {
        match dtype {
            DType::F16 => Self::from_f16(self.to_f16()),
            DType::BF16 => Self::from_bf16(self.to_bf16()),
            DType::F32 => Self::from_f32(self.to_f32()),
            _ => self,
        }
    }
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_the_powers_of_two_they_stand_for() {
        assert_eq!(f32::REGULAR, [(2f32.powi(-80), 2f32.powi(100)), (2f32.powi(-40), 2f32.powi(50))]);
        assert_eq!(f64::REGULAR, [(2f64.powi(-800), 2f64.powi(900)), (2f64.powi(-400), 2f64.powi(450))]);
        assert_eq!((f32::SUM_LIMIT, f64::SUM_LIMIT), (2f32.powi(100), 2f64.powi(900)));
    }

    #[test]
    fn sixteen_bits_convert_as_the_library_does() {
        for bits in 0..=u16::MAX {
            let x = f16::from_bits(bits);
            let (ours, theirs) = (f32::from_f16(x), x.to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{bits:x}");
        }
        for bits in (0..=u32::MAX).step_by(997) {
            let x = f32::from_bits(bits);
            let (ours, theirs) = (x.to_f16(), f16::from_f32(x));
            assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{bits:x}");
        }
    }

    #[test]
    fn scaling_takes_three_steps() {
        assert_eq!(1.5f32.scale(0), 1.5);
        assert_eq!(f32::from_bits(1).scale(149), 1.0);
        assert_eq!(1.0f32.scale(-149), f32::from_bits(1));
        assert_eq!(f32::from_bits(1).scale(276), 2f32.powi(127));
        assert_eq!(f64::from_bits(1).scale(2097), 2f64.powi(1023));
    }

    #[test]
    fn exponents_and_special_magnitudes() {
        assert_eq!(f32::exponent(1.5f32.magnitude()), 0);
        assert_eq!(f32::exponent(f32::from_bits(1).magnitude()), -127);
        assert!(f32::is_special(f32::NAN.magnitude()) && f32::is_special(0) && !f32::is_special(1));
    }

    /// Distance in ulp of `x` (float32) from the exact value.
    fn ulp(x: f32, exact: f64) -> f64 {
        let exponent = exact.abs().log2().floor().max(-126.0);
        (f64::from(x) - exact).abs() / (exponent - 23.0).exp2()
    }

    #[test]
    fn rsqrt_is_the_nearest_float() {
        for x in (0x0080_0000..0x7F80_0000u32).step_by(10_007).map(f32::from_bits) {
            let r = x.rsqrt();
            assert!(ulp(r, 1.0 / f64::from(x).sqrt()) <= 0.500_001, "{x:e}");
        }
        assert_eq!(0f32.rsqrt(), f32::INFINITY);
        assert_eq!(f32::INFINITY.rsqrt(), 0.0);
        assert!(f32::NAN.rsqrt().is_nan() && (-1f32).rsqrt().is_nan());
    }

    #[test]
    fn two_prod_is_exact() {
        for i in 0..100_000u32 {
            let a = f32::from_bits(0x3F80_0000 + i * 83);
            let b = f32::from_bits(0x4000_0000 + i.wrapping_mul(2_654_435_761) % 0x80_0000);
            let (p, e) = two_prod(a, b);
            assert_eq!(f64::from(p) + f64::from(e), f64::from(a) * f64::from(b));
        }
    }
}
