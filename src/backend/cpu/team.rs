//! Threads that help the thread that calls, one call at a time.
//!
//! A call costs what waking a thread costs, some 10 to 60 µs, or nothing for a while after the last one: helpers look out for
//! the next call a little before they sleep.

use super::threads::Pool;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How long a helper looks out for the next call.
const WATCH: Duration = Duration::from_micros(200);

/// Threads that wait for work; they end with their owner.
#[derive(Debug)]
pub(super) struct Team {
    shared: Arc<Shared>,
    /// Held during a call.
    call: Mutex<()>,
}

#[derive(Debug)]
struct Shared {
    /// The number of the last call, from 1 on; it changes last when one begins.
    epoch: AtomicUsize,
    ended: AtomicBool,
    work: Mutex<Work>,
    /// Helpers that are done with the call.
    done: AtomicUsize,
    helpers: OnceLock<Box<[Helper]>>,
}

#[derive(Debug)]
struct Helper {
    thread: Thread,
    asleep: AtomicBool,
    /// The call that it may enter, twice, and one more when it did or was told not to.
    entry: AtomicUsize,
}

/// The work of a caller, who waits for those that have entered.
#[derive(Debug, Clone, Copy)]
struct Work(*const (dyn Fn(usize) + Sync));

// SAFETY: what it points to is `Sync`, and outlives its use by the contract of `Work::run`.
unsafe impl Send for Work {}

impl Work {
    fn none() -> Self {
        const NOTHING: &(dyn Fn(usize) + Sync) = &|_| {};
        Work(NOTHING)
    }

    fn of<'a>(work: &'a (dyn Fn(usize) + Sync + 'a)) -> Self {
        let work: *const (dyn Fn(usize) + Sync + 'a) = work;
        // SAFETY: only the lifetime changes, which `run` asks its callers for.
        Work(unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync + 'a), *const (dyn Fn(usize) + Sync)>(work)
        })
    }

