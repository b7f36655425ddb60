"""The breakages that tools/mutate.py applies, one at a time.

Each names a file, a text that occurs in it exactly once, what to put in its place, and the arguments of the
`cargo test` commands of which one must then fail. Prefer the narrowest test: it also says which promise is at stake.
"""

from __future__ import annotations

from typing import NamedTuple

CPU_ROW = "src/backend/cpu/row.rs"
CPU_LANES = "src/backend/cpu/lanes.rs"
CPU_AFFINE = "src/backend/cpu/affine.rs"
CPU_MATH = "src/backend/cpu/math.rs"
CPU_POINTWISE = "src/backend/cpu/pointwise.rs"

NUMBERS = "--features check --test numbers"
RANGE = "--features check --test range"
DETERMINISM = "--features check --test determinism"


class Mutation(NamedTuple):
    """A breakage."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = [
    Mutation("cpu: eps dropped", CPU_ROW,
             "d = v + constants.eps.scale(-2 * exponent);",
             "d = v;",
             (NUMBERS,)),
    Mutation("cpu: eps inside for outside", CPU_ROW,
             "if constants.outside {\n        let (q, eps)",
             "if false && constants.outside {\n        let (q, eps)",
             (NUMBERS,)),
    Mutation("cpu: one-pass variance", CPU_ROW,
             "            [e * e]\n        })\n    });\n    let v = sum * inv_prefix;",
             "            [if MOMENTS { x * x } else { e * e }]\n        })\n    });\n"
             "    let v = sum * inv_prefix - if MOMENTS { s.mean * s.mean } else { F::ZERO };",
             (NUMBERS,)),
    Mutation("cpu: no correction of the mean", CPU_ROW,
             "s.correction = sum * inv_prefix;",
             "s.correction = sum * F::ZERO;",
             (NUMBERS,)),
    Mutation("cpu: rows out of range not scaled", CPU_ROW,
             "if d >= low && d <= high {",
             "if d >= low || d <= high {",
             (RANGE,)),
    Mutation("cpu: prefix off by one", CPU_ROW,
             "&row[..row.len().min(prefix.saturating_sub(leaf * LEAF))]",
             "&row[..row.len().min((prefix - 1).saturating_sub(leaf * LEAF))]",
             (NUMBERS,)),
    Mutation("cpu: tail off by one", CPU_LANES,
             "for lane in 0..len.saturating_sub(at).min(BLOCK) {",
             "for lane in 0..len.saturating_sub(at + 1).min(BLOCK) {",
             ("--lib backend::cpu",)),
    Mutation("cpu: lanes halved in another order", CPU_LANES,
             "lanes[lane] += lanes[lane + half];",
             "lanes[lane] = lanes[2 * lane] + lanes[2 * lane + 1];",
             ("--lib backend::cpu",)),
    Mutation("cpu: leaves added in another order", CPU_LANES,
             "for index in 0..cols.div_ceil(LEAF) {\n        for",
             "for index in (0..cols.div_ceil(LEAF)).rev() {\n        for",
             ("--lib backend::cpu",)),
    Mutation("cpu: chunks added in another order", CPU_AFFINE,
             "for chunk in partials.chunks_exact(stride.max(1)) {",
             "for chunk in partials.chunks_exact(stride.max(1)).rev() {",
             (DETERMINISM,)),
    Mutation("cpu: row leaf not flushed", CPU_AFFINE,
             "if self.first && index > 0 {",
             "if self.first && index > ROW_LEAF {",
             (NUMBERS,)),
    Mutation("cpu: backward forgets the mean", CPU_ROW,
             "*dx = rstd * ((ghat - c1) - hat * c2);",
             "*dx = rstd * (ghat - hat * c2);",
             (NUMBERS,)),
    Mutation("cpu: tanh without its second Newton step", CPU_MATH,
             "for _ in 0..F::NEWTON_STEPS {",
             "for _ in 1..F::NEWTON_STEPS {",
             ("--lib backend::cpu",)),
]
