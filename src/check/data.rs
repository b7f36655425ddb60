//! Deterministic data: every element is a pure function of a seed, its row and its column, so that a row keeps its
//! values whatever batch it is put into.

use crate::plan::tree::LEAF;

/// What a tensor is filled with, before rounding to its dtype.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fill {
    /// Bell-shaped around `mean`, never beyond six deviations.
    Normal {
        /// Middle of the bell.
        mean: f64,
        /// Its standard deviation.
        deviation: f64,
    },
    /// Uniform within plus and minus this.
    Uniform(f64),
    /// This number everywhere.
    Constant(f64),
    /// One number per row, up to about this magnitude.
    ConstantRows(f64),
    /// `Normal` with mean 0 and deviation 1, and this number in one element of the second row.
    Special(f64),
    /// `Normal`, its deviation differing from row to row by powers of ten from 10^-n to 10^n.
    Mixed(i32),
    /// `Normal`, but this number in the first elements of each row: what a kernel that estimates the mean from them is
    /// misled by.
    Outliers {
        /// How many.
        first: usize,
        /// The number.
        value: f64,
    },
    /// Rising from -1 to 1 along each row.
    Sorted,
    /// `Normal`, the second half of each row this far from the first.
    Step(f64),
    /// `Normal` times `scale` in every `every`-th run of [`LEAF`](crate::plan::tree::LEAF) elements of a row, from the
    /// second on, plus this: a leaf that is zero, constant, tiny or huge among others.
    Leaves {
        /// 2 is alternating.
        every: usize,
        /// What their deviation is.
        scale: f64,
        /// What their mean is.
        shift: f64,
    },
    /// Whole numbers from -3 to 3, so that many share the largest magnitude.
    Ties,
    /// `Normal`, and zero in every element of the second row.
    ZeroRow,
}

impl Fill {
    /// Mean 0, deviation 1.
    pub const UNIT: Fill = Fill::Normal { mean: 0.0, deviation: 1.0 };

    /// The element at `row` and `col` of `cols`.
    pub(super) fn at(self, seed: u64, row: usize, col: usize, cols: usize) -> f64 {
        let key = mix(seed ^ mix(row as u64 ^ mix(col as u64)));
        match self {
            Fill::Normal { mean, deviation } => mean + deviation * bell(key),
            Fill::Uniform(most) => most * (2.0 * unit(key) - 1.0),
            Fill::Constant(value) => value,
            Fill::ConstantRows(most) => most * (2.0 * unit(mix(seed ^ mix(row as u64))) - 1.0),
            Fill::Special(value) if (row, col) == (1, cols / 2) => value,
            Fill::Special(_) => bell(key),
            Fill::Outliers { first, value } if col < first => value,
            Fill::Outliers { .. } => bell(key),
            Fill::Sorted => 2.0 * (col as f64 + unit(key)) / cols as f64 - 1.0,
            Fill::Step(far) => bell(key) + if col < cols / 2 { 0.0 } else { far },
            Fill::Leaves { every, scale, shift } if col / LEAF % every == 1 => scale * bell(key) + shift,
            Fill::Leaves { .. } => bell(key),
            Fill::Ties => (mix(key) % 7) as f64 - 3.0,
            Fill::ZeroRow => bell(key) * if row == 1 { 0.0 } else { 1.0 },
            Fill::Mixed(decades) => {
                let decade = mix(seed ^ mix(row as u64)) % (2 * decades.unsigned_abs() as u64 + 1);
                bell(key) * 10f64.powi(decade as i32 - decades.abs())
            }
        }
    }
}

/// Steele, Lea and Flood's SplitMix64: a bijection that leaves no visible pattern.
pub(super) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Uniform in [0, 1).
pub(super) fn unit(key: u64) -> f64 {
    (key >> 11) as f64 / (1u64 << 53) as f64
}

/// Sum of twelve uniforms: nearly normal, and made of exact operations, so the same on every machine.
fn bell(key: u64) -> f64 {
    (0..12).map(|i| unit(mix(key.wrapping_add(i)))).sum::<f64>() - 6.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bell_has_mean_zero_and_deviation_one() {
        let n = 20_000;
        let draws: Vec<f64> = (0..n).map(|i| Fill::UNIT.at(7, i / 100, i % 100, 100)).collect();
        let mean = draws.iter().sum::<f64>() / n as f64;
        let square = draws.iter().map(|x| x * x).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.03 && (square - 1.0).abs() < 0.05, "mean {mean}, mean square {square}");
    }

    #[test]
    fn a_special_number_is_in_one_element() {
        let at = |row, col| Fill::Special(f64::NAN).at(1, row, col, 9);
        let found = (0..5).flat_map(|r| (0..9).map(move |c| (r, c))).filter(|&(r, c)| at(r, c).is_nan());
        assert_eq!(found.collect::<Vec<_>>(), [(1, 4)]);
    }
}
