//! Element types.

use super::{F8E4M3, F8E5M2};
use half::{bf16, f16};

/// The type of a tensor's elements. Norms compute on the [floats](DType::FLOATS); integers and floats of 8 bits are what
/// results are quantized to, wider integers are indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    BF16,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// An integer of 8 bits.
    I8,
    /// [`F8E4M3`].
    F8E4M3,
    /// [`F8E5M2`].
    F8E5M2,
    /// An integer of 32 bits.
    I32,
    /// An integer of 64 bits.
    I64,
}

impl DType {
    /// Every dtype that norms compute on, narrowest first.
    pub const FLOATS: [DType; 4] = [DType::F16, DType::BF16, DType::F32, DType::F64];

    /// Every dtype that results can be quantized to.
    pub const CODES: [DType; 3] = [DType::I8, DType::F8E4M3, DType::F8E5M2];

    /// Whether it is one of the [floats](DType::FLOATS) that norms compute on.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
    }

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::I8 | DType::F8E4M3 | DType::F8E5M2 => 1,
            DType::F16 | DType::BF16 => 2,
            DType::F32 | DType::I32 => 4,
            DType::F64 | DType::I64 => 8,
        }
    }

    /// The dtype that arithmetic on this one is done in: F64 for F64, F32 for all others.
    pub const fn compute(self) -> DType {
        match self {
            DType::F64 => DType::F64,
            _ => DType::F32,
        }
    }

    /// The name, as in `f32`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::I8 => "i8",
            DType::F8E4M3 => "f8e4m3",
            DType::F8E5M2 => "f8e5m2",
            DType::I32 => "i32",
            DType::I64 => "i64",
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Of the [floats](DType::FLOATS): what a user may ask norms to compute on.
impl std::str::FromStr for DType {
    type Err = crate::Error;
    fn from_str(s: &str) -> crate::Result<Self> {
        DType::FLOATS
            .into_iter()
            .find(|d| d.name() == s)
            .ok_or_else(|| crate::Error::argument("dtype", "one of f16, bf16, f32, f64", format!("{s:?}")))
    }
}

/// A Rust type that is a tensor element.
pub trait Element: bytemuck::Pod + Send + Sync + sealed::Sealed {
    /// The matching run-time dtype.
    const DTYPE: DType;
    /// The value as float64: exactly, but for integers of 64 bits beyond 2^53.
    fn to_f64(self) -> f64;
    /// The nearest value to `x`, ties to even. Integers and floats of 8 bits have no room for more than their largest
    /// numbers, which stand for all beyond; NaN as an integer is 0.
    fn from_f64(x: f64) -> Self;
}

mod sealed {
    /// Closed: a dtype is known to every kernel or to none.
    pub trait Sealed {}
}

macro_rules! element {
    ($type:ty, $dtype:ident, $to:expr, $from:expr) => {
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: DType = DType::$dtype;
            #[inline]
            fn to_f64(self) -> f64 {
                $to(self)
            }
            #[inline]
            fn from_f64(x: f64) -> Self {
                $from(x)
            }
        }
    };
}
element!(f16, F16, f16::to_f64, narrow_f16);
element!(bf16, BF16, bf16::to_f64, narrow_bf16);
element!(f32, F32, f64::from, |x| x as f32);
element!(f64, F64, |x| x, |x| x);
element!(i8, I8, f64::from, |x: f64| x.round_ties_even() as i8);
element!(F8E4M3, F8E4M3, |x: F8E4M3| f64::from(x.to_f32()), |x| F8E4M3::from_f32(to_odd(x)));
element!(F8E5M2, F8E5M2, |x: F8E5M2| f64::from(x.to_f32()), |x| F8E5M2::from_f32(to_odd(x)));
element!(i32, I32, f64::from, |x: f64| x.round_ties_even() as i32);
element!(i64, I64, |x: i64| x as f64, |x: f64| x.round_ties_even() as i64);

/// f64 to f32 rounded to odd: inexact results get a set last bit, so that a second rounding to a type of at most
/// 22 bits of mantissa gives what one rounding would have given.
fn to_odd(x: f64) -> f32 {
    let y = x as f32;
    let back = f64::from(y);
    if back == x || !y.is_finite() || x.is_nan() || y.to_bits() & 1 == 1 {
        return y;
    }
    // `y` is even and inexact: step one ulp towards `x`, which lands on an odd neighbour.
    let away = (back.abs() < x.abs()) as u32;
    f32::from_bits(if away == 1 { y.to_bits() + 1 } else { y.to_bits() - 1 })
}

fn narrow_f16(x: f64) -> f16 {
    f16::from_f32(to_odd(x))
}

fn narrow_bf16(x: f64) -> bf16 {
    bf16::from_f32(to_odd(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrowing_rounds_once() {
        // Just above a tie of bf16, by less than an f32 can show: double rounding would go down to even.
        let x = 1.0 + 2f64.powi(-8) + 2f64.powi(-40);
        assert_eq!(<bf16 as Element>::from_f64(x).to_f32(), 1.0 + 2f32.powi(-7));
        assert_eq!(<bf16 as Element>::from_f64(1.0 + 2f64.powi(-8)).to_f32(), 1.0);
        let y = 1.0 + 2f64.powi(-11) + 2f64.powi(-45);
        assert_eq!(<f16 as Element>::from_f64(y).to_f32(), 1.0 + 2f32.powi(-10));
        assert_eq!(<f16 as Element>::from_f64(-y).to_f32(), -1.0 - 2f32.powi(-10));
        assert!(<f16 as Element>::from_f64(f64::NAN).is_nan());
        assert_eq!(<f16 as Element>::from_f64(0.0).to_bits(), 0);
    }

    #[test]
    fn names_round_trip() {
        for d in DType::FLOATS {
            assert_eq!(d.name().parse::<DType>().unwrap(), d);
        }
        assert!("int8".parse::<DType>().is_err());
    }
}
