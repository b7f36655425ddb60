"""The breakages that tools/mutate.py applies, one at a time.

Each names a file, a text that occurs in it exactly once, what to put in its place, and the arguments of the
`cargo test` commands of which one must then fail. Prefer the narrowest test: it also says which promise is at stake.
"""

from __future__ import annotations

from typing import NamedTuple

CPU_ROW = "src/backend/cpu/row.rs"
CPU_LEAF = "src/backend/cpu/leaf.rs"
CPU_STATISTICS = "src/backend/cpu/statistics.rs"
CPU_LINE_SUMS = "src/backend/cpu/line_sums.rs"
CPU_USUAL = "src/backend/cpu/usual.rs"
CPU_USUAL_BACKWARD = "src/backend/cpu/usual_backward.rs"
CPU_COLUMN = "src/backend/cpu/column.rs"
CPU_SPLIT = "src/backend/cpu/split.rs"
CPU_LANES = "src/backend/cpu/lanes.rs"
CPU_AFFINE = "src/backend/cpu/affine.rs"
CPU_SIMD = "src/backend/cpu/simd.rs"
CPU_X86 = "src/backend/cpu/x86.rs"
CPU_TANH = "src/backend/cpu/tanh.rs"
CPU_FUSION = "src/backend/cpu/fusion.rs"
CPU_FUSED = "src/backend/cpu/fused.rs"
CPU_FUSED_BACKWARD = "src/backend/cpu/fused_backward.rs"

WGPU_MOMENTS = "shaders/moments.wgsl"
WGPU_STATISTICS = "shaders/statistics.wgsl"
WGPU_FORWARD = "shaders/norm_forward.wgsl"
WGPU_BACKWARD = "shaders/norm_backward.wgsl"
WGPU_LEAF_ROW = "shaders/leaf_row.wgsl"
WGPU_LEAF_COLUMN = "shaders/leaf_column.wgsl"
WGPU_FOLD = "shaders/fold_workgroup.wgsl"
WGPU_AFFINE = "shaders/affine.wgsl"
WGPU_FINISH = "shaders/finish.wgsl"
WGPU_VALUE = "shaders/value.wgsl"
WGPU_SIGMA = "shaders/sigma.wgsl"

CUDA_LEAF = "kernels/leaf.cuh"
CUDA_MOMENTS = "kernels/moments.cuh"
CUDA_STATISTICS = "kernels/statistics.cuh"
CUDA_FORWARD = "kernels/norm_forward.cu"
CUDA_BACKWARD = "kernels/norm_backward.cu"
CUDA_FUSED = "kernels/norm_backward_fused.cu"
CUDA_PAIRWISE = "kernels/pairwise.cuh"
CUDA_COLUMNS = "kernels/columns.cuh"
CUDA_TANH = "kernels/tanh.cuh"
CUDA_FUSION = "kernels/fusion.cuh"
CUDA_SIGMOID = "kernels/sigmoid.cuh"
CUDA_SUMS = "kernels/sums.cu"

CPU_SCHEDULES = "--test cpu_schedules"
CPU_UNITS = "--lib backend::cpu"
CPU_NUMBERS = "--features check --test numbers"
CPU_AROUND = "--features check --test fused"
CPU_RANGE = "--features check --test range"
# Four small cases whose bits are compared with the CPU's, with subgroups and without: few shaders to compile again.
WGPU_SAMPLE = "--features check,wgpu --test determinism a_sample_on_wgpu"
WGPU_BARRIERS = "--features check,wgpu --test determinism a_sample_without_subgroups"
# Forced schedules, compared likewise.
WGPU_BATCH = "--features check,wgpu --test wgpu_schedules batch_norm"
WGPU_MASKS = "--features check,wgpu --test wgpu_schedules masks"
WGPU_RANGE = "--features check,wgpu --test wgpu_schedules out_of_range"
WGPU_LONG = "--features check,wgpu --test wgpu_schedules long_rows"
WGPU_FUSED_ROWS = "--features check,wgpu --test wgpu_schedules fusions_of_rows"
WGPU_FUSED_RANGE = "--features check,wgpu --test wgpu_schedules fusions_out_of_range"
WGPU_ELEMENTWISE = "--features check,wgpu --test wgpu_schedules elementwise"
# Every forced geometry on the host driver, compared with the CPU's bits.
CUDA_MASKS = "--features check,cuda --test cuda_schedules masks"
CUDA_RANGE = "--features check,cuda --test cuda_schedules out_of_range"
CUDA_LONG = "--features check,cuda --test cuda_schedules long_rows"
CUDA_PARAMETERS = "--features check,cuda --test cuda_schedules parameters_of_columns"
CUDA_BATCH = "--features check,cuda --test cuda_schedules batch_norm"
CUDA_ELEMENTWISE = "--features check,cuda --test cuda_schedules elementwise"
CUDA_FUSIONS = "--features check,cuda --test cuda_schedules fusions"


