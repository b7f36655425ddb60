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

WGPU_ROW = "shaders/row_forward.wgsl"
WGPU_ROW_BACKWARD = "shaders/row_backward.wgsl"
WGPU_SUM = "shaders/row.wgsl"
WGPU_FOLD = "shaders/fold_workgroup.wgsl"
WGPU_AFFINE = "shaders/affine.wgsl"
WGPU_FINISH = "shaders/finish.wgsl"

CPU_UNITS = "--lib backend::cpu"
CPU_NUMBERS = "--features check --test numbers"
CPU_RANGE = "--features check --test range"
# Four small cases whose bits are compared with the CPU's, with subgroups and without: few shaders to compile again.
WGPU_SAMPLE = "--features check,wgpu --test determinism a_sample_on_wgpu"
WGPU_BARRIERS = "--features check,wgpu --test determinism a_sample_without_subgroups"


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
             (CPU_NUMBERS,)),
    Mutation("cpu: eps inside for outside", CPU_ROW,
             "if constants.outside {\n        let (q, eps)",
             "if false && constants.outside {\n        let (q, eps)",
             (CPU_NUMBERS,)),
    Mutation("cpu: one-pass variance", CPU_ROW,
             "        [e * e]\n",
             "        [if MOMENTS { x * x - self.0.mean * self.0.mean } else { e * e }]\n",
             (CPU_NUMBERS,)),
    Mutation("cpu: no correction of the mean", CPU_ROW,
             "s.correction = difference(x, constants, cols, s.mean) * inv_prefix;",
             "s.correction = F::ZERO;",
             (CPU_NUMBERS,)),
    Mutation("cpu: rows out of range not scaled", CPU_ROW,
             "if d >= low && d <= high {",
             "if d >= low || d <= high {",
             (CPU_RANGE,)),
    Mutation("cpu: prefix off by one", CPU_ROW,
             "&row[..row.len().min(prefix.saturating_sub(leaf * LEAF))]",
             "&row[..row.len().min((prefix - 1).saturating_sub(leaf * LEAF))]",
             (CPU_NUMBERS,)),
    Mutation("cpu: tail off by one", CPU_LANES,
             "sums[m][lane] = if lane < rest { sum }",
             "sums[m][lane] = if lane + 1 < rest { sum }",
             (CPU_UNITS,)),
    Mutation("cpu: lanes halved in another order", CPU_LANES,
             "lanes[lane] += lanes[lane + half];",
             "lanes[lane] = lanes[2 * lane] + lanes[2 * lane + 1];",
             (CPU_UNITS,)),
    Mutation("cpu: leaves added in another order", CPU_ROW,
             "    for leaf in 0..prefix.div_ceil(LEAF) {\n        let part",
             "    for leaf in (0..prefix.div_ceil(LEAF)).rev() {\n        let part",
             (WGPU_SAMPLE,)),
    Mutation("cpu: chunks added in another order", CPU_AFFINE,
             "for (count, chunk) in partials.chunks_exact(stride.max(1)).enumerate() {",
             "for (count, chunk) in partials.chunks_exact(stride.max(1)).rev().enumerate() {",
             (CPU_UNITS,)),
    Mutation("cpu: row leaf not flushed", CPU_AFFINE,
             "        if index > 0 {\n            add_all",
             "        if index > ROW_LEAF {\n            add_all",
             (CPU_NUMBERS,)),
    Mutation("cpu: backward forgets the mean", "src/backend/cpu/elementwise.rs",
             "*dx = rstd * ((ghat - c1) - hat * c2);",
             "*dx = rstd * (ghat - hat * c2);",
             (CPU_NUMBERS,)),
    Mutation("cpu: tanh without its second Newton step", CPU_MATH,
             "for _ in 0..F::NEWTON_STEPS {",
             "for _ in 1..F::NEWTON_STEPS {",
             (CPU_UNITS,)),
    Mutation("wgpu: eps dropped", WGPU_ROW,
             "divisor = opaque(statistic + scale(params.eps, -2 * exponent));",
             "divisor = statistic;",
             (WGPU_SAMPLE,)),
    Mutation("wgpu: no correction of the mean", WGPU_ROW,
             "correction = opaque(row_sum(CENTRED, kept) * params.inv_k);",
             "correction = 0.0;",
             (WGPU_SAMPLE,)),
    Mutation("wgpu: one-pass variance", WGPU_ROW,
             "    return inside(col, opaque4(e * e));\n}",
             "    return inside(col, select(e * e, x * x - vec4<f32>(mean * mean), vec4<bool>(MOMENTS)));\n}",
             (WGPU_SAMPLE,)),
    Mutation("wgpu: rows out of range not scaled", WGPU_ROW,
             "let again = usable && !is_regular();",
             "let again = usable && !is_regular() && params.eps < 0.0;",
             (WGPU_SAMPLE,)),
    Mutation("wgpu: tail mask off by one", WGPU_SUM,
             "vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(end));",
             "vec4<u32>(0u, 1u, 2u, 3u) <= vec4<u32>(end));",
             (WGPU_SAMPLE,)),
    Mutation("wgpu: lanes halved in another order", WGPU_FOLD,
             "return (four.x + four.z) + (four.y + four.w);",
             "return (four.x + four.y) + (four.z + four.w);",
             (WGPU_BARRIERS,)),
    Mutation("wgpu: a shuffle from the wrong thread", "shaders/fold_subgroup.wgsl",
             "subgroupShuffleXor(select(two.y, two.x, odd), QUARTER);",
             "subgroupShuffleXor(select(two.y, two.x, odd), HALF);",
             (WGPU_SAMPLE,)),
    Mutation("wgpu: leaves added in another order", WGPU_SUM,
             "push(leaf, leaf_sum(which, false, leaf));",
             "push(leaf, leaf_sum(which, false, params.leaves - 1u - leaf));",
             (WGPU_SAMPLE,)),
    Mutation("wgpu: a barrier removed", WGPU_FOLD,
             "    shared_sums[lane] = x;\n    workgroupBarrier();",
             "    shared_sums[lane] = x;",
             (WGPU_BARRIERS,)),
    Mutation("wgpu: backward forgets the mean", WGPU_ROW_BACKWARD,
             "d = opaque4(opaque4(g - c.c1) - product);",
             "d = opaque4(g - product);",
             (WGPU_SAMPLE,)),
    Mutation("wgpu: row leaf off by one", WGPU_AFFINE,
             "for (var row = leaf; row < min(leaf + ROW_LEAF, end); row++) {",
             "for (var row = leaf; row < min(leaf + ROW_LEAF - 1u, end); row++) {",
             (WGPU_SAMPLE,)),
    Mutation("wgpu: chunks added in another order", WGPU_FINISH,
             "var sum = load_partial(params.parameter, i);",
             "var sum = load_partial(params.parameter, params.chunks - 1u - i);",
             (WGPU_SAMPLE,)),
]
