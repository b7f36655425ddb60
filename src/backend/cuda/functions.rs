//! Compiled kernels, cached per device.

use super::CudaStream;
use super::driver::Function;
use super::render::render;
use super::variant::Variant;
use crate::Result;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
        let mut missing: Vec<&Variant> = Vec::new();
        {
            let compiled = self.compiled();
            for variant in variants {
                if !compiled.contains_key(*variant) && !missing.contains(variant) {
                    missing.push(variant);
                }
            }
        }
        for together in missing.chunks(MOST_TOGETHER) {
            tracing::debug!(variants = ?together, "compiling");
            let unit = render(together, stream.device().limits().is_host);
            // Compiled without the lock: two threads may do it twice, but none waits for another's kernel.
            let functions = stream.compile(&unit.source, &unit.names)?;
            let mut compiled = self.compiled();
            for (variant, function) in together.iter().zip(functions) {
                compiled.entry((*variant).clone()).or_insert(function);
            }
        }
        let compiled = self.compiled();
        Ok(variants.iter().filter_map(|variant| compiled.get(*variant).cloned()).collect())
    }

    fn compiled(&self) -> MutexGuard<'_, HashMap<Variant, Function>> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
