//! Results as codes of 8 bits.

use crate::plan::tree;
use crate::tensor::{DType, F8E4M3, F8E5M2};
use crate::{Error, Result};

/// What becomes of a result `v`, rounded to float32: codes of 8 bits beside scales, `v ≈ code * scale`.
///
/// ```text
/// most  = max |v|, at most the upper bound            of a row or a block
/// scale = max(most / largest, least)                  or the one that is given
/// code  = nearest(v / scale)                          ties to even; out of range the largest of its sign
/// ```
///
/// | dtype | `largest` | `least` | codes |
/// |---|---|---|---|
/// | i8 | 127 | 2^-23 | -128 to 127; NaN is 0 |
/// | f8e4m3 | 448 | 1 / (512 * 448) | up to 448 in size; NaN is 0x7f |
/// | f8e5m2 | 57344 | 1 / (512 * 57344) | up to 57344 in size; NaN is 0x7f |
///
/// Every step is a float32 operation, rounded once: the codes are, bit for bit, those of quantizing the float32 result of
/// the norm alone. A NaN in `v` makes its row's or block's scale NaN, and with it all the codes. The least scales are those of vLLM; rows of
/// zeros get them.
///
/// With [`outliers`](Quantization::outliers), magnitudes from that threshold on stay out of `most` and have the code 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantization {
    /// The dtype of the codes, one of [`DType::CODES`].
    pub dtype: DType,
    /// What shares a scale.
    pub scaling: Scaling,
    /// Larger magnitudes do not make a row's or block's scale larger: they become the largest code.
    pub upper_bound: Option<f64>,
    /// Elements whose magnitude, as float32, is at least this are *outliers*: they do not count for the scale, and their code
    /// is 0. Infinity is one, NaN is none. Only for i8 with a scale of each row.
    pub outliers: Option<f64>,
}

/// What elements share a scale.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Scaling {
    /// All of them, the one that is given.
    Static(f64),
    /// Those of a row.
    Row,
    /// So many neighbouring columns of a row, a power of two from 32 to 4096; fewer at its end.
    Block(usize),
}

/// Sizes of blocks: no block lies in two leaves of a row, and none begins within columns that are taken at a time.
const BLOCKS: std::ops::RangeInclusive<usize> = 32..=tree::LEAF;

impl Quantization {
    /// An error that names what makes no sense.
    pub fn check(&self) -> Result<()> {
        if !DType::CODES.contains(&self.dtype) {
            return Err(Error::argument("dtype", "one of i8, f8e4m3, f8e5m2", self.dtype));
        }
        let is_positive = |x: f64| (f32::MIN_POSITIVE..=f32::MAX).contains(&(x as f32));
        let positive = "a positive number, a normal one as float32";
        match (self.scaling, self.upper_bound) {
            (Scaling::Static(scale), _) if !is_positive(scale) => {
                Err(Error::argument("scale", positive, scale))
            }
            (Scaling::Static(_), Some(bound)) => {
                Err(Error::argument("upper_bound", "none beside a scale that is given", bound))
            }
            (Scaling::Block(block), _) if !block.is_power_of_two() || !BLOCKS.contains(&block) => {
                let expected = format!("a power of two from {} to {}", BLOCKS.start(), BLOCKS.end());
                Err(Error::argument("block", expected, block))
            }
            (_, Some(bound)) if !is_positive(bound) => Err(Error::argument("upper_bound", positive, bound)),
            _ => match self.outliers {
                Some(threshold) if !is_positive(threshold) => {
                    Err(Error::argument("threshold", positive, threshold))
                }
                Some(threshold) if self.dtype != DType::I8 || self.scaling != Scaling::Row => {
                    let expected = "none beside codes other than i8 with a scale of each row";
                    Err(Error::argument("threshold", expected, threshold))
                }
                _ => Ok(()),
            },
        }
    }

    /// The bits of the least magnitude of an outlier, which are in the order of magnitudes; beyond those of infinity where there
    /// are no outliers.
    pub(crate) fn outlier_bits(&self) -> u32 {
        self.outliers.map_or(f32::INFINITY.to_bits() + 1, |threshold| (threshold as f32).to_bits())
    }

    /// The number that a row's or block's largest magnitude becomes.
    pub fn largest(&self) -> f32 {
        match self.dtype {
            DType::F8E4M3 => F8E4M3::MAX,
            DType::F8E5M2 => F8E5M2::MAX,
            _ => 127.0,
        }
    }

    /// The least scale of a row or a block.
    pub fn least(&self) -> f32 {
        match self.dtype {
            DType::F8E4M3 | DType::F8E5M2 => 1.0 / (512.0 * self.largest()),
            _ => f32::EPSILON,
        }
    }

    /// The scale of elements whose largest magnitude is `most`; NaN for NaN.
    pub fn scale(&self, most: f32) -> f32 {
        if let Scaling::Static(scale) = self.scaling {
            return scale as f32;
        }
        let bound = self.upper_bound.map_or(f32::INFINITY, |bound| bound as f32);
        let scale = if most > bound { bound } else { most } / self.largest();
        if scale < self.least() { self.least() } else { scale }
    }

    /// Columns that share a scale which is computed, of a row of `cols`; `None` where it is given.
    pub fn block(&self, cols: usize) -> Option<usize> {
        match self.scaling {
            Scaling::Static(_) => None,
            Scaling::Row => Some(cols),
            Scaling::Block(block) => Some(block),
        }
    }

    /// Scales of a row of `cols` columns: none where it is given.
    pub fn scales(&self, cols: usize) -> Option<usize> {
        self.block(cols).map(|block| cols.div_ceil(block.max(1)))
    }
}
