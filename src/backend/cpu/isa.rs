//! The CPU's instruction sets: one kernel body, compiled for each, chosen at run time.

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
            Isa::Avx2 => pulp::x86::V3::is_available(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => pulp::x86::V4::is_available(),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => pulp::aarch64::Neon::is_available(),
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

    /// Runs `kernel`, compiled for this instruction set if the machine has it, else for the portable one.
    #[inline]
    pub(super) fn run<K: pulp::NullaryFnOnce>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => match pulp::x86::V3::try_new() {
                Some(v3) => v3.vectorize(kernel),
                None => kernel.call(),
            },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => match pulp::x86::V4::try_new() {
                Some(v4) => v4.vectorize(kernel),
                None => kernel.call(),
            },
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => match pulp::aarch64::Neon::try_new() {
                Some(neon) => neon.vectorize(kernel),
                None => kernel.call(),
            },
            #[allow(unreachable_patterns)]
            _ => kernel.call(),
        }
    }
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
