//! What callers may choose themselves.

use super::super::variant::Style;
use super::{MOST_CLUSTER, MOST_SHARING, MOST_WIDTH};
use crate::{Error, Result};

/// Geometry for experiments and tests, where the device's own choice is not wanted. It changes the speed, never the
/// numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overrides {
    /// How rows are given to threads.
    pub style: Option<Style>,
    /// Compute each leaf of a row as a task of its own, however short the row is.
    pub split: bool,
    /// The most neighbouring columns that a thread works on at a time: a power of two up to 8.
    pub width: Option<u32>,
    /// Threads that share a leaf, as far as its lanes go round: a power of two up to 256.
    pub threads: Option<u32>,
    /// The most steps of a leaf's lanes that threads keep in registers before they read the leaf again instead.
    pub steps: Option<u32>,
    /// The most leaves of a row that a block takes before more blocks, or a task for each leaf, share the row; at least one.
    pub leaves: Option<u32>,
    /// Whether the parameters' gradients are summed beside the input's, where one reading of a row can do for both.
    pub fused: Option<bool>,
    /// The most blocks that share a row, on devices that let blocks read each other's memory: a power of two up to 8.
    pub cluster: Option<u32>,
}

impl Overrides {
    /// Refuses what no kernel can do.
    pub(in crate::backend::cuda) fn check(&self) -> Result<()> {
        let power = |name, value: Option<u32>, most: u32| match value {
            Some(n) if !n.is_power_of_two() || n > most => {
                Err(Error::argument(name, format!("a power of two up to {most}"), n))
            }
            _ => Ok(()),
        };
        power("overrides.width", self.width, MOST_WIDTH)?;
        power("overrides.threads", self.threads, MOST_SHARING)?;
        power("overrides.cluster", self.cluster, MOST_CLUSTER)?;
        match self.leaves {
            Some(0) => Err(Error::argument("overrides.leaves", "at least 1", 0)),
            _ => Ok(()),
        }
    }
}