class Mutation(NamedTuple):
    """A breakage."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = [
    Mutation("cpu: eps dropped", CPU_STATISTICS,
             "F::rsqrt_inside(m.m2, m.count, c.eps.scale(-2 * exponent))",
             "F::rsqrt_inside(m.m2, m.count, F::ZERO)",
             (CPU_NUMBERS,)),
    Mutation("cpu: eps inside for outside", CPU_STATISTICS,
             "let outside = c.eps_position == EpsPosition::Outside;",
             "let outside = false;",
             (CPU_NUMBERS,)),
    Mutation("cpu: one-pass variance", CPU_LEAF,
             "- Block::<S, F>::splat(self.shift);",
             "- Block::<S, F>::splat(F::ZERO * self.shift);",
             (CPU_UNITS,)),
    Mutation("cpu: no correction of the mean", CPU_LEAF,
             "let (mean, correction) = two_sum(shift, correction);",
             "let (mean, correction) = (shift + correction, F::ZERO);",
             (CPU_UNITS,)),
    Mutation("cpu: no second round for a guess that is far off", CPU_LEAF,
             "let is_close = (F::FOUR * p).magnitude() <= s2.magnitude();",
             "let is_close = p.magnitude() <= s2.magnitude() || p.magnitude() > s2.magnitude();",
             (CPU_UNITS,)),
    Mutation("cpu: rows out of range not scaled", CPU_LEAF,
             "    if F::is_special(largest) || exponent == 0 {",
             "    if F::is_special(largest) || exponent != F::NONE {",
             (CPU_UNITS, CPU_RANGE)),
    Mutation("cpu: prefix off by one", CPU_ROW,
             "        let seen = len.min(c.prefix.saturating_sub(at));\n        if let Some",
             "        let seen = len.min((c.prefix - 1).saturating_sub(at));\n        if let Some",
             (CPU_NUMBERS,)),
    Mutation("cpu: tail off by one", CPU_LANES,
             "*sum = (*sum + terms).first(rest, *sum);",
             "*sum = (*sum + terms).first(rest - 1, *sum);",
             (CPU_UNITS,)),
    Mutation("cpu: lanes halved in another order", CPU_SIMD,
             "*half = lanes[i] + lanes[i + BLOCK / 2];",
             "*half = lanes[2 * i] + lanes[2 * i + 1];",
             (CPU_UNITS,)),
    Mutation("cpu: AVX2's lanes halved in another order", CPU_X86,
             "let eight = _mm256_add_ps(_mm256_add_ps(a, c), _mm256_add_ps(b, d));",
             "let eight = _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));",
             (CPU_UNITS,)),
    Mutation("cpu: AVX2 takes one number too few", CPU_X86,
             "let skipped = BLOCK - count.min(BLOCK);",
             "let skipped = BLOCK - count.min(BLOCK - 1);",
             (CPU_UNITS,)),
    Mutation("cpu: AVX2 rounds halves up", CPU_X86,
             "_mm256_set1_epi32(0x7FFF)",
             "_mm256_set1_epi32(0x8000)",
             (CPU_UNITS,)),
    Mutation("cpu: blocks of lanes in another order", CPU_LANES,
             "let sums = &mut sums[block % sums.len()];",
             "let sums = &mut sums[block / 2 % sums.len()];",
             (CPU_UNITS,)),
    Mutation("cpu: NaN among the parameters taken for a number", CPU_USUAL,
             "source.dtype() != T::DTYPE && T::DTYPE != F::DTYPE",
             "source.dtype() == T::DTYPE && T::DTYPE != F::DTYPE",
             (CPU_SCHEDULES,)),
    Mutation("cpu: rows brought together without the last of a tile", "src/backend/cpu/gathered.rs",
             "across: SIDE.min(across - a),",
             "across: (SIDE - 1).min(across - a),",
             (CPU_UNITS,)),
    Mutation("cpu: 16-bit leaves out of range taken as they are", "src/backend/cpu/direct.rs",
             "if !round.is_close || !is_regular(c.measure, round.m2, inv_count) {",
             "if !round.is_close {",
             (CPU_SCHEDULES, CPU_RANGE)),
    Mutation("cpu: leaves merged in another order", CPU_ROW,
             "runs.push_by(self.leaf_moments(row, leaf), |a, b| a.merged(measure, b));",
             "runs.push_by(self.leaf_moments(row, cols.div_ceil(LEAF) - 1 - leaf), |a, b| a.merged(measure, b));",
             (CPU_UNITS,)),
    Mutation("cpu: the mean's low part forgotten in merging", CPU_STATISTICS,
             "let d = (b.mean - a.mean) + (b.correction - a.correction);",
             "let d = b.mean - a.mean;",
             (CPU_UNITS,)),
    Mutation("cpu: mask ignored by the sums of gradients", "src/backend/cpu/leaf_backward.rs",
             "masked::<S, WHOLE, F, 2>(*mask, at, len, [ghat, ghat * hat])",
             "masked::<S, WHOLE, F, 2>(None, at, len, [ghat, ghat * hat])",
             (CPU_NUMBERS,)),
    Mutation("cpu: mask ignored by the moments", CPU_LEAF,
             "masked::<S, WHOLE, F, 2>(self.mask, at, len, [d, d * d])",
             "masked::<S, WHOLE, F, 2>(None, at, len, [d, d * d])",
             (CPU_NUMBERS,)),
    Mutation("cpu: usual rows without the mean's low part", CPU_USUAL,
             "let (mean, correction) = two_sum(round.shift, round.correction);",
             "let (mean, correction) = (round.shift + round.correction, F::ZERO);",
             (CPU_SCHEDULES, CPU_NUMBERS)),
    Mutation("cpu: rows far from their first guess taken as usual", CPU_USUAL,
             "if !round.is_close || !is_regular(c.measure, round.m2, inv) {",
             "if !is_regular(c.measure, round.m2, inv) {",
             (CPU_SCHEDULES, CPU_NUMBERS)),
    Mutation("cpu: rows out of range taken as usual", CPU_USUAL,
             "if !round.is_close || !is_regular(c.measure, round.m2, inv) {",
             "if !round.is_close {",
             (CPU_SCHEDULES, CPU_RANGE)),
    Mutation("cpu: usual gradients out of range", CPU_USUAL_BACKWARD,
             "if !is_regular([s1, s2], count) {",
             "if s1.abs() > F::SUM_LIMIT {",
             (CPU_SCHEDULES, CPU_RANGE)),
    Mutation("cpu: usual rows begin a row leaf once too often", CPU_USUAL_BACKWARD,
             "if (first + i).is_multiple_of(rows.beside.len()) {",
             "if i == 0 && (first + i).is_multiple_of(rows.beside.len()) {",
             (CPU_SCHEDULES, CPU_NUMBERS)),
    Mutation("cpu: gradients of the input in the parameters' order of axes", "src/backend/cpu/norm.rs",
             "launch::<F>(spec, operands, &order(), [true, wants_params], workspace, cpu)",
             "launch::<F>(spec, operands, &split, [true, wants_params], workspace, cpu)",
             (CPU_NUMBERS,)),
    Mutation("cpu: halves written past the caches exchanged", "src/backend/cpu/memory.rs",
             "_mm_stream_ps(to.cast(), _mm256_castps256_ps128(both));",
             "_mm_stream_ps(to.cast(), _mm256_extractf128_ps::<1>(both));",
             (CPU_SCHEDULES,)),
    Mutation("cpu: column's lanes in another order", CPU_LINE_SUMS,
             "let sums = &mut sums[col % lanes * M * pitch..][..M * pitch];",
             "let sums = &mut sums[(lanes - 1 - col % lanes) * M * pitch..][..M * pitch];",
             (CPU_SCHEDULES,)),
    Mutation("cpu: column's lanes not begun", CPU_LINE_SUMS,
             "let begins = col < lanes;",
             "let begins = col == 0;",
             (CPU_SCHEDULES,)),
    Mutation("cpu: column's last row forgotten", CPU_COLUMN,
             "    for i in 0..rows.count {\n        let is_regular",
             "    for i in 0..rows.count - 1 {\n        let is_regular",
             (CPU_SCHEDULES,)),
    Mutation("cpu: column without its second round", CPU_COLUMN,
             "                    close[i] = of_row.is_close;",
             "                    close[i] = true;",
             (CPU_SCHEDULES,)),
    Mutation("cpu: column's powers of two forgotten", CPU_COLUMN,
             "let factors = F::scale_factors(-settled.exponent(i));",
             "let factors = F::scale_factors(0 * settled.exponent(i));",
             (CPU_SCHEDULES,)),
    Mutation("cpu: split's leaves in another order", CPU_SPLIT,
             "runs.push_by(Moments::from_numbers(of_leaves.get(leaf)), |a, b| a.merged(measure, b));",
             "runs.push_by(Moments::from_numbers(of_leaves.get(row * leaves + (row + 1) * leaves - 1 - leaf)), "
             "|a, b| a.merged(measure, b));",
             (CPU_SCHEDULES,)),
    Mutation("cpu: chunks added in another order", CPU_AFFINE,
             "for (count, chunk) in partials.chunks_exact(stride.max(1)).enumerate() {",
             "for (count, chunk) in partials.chunks_exact(stride.max(1)).rev().enumerate() {",
             (CPU_UNITS,)),
    Mutation("cpu: row leaf not flushed", CPU_AFFINE,
             "        if index > 0 {\n            add_all",
             "        if index > ROW_LEAF {\n            add_all",
             (CPU_NUMBERS,)),
    Mutation("cpu: backward forgets the mean", "src/backend/cpu/elementwise.rs",
             "((ghat - splat(self.c1)) - u * splat(self.c2))",
             "(ghat - u * splat(self.c2))",
             (CPU_NUMBERS,)),
    Mutation("cpu: the residual's scale forgotten", CPU_FUSION,
             "a * Block::<S, F>::splat(self.first) + b * Block::<S, F>::splat(self.second)",
             "a * Block::<S, F>::splat(self.first) + b",
             (CPU_NUMBERS,)),
    Mutation("cpu: the far sigmoid without its power of two", CPU_FUSION,
             "{ (e * power) * near }",
             "{ e * near }",
             ("--lib backend::cpu::fusion",)),
    Mutation("cpu: silu's slope without its second term", CPU_FUSION,
             "    s * (F::ONE + z * other)\n",
             "    s\n",
             ("--lib backend::cpu::fusion",)),
    Mutation("cpu: the hidden value written, but not normalized", CPU_FUSED,
             "of_line.input = Source::of_sink(&Sink::of_line(hidden, grid, &walk, isa)).lent();",
             "let _ = Sink::of_line(hidden, grid, &walk, isa);",
             (CPU_AROUND,)),
    Mutation("cpu: the hidden value's own gradient forgotten", CPU_FUSED_BACKWARD,
             "match &self.grad_hidden {\n                        Some(gradient) => {\n"
             "                            let other",
             "match &self.grad_hidden.filter(|_| false) {\n                        Some(gradient) => {\n"
             "                            let other",
             (CPU_AROUND,)),
    Mutation("cpu: rows in scratch memory taken again", CPU_FUSED_BACKWARD,
             "let from = (start - rows.chunk.start) * rows.beside.len();",
             "let from = 0;",
             (CPU_AROUND,)),
    Mutation("cpu: tanh's head without its rest", CPU_TANH,
             "    (head + rest * y, y)",
             "    (m * y, y)",
             (CPU_UNITS,)),
    Mutation("cpu: the error of alpha * x forgotten", CPU_TANH,
             "let low = if is_beyond(z) { F::ZERO }",
             "let low = if z == z { F::ZERO }",
             (CPU_NUMBERS, WGPU_ELEMENTWISE)),
    Mutation("cpu: powers without their low part", "src/backend/cpu/power.rs",
             "let (factor, k) = exp2(y, ye + (ll * p + l * pl));",
             "let (factor, k) = exp2(y, F::ZERO);",
             (CPU_UNITS,)),
    Mutation("wgpu: tanh's head without its rest", "shaders/tanh.wgsl",
             "return Quotient(opaque4(head + opaque4(rest * y)), y);",
             "return Quotient(opaque4(m * y), y);",
             (WGPU_ELEMENTWISE,)),
    Mutation("wgpu: sech squared without the low part of its denominator", "shaders/tanh.wgsl",
             "let q_rest = opaque4(opaque4(q - q_head) + q_low);",
             "let q_rest = opaque4(q - q_head);",
             (WGPU_ELEMENTWISE,)),
    Mutation("wgpu: eps dropped", WGPU_STATISTICS,
             "two_sum(v.hi, scale(REAL(params.eps), -2 * e));",
             "two_sum(v.hi, REAL(0.0));",
             (WGPU_SAMPLE,)),
    Mutation("wgpu: no correction of the mean", WGPU_MOMENTS,
             "m.correction = mean.lo;\n        good",
             "m.correction = REAL(0.0);\n        good",
             (WGPU_SAMPLE,)),
    Mutation("wgpu: no second round of moments", WGPU_MOMENTS,
             "good = is_near(p, sums.b) &",
             "good =",
             (WGPU_RANGE,)),
    Mutation("wgpu: rows out of range not scaled", WGPU_MOMENTS,
             "let again = irregular & (most > BITS(0u))",
             "let again = irregular & (most > BITS(INFINITY))",
             (WGPU_RANGE,)),
    Mutation("wgpu: the mask ignored in moments", WGPU_MOMENTS,
             "all = all & (magnitude4(mask_at(col)) != vec4<u32>(0u));",
             "all = all & (magnitude4(mask_at(col)) < vec4<u32>(INFINITY));",
             (WGPU_MASKS,)),
    Mutation("wgpu: the mask ignored in the output", WGPU_VALUE,
             "v = select(vec4<f32>(0.0), v, magnitude4(mask_at(col)) != vec4<u32>(0u));",
             "v = select(vec4<f32>(1.0), v, magnitude4(mask_at(col)) < vec4<u32>(INFINITY));",
             (WGPU_MASKS, WGPU_FUSED_ROWS)),
    Mutation("wgpu: tail mask off by one", WGPU_LEAF_ROW,
             "return columns_of(col) < vec4<u32>(end);",
             "return columns_of(col) <= vec4<u32>(end);",
             (WGPU_SAMPLE,)),
    Mutation("wgpu: lanes halved in another order", WGPU_FOLD,
             "return (four.x + four.z) + (four.y + four.w);",
             "return (four.x + four.y) + (four.z + four.w);",
             (WGPU_BARRIERS,)),
    Mutation("wgpu: lanes of a column visited in order", WGPU_LEAF_COLUMN,
             "return select(reverseBits(index) >> (32u - firstTrailingBit(lanes)), 0u, lanes == 1u);",
             "return index;",
             (WGPU_BATCH,)),
    Mutation("wgpu: a shuffle from the wrong thread", "shaders/fold_subgroup.wgsl",
             "subgroupShuffleXor(select(two.y, two.x, odd), QUARTER);",
             "subgroupShuffleXor(select(two.y, two.x, odd), HALF);",
             (WGPU_SAMPLE,)),
    Mutation("wgpu: leaves merged in another order", "shaders/merge_moments.wgsl",
             "var m = leaf_at(MOMENTS_SIZE * index);",
             "var m = leaf_at(MOMENTS_SIZE * (params.leaves - 1u - index));",
             (WGPU_LONG,)),
    Mutation("wgpu: leaves' sums merged in another order", "shaders/merge_sums.wgsl",
             "var s = leaf_at(SUMS_SIZE * index);",
             "var s = leaf_at(SUMS_SIZE * (params.leaves - 1u - index));",
             (WGPU_LONG,)),
    Mutation("wgpu: a barrier removed", WGPU_FOLD,
             "    shared_b[lane] = b;\n    workgroupBarrier();",
             "    shared_b[lane] = b;",
             (WGPU_BARRIERS,)),
    Mutation("wgpu: backward forgets the mean", WGPU_BACKWARD,
             "d = opaque4(opaque4(ghat - c1) - product);",
             "d = opaque4(ghat - product);",
             (WGPU_SAMPLE,)),
    Mutation("wgpu: an outer weight forgotten", WGPU_BACKWARD,
             "d = opaque4(d * outer_weight);",
             "d = opaque4(d);",
             (WGPU_BATCH,)),
    Mutation("wgpu: row leaf off by one", WGPU_AFFINE,
             "for (var row = leaf; row < min(leaf + ROW_LEAF, end); row++) {",
             "for (var row = leaf; row < min(leaf + ROW_LEAF - 1u, end); row++) {",
             (WGPU_RANGE,)),
    Mutation("wgpu: row leaf off by one in registers", "shaders/norm_backward_fused.wgsl",
             "for (var row = at; row < min(at + ROW_LEAF, most); row++) {",
             "for (var row = at; row < min(at + ROW_LEAF - 1u, most); row++) {",
             (WGPU_RANGE,)),
    Mutation("wgpu: rows in registers beyond the last one counted", "shaders/norm_backward_fused.wgsl",
             "live = there_is && first + row < end;",
             "live = there_is;",
             (WGPU_RANGE,)),
    Mutation("wgpu: the first mean of a held row not scaled", WGPU_FORWARD,
             "return scale_row(held[0], -exponent);",
             "return held[0];",
             (WGPU_RANGE,)),
    Mutation("wgpu: the slowest axis forgotten", "shaders/along.wgsl",
             "return at + rest * params.inner[0].PART;",
             "return at;",
             (WGPU_BATCH,)),
    Mutation("wgpu: chunks added in another order", WGPU_FINISH,
             "var sum = load_partial(params.parameter, i);",
             "var sum = load_partial(params.parameter, params.chunks - 1u - i);",
             (WGPU_SAMPLE,)),
    Mutation("wgpu: a residual multiplied by the input's scale", "shaders/prologue_residual.wgsl",
             "opaque4(before * params.residual_scale)",
             "opaque4(before * params.input_scale)",
             (WGPU_FUSED_ROWS,)),
    Mutation("wgpu: silu's slope without the falling side", WGPU_SIGMA,
             "return opaque4(s.same * opaque4(1.0 + opaque4(z * s.opposite)));",
             "return opaque4(s.same * opaque4(1.0 + opaque4(z * s.same)));",
             (WGPU_FUSED_ROWS,)),
    Mutation("wgpu: gelu's slope with the cube's factor for that of its derivative", WGPU_SIGMA,
             "let rise = opaque4(GELU_0 + opaque4(GELU_3 * m));",
             "let rise = opaque4(GELU_0 + opaque4(GELU_1 * m));",
             (WGPU_FUSED_ROWS,)),
    Mutation("wgpu: the gradient of the hidden value forgotten", WGPU_BACKWARD,
             "d = opaque4(d + grad_hidden_at(col));",
             "d = opaque4(d);",
             (WGPU_FUSED_ROWS,)),
    Mutation("wgpu: the gradient of v of another scale", WGPU_BACKWARD,
             "let scaled = scale4(g, -g_exponent);",
             "let scaled = g;",
             (WGPU_FUSED_RANGE,)),
    Mutation("wgpu: the parameters' gradients from the output's", WGPU_AFFINE,
             "let g = of_output(col, grad_output_at(col), value(col, hat, full_weight(col), bias_at(col))).value;",
             "let g = grad_output_at(col);",
             (WGPU_FUSED_ROWS,)),
    Mutation("wgpu: the first element of a masked row taken from the input", "shaders/first_row.wgsl",
             "return x_at(col & ~3u)[col & 3u];",
             "return input_at(col & ~3u)[col & 3u];",
             (WGPU_FUSED_ROWS,)),
    Mutation("cuda: a barrier removed", CUDA_LEAF,
             "            device::barrier();\n            // Every warp adds all warps' numbers",
             "            // Every warp adds all warps' numbers",
             (CUDA_BATCH,)),
    Mutation("cuda: many threads' numbers folded by neighbours", CUDA_LEAF,
             "            auto even = folded<COUNT / 2, 2 * DISTANCE>(first, op, get);\n"
             "            auto odd = folded<COUNT / 2, 2 * DISTANCE>(first + DISTANCE, op, get);",
             "            auto even = folded<COUNT / 2, DISTANCE>(first, op, get);\n"
             "            auto odd = folded<COUNT / 2, DISTANCE>(first + COUNT / 2 * DISTANCE, op, get);",
             (CUDA_PARAMETERS,)),
    Mutation("cuda: tail off by one", CUDA_LEAF,
             "return col + I(i) < end;",
             "return col + I(i) <= end;",
             (CUDA_MASKS,)),
    Mutation("cuda: the first mean of other elements", CUDA_LEAF,
             "u32 i = thread % SHARE + SHARE * u32(k);",
             "u32 i = thread % SHARE / 2 + SHARE * u32(k);",
             (CUDA_PARAMETERS,)),
    Mutation("cuda: blocks of a cluster do not wait", CUDA_LEAF,
             "            device::cluster_barrier();\n            x = none;",
             "            x = none;",
             (CUDA_LONG,)),
    Mutation("cuda: leaves merged in another order", CUDA_PAIRWISE,
             "mine = merge(chosen(is_left, mine, other), chosen(is_left, other, mine));",
             "mine = merge(chosen(is_left, other, mine), chosen(is_left, mine, other));",
             (CUDA_LONG,)),
    Mutation("cuda: no second round for a guess that is far off", CUDA_MOMENTS,
             "return magnitude(F(4) * product) <= magnitude(squares);",
             "return magnitude(F(4) * product) <= magnitude(squares) || product == product;",
             (CUDA_PARAMETERS,)),
    Mutation("cuda: rows out of range not scaled", CUDA_MOMENTS,
             "again = most > 0 && m.exponent != 0;",
             "again = most > 0 && m.exponent == 0;",
             (CUDA_RANGE,)),
    Mutation("cuda: eps dropped", CUDA_STATISTICS,
             "of_row.rstd = rsqrt_inside(m.m2, m.count, scale(s.eps, -2 * exponent));",
             "of_row.rstd = rsqrt_inside(m.m2, m.count, F(0));",
             (CUDA_BATCH,)),
    Mutation("cuda: the output ignores the mask", CUDA_FORWARD,
             "e = magnitude(mask.at[k]) != 0 ? e : F(0);",
             "e = magnitude(mask.at[k]) != 0 ? e : e;",
             (CUDA_MASKS,)),
    Mutation("cuda: the gradient's second term dropped", CUDA_BACKWARD,
             "d = CENTRED ? (d - c.a) - second : d - second;",
             "d = CENTRED ? d - c.a : d - second;",
             (CUDA_BATCH,)),
    Mutation("cuda: gradients out of range not scaled", CUDA_BACKWARD,
             "bool is_scaled = !is_regular && is_finite && !is_zero;",
             "bool is_scaled = !is_regular && is_finite && is_zero;",
             (CUDA_PARAMETERS,)),
    Mutation("cuda: row leaves of a chunk in another order", CUDA_FUSED,
             "turn == leaf.team)",
             "u32(V::TEAMS) - 1 - turn == leaf.team)",
             (CUDA_PARAMETERS,)),
    Mutation("cuda: row leaves of eight rows", CUDA_COLUMNS,
             "static constexpr u32 ROW_LEAF = 16;",
             "static constexpr u32 ROW_LEAF = 8;",
             (CUDA_PARAMETERS, CUDA_ELEMENTWISE)),
    Mutation("cuda: the residual has the input's factor", CUDA_FUSION,
             "return x * p.s.input_scale + other * p.s.residual_scale;",
             "return x * p.s.input_scale + other * p.s.input_scale;",
             (CUDA_FUSIONS,)),
    Mutation("cuda: the first mean of inputs without their gates", CUDA_FUSION,
             "return hidden(p, x, one_of<Other>(p, row, col));",
             "return hidden(p, x, F(1));",
             (CUDA_FUSIONS,)),
    Mutation("cuda: the hidden value's own gradient dropped", CUDA_FUSION,
             "d.at[k] = d.at[k] + beside.at[k];",
             "d.at[k] = d.at[k];",
             (CUDA_FUSIONS,)),
    Mutation("cuda: sigmoids of z and -z exchanged", CUDA_SIGMOID,
             "const bool is_below = z < F(0);",
             "const bool is_below = z > F(0);",
             (CUDA_FUSIONS,)),
    Mutation("cuda: GELU's slope without the cube's three", CUDA_SIGMOID,
             "(s.plus * s.minus)) * (K::K0 + K::K3 * m);",
             "(s.plus * s.minus)) * (K::K0 + K::K1 * m);",
             (CUDA_FUSIONS,)),
    Mutation("cuda: a gate's gradient ignores the mask", CUDA_BACKWARD,
             "v.at[k] = magnitude(mask.at[k]) != 0 ? v.at[k] : F(0);",
             "v.at[k] = magnitude(mask.at[k]) != 0 ? v.at[k] : v.at[k];",
             (CUDA_FUSIONS,)),
    Mutation("cuda: parameters' gradients of the output's gradient", CUDA_SUMS,
             "bias.at[i] = Epilogue<V>::gradients(bias.at[i], v, after.at[i]).of_value;",
             "bias.at[i] = bias.at[i] + F(0) * Epilogue<V>::gradients(bias.at[i], v, after.at[i]).of_value;",
             (CUDA_FUSIONS,)),
]
