//! Floats of 8 bits, as the Open Compute Project defines them (OCP 8-bit Floating Point Specification, revision 1.0).

use bytemuck::{Pod, Zeroable};

/// A float of 4 exponent bits (bias 7) and 3 of mantissa, without infinities: numbers up to 448, and NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Zeroable, Pod)]
#[repr(transparent)]
pub struct F8E4M3(pub u8);

/// A float of 5 exponent bits (bias 15) and 2 of mantissa: numbers up to 57344, infinities and NaNs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Zeroable, Pod)]
#[repr(transparent)]
pub struct F8E5M2(pub u8);

/// The code of the nearest number, ties to even, of a format with `MANTISSA` bits of mantissa; numbers out of range become
/// the largest of their sign, which `largest` is, and NaN the positive quiet NaN. Integer operations and one exact-enough sum, without
/// branches, so that loops over it become SIMD.
#[inline(always)]
fn code<const MANTISSA: u32>(x: f32, bias: u32, largest: f32) -> u8 {
    let sign = (x.to_bits() >> 24) & 0x80;
    let held = if x.abs() < largest { x.abs() } else { largest };
    // Normal: the bits that go are rounded to even, and the exponent's bias is exchanged.
    let (shift, bits) = (23 - MANTISSA, held.to_bits());
    let even = (bits >> shift) & 1;
    let normal = ((bits + ((1 << (shift - 1)) - 1) + even) >> shift).wrapping_sub((127 - bias) << MANTISSA);
    // Subnormal: beside a number whose neighbours are as far apart as these are.
    let least_normal = f32::from_bits((127 + 1 - bias) << 23);
    let anchor = f32::from_bits((127 + 1 - bias + shift) << 23);
    let subnormal = (held + anchor).to_bits().wrapping_sub(anchor.to_bits());
    let size = if held < least_normal { subnormal } else { normal };
    (if x.is_nan() { 0x7f } else { sign | size }) as u8
}

/// The number of a code that is not special.
fn value<const MANTISSA: u32>(code: u8, bias: i32) -> f32 {
    let size = u32::from(code & 0x7f);
    let (exponent, mantissa) = ((size >> MANTISSA) as i32, (size & ((1 << MANTISSA) - 1)) as f32);
    let (whole, exponent) = if exponent == 0 { (0.0, 1) } else { ((1 << MANTISSA) as f32, exponent) };
    let size = (whole + mantissa) * 2f32.powi(exponent - bias - MANTISSA as i32);
    if code & 0x80 == 0 { size } else { -size }
}

impl F8E4M3 {
    /// The largest number.
    pub const MAX: f32 = 448.0;

    /// The nearest number, ties to even; out of range the largest of its sign; NaN for NaN.
    #[inline(always)]
    pub fn from_f32(x: f32) -> Self {
        F8E4M3(code::<3>(x, 7, Self::MAX))
    }

    /// The same number, exactly.
    pub fn to_f32(self) -> f32 {
        if self.0 & 0x7f == 0x7f { f32::NAN } else { value::<3>(self.0, 7) }
    }
}

impl F8E5M2 {
    /// The largest number.
    pub const MAX: f32 = 57344.0;

    /// The nearest number, ties to even; out of range the largest of its sign; NaN for NaN.
    #[inline(always)]
    pub fn from_f32(x: f32) -> Self {
        F8E5M2(code::<2>(x, 15, Self::MAX))
    }

    /// The same number, exactly.
    pub fn to_f32(self) -> f32 {
        match self.0 & 0x7f {
            0x7c => f32::INFINITY.copysign(if self.0 & 0x80 == 0 { 1.0 } else { -1.0 }),
            0x7d.. => f32::NAN,
            _ => value::<2>(self.0, 15),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By search among all numbers of the format: the nearest, of two the one whose code is even.
    fn nearest(x: f32, numbers: &[(f64, u8)]) -> u8 {
        if x.is_nan() {
            return 0x7f;
        }
        let (sign, size) = (if x.is_sign_negative() { 0x80 } else { 0 }, f64::from(x.abs()));
        let above = numbers.partition_point(|(number, _)| *number < size);
        let Some(&(up, up_code)) = numbers.get(above) else { return sign | numbers[numbers.len() - 1].1 };
        let Some(&(down, down_code)) = above.checked_sub(1).and_then(|below| numbers.get(below)) else {
            return sign | up_code;
        };
        let nearer_down = size - down < up - size || (size - down == up - size && down_code % 2 == 0);
        sign | if nearer_down { down_code } else { up_code }
    }

    /// All values of both 16-bit floats, and float32s beside every tie.
    fn many() -> impl Iterator<Item = f32> {
        let halves = (0..=u16::MAX)
            .flat_map(|bits| [half::f16::from_bits(bits).to_f32(), half::bf16::from_bits(bits).to_f32()]);
        halves.flat_map(|x| [x, x.next_up(), x.next_down()])
    }

    #[test]
    fn codes_are_of_the_nearest_number() {
        let of = |to: fn(u8) -> f32, most: u8| -> Vec<(f64, u8)> {
            (0..=most).map(|code| (f64::from(to(code)), code)).collect()
        };
        let e4m3 = of(|code| F8E4M3(code).to_f32(), 0x7e);
        let e5m2 = of(|code| F8E5M2(code).to_f32(), 0x7b);
        assert!(e4m3.is_sorted() && e4m3.last() == Some(&(448.0, 0x7e)) && e4m3[1].0 == 2f64.powi(-9));
        assert!(e5m2.is_sorted() && e5m2.last() == Some(&(57344.0, 0x7b)) && e5m2[1].0 == 2f64.powi(-16));
        for x in many() {
            assert_eq!(F8E4M3::from_f32(x).0, nearest(x, &e4m3), "{x:e}");
            assert_eq!(F8E5M2::from_f32(x).0, nearest(x, &e5m2), "{x:e}");
        }
    }

    #[test]
    fn numbers_become_themselves() {
        for code in 0..=u8::MAX {
            let (e4m3, e5m2) = (F8E4M3(code), F8E5M2(code));
            if !e4m3.to_f32().is_nan() {
                assert_eq!(F8E4M3::from_f32(e4m3.to_f32()), e4m3);
            }
            if e5m2.to_f32().is_finite() {
                assert_eq!(F8E5M2::from_f32(e5m2.to_f32()), e5m2);
            }
        }
        assert_eq!(F8E5M2(0xfc).to_f32(), f32::NEG_INFINITY);
    }
}
