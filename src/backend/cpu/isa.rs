//! The CPU's instruction sets: one kernel body, compiled for each, chosen at run time.

use super::simd::{Arrays, Simd};
#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::{Error, Result};

/// An instruction set that the kernels are compiled for. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// What every CPU of the target has: SSE2 on x86-64, NEON on aarch64.
    Portable,
    /// AVX2 (x86-64-v3).
    Avx2,
    /// AVX-512 (x86-64-v4).
    Avx512,
    /// NEON.
    Neon,
}

impl Isa {
    /// Those that this machine can run, the preferred one first.
    pub fn available() -> Vec<Isa> {
        let all = [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];
        all.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// The preferred one.
    pub fn best() -> Isa {
        [Isa::Avx512, Isa::Avx2, Isa::Neon]
            .into_iter()
            .find(|isa| isa.is_available())
            .unwrap_or(Isa::Portable)
    }

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::has_avx2(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::has_avx512(),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// The name, as in `avx2`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
        }
    }

    /// Runs `operation`, compiled for this instruction set if the machine has it, else for the portable one.
    #[inline]
    pub(super) fn run<O: Operation>(self, operation: O) -> O::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the CPU has the instructions.
            Isa::Avx2 if x86::has_avx2() => unsafe { x86::avx2(operation) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx512 if x86::has_avx512() => unsafe { x86::avx512(operation) },
            // NEON is what every aarch64 target compiles for.
            _ => operation.call::<Arrays>(),
        }
    }
}

/// What [`Isa::run`] runs: a closure that can be compiled for an instruction set. All that it calls has to be
/// `#[inline(always)]`, for only so does the instruction set reach it.
pub(super) trait Operation {
    type Output;
    fn call<S: Simd>(self) -> Self::Output;
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Isa {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Neon]
            .into_iter()
            .find(|isa| isa.name() == s)
            .ok_or_else(|| Error::argument("isa", "one of portable, avx2, avx512, neon", format!("{s:?}")))
    }
}
