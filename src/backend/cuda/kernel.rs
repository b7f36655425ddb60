//! Kernels without a device: their sources, and what a GPU would need to run them.

use super::driver::Nvrtc;
use super::fault::{CUDA, refused};
use super::fusion::After;
use super::render::render;
use super::variant::{Access, Flags, Style, Variant};
use crate::Result;
use std::path::Path;

/// A kernel, by everything that is constant when it is compiled. [`CudaDevice::listing`](super::CudaDevice::listing) says
/// which ones a call launches.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    variant: Variant,
}

/// NVRTC, for a GPU that need not be there.
pub struct Compiler {
    nvrtc: Nvrtc,
    arch: u32,
}

/// A kernel's machine code.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Compiled {
    /// A CUBIN.
    pub code: Vec<u8>,
    /// What it takes to run it.
    pub resources: Resources,
}

/// What a thread or a block of a kernel takes of a multiprocessor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resources {
    /// Threads of a block.
    pub threads: u32,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of a thread's numbers that registers had no room for.
    pub spills: u32,
    /// Bytes of a thread's stack frame.
    pub stack: u32,
    /// Bytes of shared memory of a block.
    pub shared: u32,
}

impl Kernel {
    pub(super) fn new(variant: Variant) -> Self {
        Kernel { variant }
    }

    pub(super) fn variant(&self) -> &Variant {
        &self.variant
    }

    /// The template's name, as in `norm_forward`.
    pub fn name(&self) -> &'static str {
        self.variant.entry.name()
    }

    /// What distinguishes it from others of its name, in a few words.
    pub fn describe(&self) -> String {
        let shape = &self.variant.shape;
        let dtype = self.variant.slots.first().map_or(self.variant.compute, |slot| slot.dtype);
        let mut words = vec![dtype.to_string()];
        if shape.style == Style::Column {
            words.push("rows side by side".into());
        }
        if shape.threads > 1 {
            words.push(format!("{} threads x {}", shape.threads, shape.width));
        }
        let kept = shape.steps * shape.lanes / shape.threads;
        if kept > 0 {
            words.push(format!("{kept} elements kept"));
        }
        let is_read = |name: &str| self.variant.slots.iter().any(|slot| slot.name == name);
        let Flags { before, after, scaling, .. } = self.variant.flags;
        if is_read("before") {
            words.push(format!("{} before", before.name()));
        }
        if after != After::None {
            words.push(format!("{} after", after.name()));
        }
        if let Some(scaling) = scaling {
            words.push(format!("codes under scales: {}", format!("{scaling:?}").to_lowercase()));
        }
        if shape.leaves > 1 {
            words.push(format!("{} leaves", shape.leaves));
        }
        if self.variant.problems > 1 {
            words.push(format!("{} problems", self.variant.problems));
        }
        if shape.cluster > 1 {
            words.push(format!("{} blocks", shape.cluster));
        }
        words.join(", ")
    }

    /// CUDA C++ with one entry.
    pub fn source(&self) -> String {
        render(&[&self.variant], false).source
    }

    /// Whether it reads or writes some tensor by 16 bytes at a time.
    pub fn is_wide(&self) -> bool {
        let is_wide = |dtype: crate::tensor::DType| dtype.size() as u32 * self.variant.shape.width >= 16;
        self.variant.slots.iter().any(|slot| slot.access == Access::Vector && is_wide(slot.dtype))
    }
}

impl Compiler {
    /// NVRTC where `nvrtc` says, or where [`CudaOptions`](super::CudaOptions) would find it, for a GPU of this compute
    /// capability.
    pub fn find(nvrtc: Option<&Path>, (major, minor): (u32, u32)) -> Result<Self> {
        let arch = 10 * major + minor;
        Ok(Compiler { nvrtc: Nvrtc::for_any_driver(nvrtc, arch)?, arch })
    }

    /// Compiles a kernel.
    pub fn compile(&self, kernel: &Kernel) -> Result<Compiled> {
        let (code, log) = self.nvrtc.compile_for(&kernel.source(), self.arch)?;
        let what = || format!("to say what {} takes", kernel.name());
        let number = |unit: &str| before(&log, unit).ok_or_else(|| refused(CUDA, what(), &log));
        let resources = Resources {
            threads: kernel.variant.shape.block(),
            registers: number(" registers")?,
            spills: number(" bytes spill stores")?.max(number(" bytes spill loads")?),
            stack: number(" bytes stack frame")?,
            shared: kernel.variant.shared_bytes(),
        };
        Ok(Compiled { code, resources })
    }
}

/// The number that stands before `unit`.
fn before(log: &str, unit: &str) -> Option<u32> {
    let text = &log[..log.find(unit)?];
    text.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_the_compilers_words() {
        let log = "ptxas .     0 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads\n\
                   ptxas info    : Used 72 registers, used 1 barriers";
        assert_eq!(before(log, " registers"), Some(72));
        assert_eq!(before(log, " bytes stack frame"), Some(0));
        assert_eq!(before(log, " bytes spill loads"), Some(16));
        assert_eq!(before(log, " bytes smem"), None);
    }
}
