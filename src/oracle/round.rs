//! The spacing of the dtypes' numbers, and rounding to them.

use super::real::{exponent, power_of_two};
use crate::tensor::{DType, Element, F8E4M3, F8E5M2};
use half::{bf16, f16};

/// Of a float: bits of the mantissa after the leading one, the exponent of the smallest normal number, and that of the first
/// power of two that is out of range.
const fn format(dtype: DType) -> (i32, i32, i32) {
    match dtype {
        DType::F16 => (10, -14, 16),
        DType::BF16 => (7, -126, 128),
        DType::F32 => (23, -126, 128),
        _ => (52, -1022, 1024),
    }
}

/// The distance between neighbours of `x` in `dtype`: `2^(floor(log2 |x|) - mantissa bits)`, not below the smallest
/// number. As if the dtype had no largest number; infinity and NaN have none.
pub fn ulp(dtype: DType, x: f64) -> f64 {
    let (mantissa, smallest, _) = format(dtype);
    if x.is_finite() { power_of_two(exponent(x).max(smallest) - mantissa) } else { f64::NAN }
}

/// The nearest number of `dtype`, ties to even.
pub fn round(dtype: DType, x: f64) -> f64 {
    match dtype {
        DType::F16 => nearest::<f16>(x),
        DType::BF16 => nearest::<bf16>(x),
        DType::F32 => nearest::<f32>(x),
        DType::I8 => nearest::<i8>(x),
        DType::F8E4M3 => nearest::<F8E4M3>(x),
        DType::F8E5M2 => nearest::<F8E5M2>(x),
        _ => x,
    }
}

fn nearest<T: Element>(x: f64) -> f64 {
    T::from_f64(x).to_f64()
}

/// The power of two that infinity stands for when an overflow is judged as an error of finite size.
pub fn overflow(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::MAX,
        _ => power_of_two(format(dtype).2),
    }
}

/// Whether float32 arithmetic that is good to four ulp cannot tell to which of its neighbours `x` rounds.
pub(super) fn is_ambiguous(dtype: DType, x: f64) -> bool {
    let spacing = ulp(dtype, x);
    let from_middle = ((x.abs() / spacing).fract() - 0.5).abs() * spacing;
    from_middle <= 4.0 * ulp(DType::F32, x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulps_are_the_gaps_between_neighbours() {
        assert_eq!(ulp(DType::F32, 1.0), f64::from(f32::EPSILON));
        assert_eq!(ulp(DType::F32, -1.99), f64::from(f32::EPSILON));
        assert_eq!(ulp(DType::F32, 0.0), f64::from(f32::from_bits(1)));
        assert_eq!(ulp(DType::F64, 1.0), f64::EPSILON);
        assert_eq!(ulp(DType::F16, 65504.0), 32.0);
        assert_eq!(ulp(DType::BF16, 1.0), 2f64.powi(-7));
        assert_eq!(
            (round(DType::BF16, 1.0 + 2f64.powi(-8)), round(DType::F16, 65520.0)),
            (1.0, f64::INFINITY)
        );
    }

    #[test]
    fn only_the_middle_is_ambiguous() {
        let middle = 1.0 + 2f64.powi(-11);
        assert!(is_ambiguous(DType::F16, middle) && is_ambiguous(DType::F16, middle + 2f64.powi(-21)));
        assert!(!is_ambiguous(DType::F16, middle + 2f64.powi(-20)) && !is_ambiguous(DType::F16, 1.0));
    }
}
