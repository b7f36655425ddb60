//! How far results are from what they should be.

/// The distance between two tensors of the same shape.
pub(crate) struct Errors {
    /// The largest difference, in units of the last place of the largest value in its row.
    pub(crate) ulp: f64,
    /// The share of elements that are exactly equal.
    pub(crate) equal: f64,
}

/// Compares `found` with `expected`, both in rows of `cols`, in units of the last place of float32.
pub(crate) fn compare(found: &[f64], expected: &[f64], cols: usize) -> Errors {
    let rows = found.chunks(cols).zip(expected.chunks(cols));
    let ulp = rows.map(|(found, expected)| {
        let largest = expected.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        let differences = found.iter().zip(expected).map(|(f, e)| (f - e).abs());
        // A NaN that was not expected must not vanish in the maximum.
        differences.fold(0.0, |m: f64, d| if d.is_nan() { f64::INFINITY } else { m.max(d) })
            / ulp_f32(largest)
    });
    let equal = found.iter().zip(expected).filter(|(f, e)| f == e).count();
    Errors { ulp: ulp.fold(0.0, f64::max), equal: equal as f64 / found.len().max(1) as f64 }
}

/// The distance from `x` to the next float32 beyond.
fn ulp_f32(x: f64) -> f64 {
    let x = (x as f32).abs().max(f32::MIN_POSITIVE);
    f64::from(f32::from_bits(x.to_bits() + 1)) - f64::from(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_last_place_of_the_rows_largest() {
        let ulp = f64::from(f32::EPSILON);
        let errors = compare(&[1.0 + ulp, 0.0, 8.0, 8.0], &[1.0, ulp, 8.0, 8.0], 2);
        assert_eq!((errors.ulp, errors.equal), (1.0, 0.5));
        assert_eq!(compare(&[8.0, ulp], &[8.0, 0.0], 2).ulp, 0.125);
        assert_eq!(compare(&[f64::NAN], &[1.0], 1).ulp, f64::INFINITY);
    }
}
