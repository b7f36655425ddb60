"""The breakages that tools/mutate.py applies, one at a time.

Prefer the narrowest test: it also says which promise is at stake.
"""

from __future__ import annotations

from pathlib import Path

from . import cpu, cuda, oracle, wgpu
from .mutation import Mutation

__all__ = ["MUTATIONS", "Mutation"]

MUTATIONS = [*oracle.MUTATIONS, *cpu.MUTATIONS, *wgpu.MUTATIONS, *cuda.MUTATIONS]

# What no test here can run, none can notice.
CPU_INFO = Path("/proc/cpuinfo")
if not CPU_INFO.exists() or "avx512f" not in CPU_INFO.read_text():
    MUTATIONS = [mutation for mutation in MUTATIONS if mutation.file != cpu.CPU_AVX512]
