//! Compiled kernels, cached per device.

use super::driver::Function;
use super::render::render;
use super::variant::Variant;
use super::{CudaDevice, CudaStream};
use crate::Result;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// The most variants that are compiled together: what all kernels share then costs little, and no file takes long.
const MOST_TOGETHER: usize = 24;

/// The kernels that a device has compiled.
#[derive(Default)]
pub(super) struct Functions {
    compiled: Mutex<HashMap<Variant, Function>>,
}

impl Functions {
    /// The variants' kernels, in their order; those that are asked for the first time are compiled now, together.
    pub(super) fn get(&self, stream: &CudaStream<'_>, variants: &[&Variant]) -> Result<Vec<Function>> {
        let missing = self.missing(variants);
        if !missing.is_empty() {
            stream.check_may_compile()?;
        }
        for together in missing.chunks(MOST_TOGETHER) {
            self.compile(stream.device(), together)?;
        }
        let compiled = self.compiled();
        Ok(variants.iter().filter_map(|variant| compiled.get(*variant).cloned()).collect())
    }

    /// Compiles those that have not been compiled yet, on all of the machine's cores.
    pub(super) fn compile_all(&self, device: &CudaDevice, variants: &[&Variant]) -> Result<()> {
        let missing = self.missing(variants);
        let units = Mutex::new(missing.chunks(MOST_TOGETHER));
        let next = || units.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || std::iter::from_fn(next).try_for_each(|together| self.compile(device, together));
        let threads = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            let of_others = others.into_iter().map(|other| other.join().unwrap_or_else(resume));
            of_others.fold(own, Result::and)
        })
    }

    /// Those that have not been compiled, each once.
    fn missing<'v>(&self, variants: &[&'v Variant]) -> Vec<&'v Variant> {
        let compiled = self.compiled();
        let mut missing: Vec<&Variant> = Vec::new();
        for variant in variants {
            if !compiled.contains_key(*variant) && !missing.contains(variant) {
                missing.push(variant);
            }
        }
        missing
    }

    fn compile(&self, device: &CudaDevice, together: &[&Variant]) -> Result<()> {
        tracing::debug!(variants = ?together, "compiling");
        let unit = render(together, device.limits().is_host);
        // Compiled without the lock: two threads may do it twice, but none waits for another's kernel.
        let functions = device.compile(&unit.source, &unit.names)?;
        let mut compiled = self.compiled();
        for (variant, function) in together.iter().zip(functions) {
            compiled.entry((*variant).clone()).or_insert(function);
        }
        Ok(())
    }

    fn compiled(&self) -> MutexGuard<'_, HashMap<Variant, Function>> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Goes on with another thread's panic.
fn resume(panic: Box<dyn std::any::Any + Send>) -> Result<()> {
    std::panic::resume_unwind(panic)
}