    /// # Safety
    /// The caller of the call is waiting: this thread has entered it, and has not said that it is done.
    unsafe fn run(self, me: usize) {
        // SAFETY: what it points to lives, as the caller says.
        unsafe { (*self.0)(me) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Team {
    /// Of `threads` threads, with the one that calls.
    pub(super) fn new(threads: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            work: Mutex::new(Work::none()),
            done: AtomicUsize::new(0),
            helpers: OnceLock::new(),
        });
        let (mut helpers, mut failed) = (Vec::new(), None);
        for me in 1..threads {
            let own = shared.clone();
            match thread::Builder::new().name(format!("normkit-{me}")).spawn(move || own.help(me)) {
                Ok(handle) => helpers.push(Helper {
                    thread: handle.thread().clone(),
                    asleep: AtomicBool::new(false),
                    entry: AtomicUsize::new(1),
                }),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        // Nobody else sets them.
        let _ = shared.helpers.set(helpers.into());
        // Dropped in the case of an error, it ends the threads that there are.
        let team = Team { shared, call: Mutex::new(()) };
        failed.map_or(Ok(team), Err)
    }
}

impl Pool for Team {
    fn threads(&self) -> usize {
        1 + self.shared.helpers().len()
    }

    /// On the calling thread alone while another thread is served.
    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        let _call = match self.call.try_lock() {
            Ok(call) => call,
            Err(TryLockError::Poisoned(call)) => call.into_inner(),
            Err(TryLockError::WouldBlock) => return work(0),
        };
        let shared = &*self.shared;
        *lock(&shared.work) = Work::of(work);
        shared.done.store(0, Ordering::Relaxed);
        let epoch = shared.epoch.load(Ordering::Relaxed) + 1;
        for helper in shared.helpers() {
            helper.entry.store(2 * epoch, Ordering::Release);
        }
        shared.epoch.store(epoch, Ordering::SeqCst);
        shared.wake(0);
        let waits = Waits(shared, epoch);
        work(0);
        drop(waits);
    }
}

/// Waits, when it is dropped, for the helpers that have entered a call, and closes it to the others.
struct Waits<'a>(&'a Shared, usize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let Waits(shared, epoch) = *self;
        let entered = shared.helpers().iter().filter(|helper| !helper.takes(epoch)).count();
        let mut rounds = 0u32;
        while shared.done.load(Ordering::Acquire) < entered {
            rounds = rounds.saturating_add(1);
            if rounds < 1 << 12 { std::hint::spin_loop() } else { thread::yield_now() }
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.shared.helpers().iter().for_each(|helper| helper.thread.unpark());
    }
}

impl Helper {
    /// Whether this is the first who takes the entry of a call.
    fn takes(&self, epoch: usize) -> bool {
        self.entry.compare_exchange(2 * epoch, 2 * epoch + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

impl Shared {
    fn helpers(&self) -> &[Helper] {
        self.helpers.get().map_or(&[], |helpers| helpers)
    }

    /// Wakes the helpers that it is thread `me`'s to wake: 1 and 2, 3 and 4, and so on.
    fn wake(&self, me: usize) {
        for helper in self.helpers().iter().skip(2 * me).take(2) {
            if helper.asleep.swap(false, Ordering::SeqCst) {
                helper.thread.unpark();
            }
        }
    }

    /// What thread `me` does until the team ends.
    fn help(&self, me: usize) {
        let helpers = self.helpers.wait();
        // If not all could be made.
        let Some(helper) = helpers.get(me - 1) else { return };
        let mut seen = 0;
        while let Some(epoch) = self.next(helper, seen) {
            seen = epoch;
            self.wake(me);
            if helper.takes(epoch) {
                let work = *lock(&self.work);
                // SAFETY: it has entered the call, which waits for what the last line here says.
                // A panic would leave the caller waiting; who wants to see it has caught it.
                let _ = catch_unwind(AssertUnwindSafe(|| unsafe { work.run(me) }));
                self.done.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    /// Waits for a call after `seen`; none if the team ends.
    fn next(&self, helper: &Helper, seen: usize) -> Option<usize> {
        let since = Instant::now();
        let mut rounds = 0u32;
        loop {
            let epoch = self.epoch.load(Ordering::SeqCst);
            if self.ended.load(Ordering::SeqCst) {
                return None;
            }
            if epoch != seen {
                return Some(epoch);
            }
            rounds = rounds.wrapping_add(1);
            if !rounds.is_multiple_of(64) || since.elapsed() < WATCH {
                std::hint::spin_loop();
                continue;
            }
            helper.asleep.store(true, Ordering::SeqCst);
            // Who begins a call from here on sees who sleeps.
            if self.epoch.load(Ordering::SeqCst) == seen && !self.ended.load(Ordering::SeqCst) {
                thread::park();
            }
            helper.asleep.store(false, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_come_once_and_never_after_the_call() {
        for threads in [1, 2, 3, 7] {
            let team = Team::new(threads).expect("threads");
            assert_eq!(team.threads(), threads);
            let (over, late) = (AtomicBool::new(false), AtomicUsize::new(0));
            for round in 0..300 {
                let calls: Vec<_> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
                over.store(false, Ordering::Release);
                team.run(&|me| {
                    if me > 0 {
                        thread::sleep(Duration::from_micros(20));
                    }
                    late.fetch_add(usize::from(over.load(Ordering::Acquire)), Ordering::Relaxed);
                    calls[me].fetch_add(1, Ordering::Relaxed);
                });
                over.store(true, Ordering::Release);
                let calls: Vec<_> = calls.iter().map(|calls| calls.load(Ordering::Relaxed)).collect();
                assert!(calls[0] == 1 && calls.iter().all(|&calls| calls <= 1), "{calls:?}");
                if round % 10 == 0 {
                    thread::sleep(WATCH);
                }
            }
            assert_eq!(late.into_inner(), 0);
        }
    }

    #[test]
    fn helpers_that_slept_come_back() {
        let team = Team::new(3).expect("threads");
        for _ in 0..20 {
            thread::sleep(2 * WATCH);
            let came = AtomicUsize::new(0);
            let since = Instant::now();
            // Each waits for all.
            team.run(&|_| {
                came.fetch_add(1, Ordering::AcqRel);
                while came.load(Ordering::Acquire) < 3 && since.elapsed() < Duration::from_secs(20) {
                    thread::yield_now();
                }
            });
            assert_eq!(came.into_inner(), 3);
        }
    }

    #[test]
    fn calls_at_the_same_time_and_calls_in_calls_work() {
        let team = Team::new(3).expect("threads");
        let callers = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        team.run(&|me| {
                            callers.fetch_add(usize::from(me == 0), Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(callers.into_inner(), 4 * 200);
        let inner = AtomicUsize::new(0);
        team.run(&|me| {
            if me == 0 {
                team.run(&|_| {
                    inner.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(inner.into_inner(), 1);
    }
}
