//! PyTorch's threads. After an operator they watch for the next one for milliseconds and keep the processors busy: threads of our
//! own would have to wait for them, and they for ours.

use libloading::os::unix::{Library, Symbol};
use normkit::backend::cpu::{Cpu, Pool};
use std::ffi::{c_int, c_uint, c_void};
use std::sync::{Arc, OnceLock};

/// The OpenMP runtime of the process, by GNU's interface, which those of LLVM and Intel have too. As many threads work as
/// `torch.set_num_threads` has asked for.
#[derive(Debug)]
struct OpenMp {
    parallel: Symbol<unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint)>,
    thread: Symbol<unsafe extern "C" fn() -> c_int>,
    most: Symbol<unsafe extern "C" fn() -> c_int>,
}

/// The process that imported the package.
static HOME: OnceLock<u32> = OnceLock::new();

/// Remembers the process that imports the package.
pub(crate) fn settle() {
    let _ = HOME.set(std::process::id());
}

/// The CPU on PyTorch's threads if there are any, else on the package's own.
pub(crate) fn cpu() -> Cpu {
    static FOUND: OnceLock<Option<Cpu>> = OnceLock::new();
    // A forked child inherits none of the runtime's threads, and would wait for them for ever.
    if HOME.get() != Some(&std::process::id()) {
        return Cpu::default();
    }
    let find = || OpenMp::find().map(|runtime| Cpu::default().with_pool(Arc::new(runtime)));
    FOUND.get_or_init(find).clone().unwrap_or_default()
}

impl OpenMp {
    fn find() -> Option<Self> {
        let process = Library::this();
        // SAFETY: the names are those of the interface, and the types are theirs; the library stays, since PyTorch's code
        // uses it.
        unsafe {
            Some(OpenMp {
                parallel: process.get(b"GOMP_parallel\0").ok()?,
                thread: process.get(b"omp_get_thread_num\0").ok()?,
                most: process.get(b"omp_get_max_threads\0").ok()?,
            })
        }
    }
}

/// What the threads of a region are given.
struct Region<'a> {
    runtime: &'a OpenMp,
    work: &'a (dyn Fn(usize) + Sync),
}

/// # Safety
/// `region` is a `Region` that lives until all threads are through.
unsafe extern "C" fn enter(region: *mut c_void) {
    // SAFETY: as the caller says; the function takes nothing.
    let (region, thread) = unsafe {
        let region = &*region.cast_const().cast::<Region<'_>>();
        (region, (region.runtime.thread)())
    };
    (region.work)(usize::try_from(thread).unwrap_or(0));
}

impl Pool for OpenMp {
    fn threads(&self) -> usize {
        // SAFETY: the function takes nothing.
        usize::try_from(unsafe { (self.most)() }).unwrap_or(1)
    }

    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        let mut region = Region { runtime: self, work };
        let region: *mut Region<'_> = &mut region;
        // SAFETY: the region lives until the function returns, when all threads are through.
        unsafe { (self.parallel)(enter, region.cast(), 0, 0) };
    }
}
