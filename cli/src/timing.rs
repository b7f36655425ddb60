//! Times of interleaved runs, and their medians.

use crate::failure::Result;
use std::time::{Duration, Instant};

/// Runs the tasks `0..tasks` in turn, once per round, and returns each one's times. A disturbance of the machine
/// then falls on all tasks alike, and the ratios of their medians hold. One round before does not count.
pub(crate) fn interleaved(
    rounds: usize,
    tasks: usize,
    mut run: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<Vec<Duration>>> {
    let mut times = vec![Vec::with_capacity(rounds); tasks];
    for round in 0..=rounds.max(1) {
        for (task, times) in times.iter_mut().enumerate() {
            let start = Instant::now();
            run(task)?;
            if round > 0 {
                times.push(start.elapsed());
            }
        }
    }
    Ok(times)
}

/// The time in the middle; zero of none.
pub(crate) fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_a_round_and_in_turn() {
        let mut order = Vec::new();
        let run = |task| {
            order.push(task);
            Ok(())
        };
        assert_eq!(interleaved(3, 2, run).unwrap().len(), 2);
        assert_eq!(order, [0, 1, 0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn the_median_ignores_one_slow_run() {
        let times = [3, 1, 100, 2, 4].map(Duration::from_millis);
        assert_eq!(median(&times), Duration::from_millis(3));
    }
}
