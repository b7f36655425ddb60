//! What the kernels of GPUs sum over a row: a spec's statistic, as far as they are compiled for it.

use crate::spec::Statistic;
use crate::{Error, Result};

/// The largest p of a norm: beyond it the power of a number below 2 leaves the range of float32.
const MOST_POWER: f64 = 100.0;

/// Whether powers are taken by multiplication.
fn is_product(p: f64) -> bool {
    p.fract() == 0.0 && p <= 64.0
}

/// What is summed over a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Kind {
    /// Differences from the mean, and their squares.
    #[default]
    Moments,
    /// Squares, whose mean counts.
    MeanSquare,
    /// Squares, whose sum's root counts.
    Norm2,
    /// Magnitudes.
    Norm1,
    /// The largest magnitude.
    Largest,
    /// Magnitudes to this power.
    IntegerPower(u32),
    /// Magnitudes to a power that is told at run time.
    Power,
}

impl Kind {
    /// Of a statistic; an error where its powers leave the range.
    pub(crate) fn of(statistic: Statistic) -> Result<Self> {
        Ok(match statistic {
            Statistic::Moments => Kind::Moments,
            Statistic::MeanSquare => Kind::MeanSquare,
            Statistic::Norm(2.0) => Kind::Norm2,
            Statistic::Norm(1.0) => Kind::Norm1,
            Statistic::Norm(f64::INFINITY) => Kind::Largest,
            Statistic::Norm(p) if p > MOST_POWER => {
                return Err(Error::argument("p", format!("at most {MOST_POWER}, or infinity"), p));
            }
            Statistic::Norm(p) if is_product(p) => Kind::IntegerPower(p as u32),
            Statistic::Norm(_) => Kind::Power,
        })
    }

    /// What it takes to apply statistics: whether the row is centred.
    #[cfg(feature = "cuda")]
    pub(crate) fn applied(self) -> Self {
        if self == Kind::Moments { Kind::Moments } else { Kind::MeanSquare }
    }

    /// What it takes to sum rows for their gradients: whether they are centred, and whether ties count.
    #[cfg(feature = "cuda")]
    pub(crate) fn summed(self) -> Self {
        if self == Kind::Largest { self } else { self.applied() }
    }
}
