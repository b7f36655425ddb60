//! The tasks of a call, as threads share them out.

use super::threads::Pool;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// In how many pieces a thread's tasks are taken.
const PIECES: usize = 4;

/// Tasks in pieces of neighbours: some for each thread, the same ones in call after call, so that it finds in its cache what it
/// wrote there. Those that a thread has not begun when the others are ready they take from it.
pub(super) struct Pieces {
    taken: Box<[AtomicBool]>,
    count: usize,
    threads: usize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Pieces {
    /// `count` tasks for so many threads.
    pub(super) fn new(count: usize, threads: usize) -> Self {
        let threads = threads.clamp(1, count.max(1));
        let taken = (0..threads * PIECES).map(|_| AtomicBool::new(false)).collect();
        Pieces { taken, count, threads, panic: Mutex::new(None) }
    }

    /// Runs `task(0)` to `task(count - 1)` on a pool; a panic of one of them comes out when all others are done.
    pub(super) fn run(self, pool: &dyn Pool, task: impl Fn(usize) + Sync) {
        if self.threads > 1 {
            pool.run(&|me| self.work(me, &task));
        }
        // What the pool may have left.
        self.work(0, &task);
        if let Some(panic) = self.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }

    /// Works on the pieces of thread `me`, then on those that the others have not begun, their last ones first.
    fn work(&self, me: usize, task: &impl Fn(usize)) {
        // A thread beyond those that are of use here.
        if me >= self.threads {
            return;
        }
        let own = me * PIECES..(me + 1) * PIECES;
        let others = (1..self.threads).map(|i| (me + i) % self.threads);
        let others = others.flat_map(|other| (other * PIECES..(other + 1) * PIECES).rev());
        let start = |i: usize| self.count / self.taken.len() * i + (self.count % self.taken.len()).min(i);
        for piece in own.chain(others) {
            if self.taken[piece].swap(true, Ordering::Relaxed) {
                continue;
            }
            let tasks = start(piece)..start(piece + 1);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| tasks.for_each(task))) {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// Calls with numbers that are missing, too large, or there twice.
    #[derive(Debug)]
    struct Careless(&'static [usize]);

    impl Pool for Careless {
        fn threads(&self) -> usize {
            4
        }
        fn run(&self, work: &(dyn Fn(usize) + Sync)) {
            std::thread::scope(|scope| {
                for &i in self.0 {
                    scope.spawn(move || work(i));
                }
            });
        }
    }

    #[test]
    fn every_task_runs_once_whatever_the_pool_does() {
        for pool in [Careless(&[0, 1, 2, 3]), Careless(&[]), Careless(&[2, 2, 2]), Careless(&[7, 3])] {
            for count in (0..70).chain([1000]) {
                let ran: Vec<_> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                Pieces::new(count, pool.threads()).run(&pool, |i| {
                    ran[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(ran.iter().all(|ran| ran.load(Ordering::Relaxed) == 1), "{count} on {pool:?}");
            }
        }
    }

    #[test]
    fn a_panic_of_a_task_comes_out_when_the_others_are_done() {
        for bad in [0, 99] {
            let ran = AtomicUsize::new(0);
            let run = || {
                Pieces::new(100, 4).run(&Careless(&[0, 1, 2, 3]), |i| {
                    assert!(i != bad, "task {bad}");
                    ran.fetch_add(1, Ordering::Relaxed);
                });
            };
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
            // All but some of the piece of the bad one.
            assert!(ran.load(Ordering::Relaxed) >= 100 - 100usize.div_ceil(16));
        }
    }
}
