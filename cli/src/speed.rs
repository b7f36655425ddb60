//! The time of a workload, beside the time of a copy that moves the same bytes.

use crate::copy::Copy;
use crate::device::Place;
use crate::failure::Result;
use crate::surroundings::Surroundings;
use crate::timing::{interleaved, median};
use crate::workload::Workload;
use serde_json::{Value, json};
use std::time::Duration;

/// Which pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

impl Direction {
    pub(crate) const BOTH: [Direction; 2] = [Direction::Forward, Direction::Backward];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Direction::Forward => "forward",
            Direction::Backward => "backward",
        }
    }

    /// How often the pass must move a tensor as large as the input: forward reads one and writes one, backward reads
    /// two (the gradient of the output, the input) and writes one. Parameters and statistics are not counted.
    fn transfers(self) -> usize {
        match self {
            Direction::Forward => 2,
            Direction::Backward => 3,
        }
    }
}

/// A measured pass.
pub(crate) struct Speed {
    /// Bytes that the pass must move.
    pub(crate) bytes: usize,
    pub(crate) time: Duration,
    /// Time of the fastest copy that moves `bytes`.
    pub(crate) copy: Duration,
}

impl Speed {
    pub(crate) fn gigabytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.time.as_secs_f64() / 1e9
    }

    /// The pass's bandwidth in units of the copy's.
    pub(crate) fn share(&self) -> f64 {
        self.copy.as_secs_f64() / self.time.as_secs_f64()
    }

    pub(crate) fn milliseconds(&self) -> f64 {
        self.time.as_secs_f64() * 1e3
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "seconds": self.time.as_secs_f64(),
            "bytes": self.bytes,
            "gb_per_s": self.gigabytes_per_second(),
            "copy_seconds": self.copy.as_secs_f64(),
            "share_of_copy": self.share(),
        })
    }
}

/// Measures one pass of `workload`, whose input has as many elements as `rows` x `cols`, the shape of the copy beside it.
pub(crate) fn measure(
    place: &Place,
    workload: &mut Workload,
    direction: Direction,
    [rows, cols]: [usize; 2],
    surroundings: Surroundings,
    rounds: usize,
) -> Result<Speed> {
    let dtype = workload.dtype();
    let more = surroundings.transfers(dtype == dtype.compute());
    let transfers = direction.transfers() + more[usize::from(direction == Direction::Backward)];
    // A copy moves everything twice.
    let mut copy = Copy::new(place, [(rows * transfers).div_ceil(2), cols], dtype)?;
    let ways = copy.ways();
    if direction == Direction::Backward {
        workload.forward_train()?;
    }
    let calls = place.calls_between_waits();
    // The pass comes between any two copies: one right after another would find its tensors in the caches.
    let times = interleaved(rounds, 2 * ways, |task| {
        for _ in 0..calls {
            match direction {
                _ if task % 2 == 0 => copy.run(task / 2)?,
                Direction::Forward => workload.forward()?,
                Direction::Backward => workload.backward()?,
            }
        }
        place.wait()
    })?;
    let copies = times.iter().step_by(2).map(|times| median(times)).min().unwrap_or_default();
    let passes: Vec<Duration> = times.iter().skip(1).step_by(2).flatten().copied().collect();
    let bytes = rows * cols * dtype.size() * transfers;
    Ok(Speed { bytes, time: median(&passes) / calls, copy: copies / calls })
}
