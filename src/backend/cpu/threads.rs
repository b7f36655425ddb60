//! On which threads tasks run.

use super::pieces::Pieces;
#[cfg(feature = "rayon")]
use super::team::Team;
use std::fmt::Debug;
use std::sync::Arc;
#[cfg(feature = "rayon")]
use std::sync::{Mutex, PoisonError};

/// Threads of an engine's own, for [`Cpu::with_pool`](super::Cpu::with_pool).
///
/// ```
/// use normkit::backend::cpu::{Cpu, Pool};
///
/// /// Threads that are made for each call: the simplest pool, and the slowest.
/// #[derive(Debug)]
/// struct Fresh;
///
/// impl Pool for Fresh {
///     fn threads(&self) -> usize {
///         2
///     }
///     fn run(&self, work: &(dyn Fn(usize) + Sync)) {
///         std::thread::scope(|scope| {
///             scope.spawn(|| work(1));
///             work(0);
///         });
///     }
/// }
/// let cpu = Cpu::default().with_pool(std::sync::Arc::new(Fresh));
/// ```
pub trait Pool: Debug + Send + Sync {
    /// How many threads there are, with the one that calls.
    fn threads(&self) -> usize;

    /// Calls `work(i)` for each `i` below [`threads`](Pool::threads), on one thread each, and returns when all calls have. The
    /// same number should mean the same thread in call after call: it finds in its caches what it wrote. `work` takes no harm from
    /// a number that is left out, or that comes late or twice: the others do what is left. It does not panic.
    fn run(&self, work: &(dyn Fn(usize) + Sync));
}

/// Where tasks run.
#[derive(Debug, Clone)]
pub(super) enum Threads {
    /// On the calling thread.
    Caller,
    /// On the rayon pool that the caller is in; outside of any on the calling thread and the process' team.
    #[cfg(feature = "rayon")]
    Ambient,
    /// On the calling thread and others.
    Pool(Arc<dyn Pool>),
}

impl Threads {
    /// Those of a caller that says nothing.
    pub(super) fn usual() -> Self {
        #[cfg(feature = "rayon")]
        let threads = Threads::Ambient;
        #[cfg(not(feature = "rayon"))]
        let threads = Threads::Caller;
        threads
    }

    pub(super) fn count(&self) -> usize {
        match self {
            Threads::Caller => 1,
            #[cfg(feature = "rayon")]
            Threads::Ambient => rayon::current_num_threads(),
            Threads::Pool(pool) => pool.threads().max(1),
        }
    }

    /// Runs `task(0)` to `task(count - 1)`, in any order.
    pub(super) fn for_each(&self, count: usize, task: impl Fn(usize) + Send + Sync) {
        match self {
            Threads::Caller => (0..count).for_each(task),
            #[cfg(feature = "rayon")]
            Threads::Ambient if rayon::current_thread_index().is_some() => {
                use rayon::prelude::*;
                (0..count).into_par_iter().for_each(task);
            }
            #[cfg(feature = "rayon")]
            Threads::Ambient => match team_of_process() {
                Some(team) => Pieces::new(count, team.threads()).run(&*team, task),
                None => (0..count).for_each(task),
            },
            Threads::Pool(pool) => Pieces::new(count, pool.threads()).run(&**pool, task),
        }
    }
}

/// As many threads as rayon's global pool has, made on first use; none if the system gives none. A forked process inherits no
/// threads, and makes its own.
#[cfg(feature = "rayon")]
fn team_of_process() -> Option<Arc<Team>> {
    static TEAM: Mutex<Option<(u32, Option<Arc<Team>>)>> = Mutex::new(None);
    let process = std::process::id();
    let mut team = TEAM.lock().unwrap_or_else(PoisonError::into_inner);
    match &*team {
        Some((owner, team)) if *owner == process => team.clone(),
        _ => {
            let made = Team::new(rayon::current_num_threads()).ok().map(Arc::new);
            *team = Some((process, made.clone()));
            made
        }
    }
}
