// What a launch is told at run time, and where its rows and columns lie in memory.

// Size, then the strides of up to seven tensors, in elements.
struct Axis {
    a: vec4<u32>,
    b: vec4<u32>,
}

struct Params {
    // Zero, which no compiler knows: see `opaque`.
    zero: u32,
    // This launch computes `rows` rows from `first_row` on.
    first_row: u32,
    rows: u32,
    cols: u32,
    // Columns that the statistic sees, and in how many leaves a row is cut.
    prefix: u32,
    leaves: u32,
    // One over the elements of a row's last leaf, and of those of a row that count.
    inv_last: f32,
    inv_count: f32,
    eps: f32,
    // The scale exponent that eps asks for, and the divisor's reciprocal where the statistic is zero.
    eps_exponent: i32,
    eps_rstd: f32,
    weight_offset: f32,
    // Parameter gradients: columns of this launch, and how rows are cut.
    first_col: u32,
    end_col: u32,
    chunk_rows: u32,
    chunks: u32,
    // First chunk of this launch.
    first_chunk: u32,
    // Columns of a row of partial sums, and which of the parameters this launch finishes.
    partial_cols: u32,
    parameter: u32,
    col_groups: u32,
    // Rows that a workgroup's threads take one after the other.
    turns: u32,
    // Where the sums of leaves begin among the partial sums, and the first of this launch.
    leaf_base: u32,
    first_leaf: u32,
    // The power of a p-norm, one over it, and one less, each as two numbers.
    power: f32,
    power_low: f32,
    inv_power: f32,
    inv_power_low: f32,
    slope_power: f32,
    slope_power_low: f32,
    // The weight of a new sample in a running estimate, and of what was there.
    factor: f32,
    rest: f32,
    unused: u32,
    // Where index zero of each tensor lies in its binding, in elements, modulo 2^32.
    start_a: vec4<u32>,
    start_b: vec4<u32>,
    flat_start: vec4<u32>,
    outer: array<Axis, OUTER>,
    inner: array<Axis, INNER>,
}

@group(0) @binding(0) var<uniform> params: Params;

// Offsets of the tensors, in elements. They wrap around, so strides may be negative: only the sum must be in range.
struct At {
    a: vec3<u32>,
    b: vec4<u32>,
}

fn row_at(row: u32) -> At {
    var at = At(params.start_a.xyz, params.start_b);
    if OUTER == 1u {
        at.a += row * params.outer[0].a.yzw;
        at.b += row * params.outer[0].b;
        return at;
    }
    var rest = row;
    for (var i = OUTER; i > 0u; i--) {
        let size = params.outer[i - 1u].a.x;
        at.a += (rest % size) * params.outer[i - 1u].a.yzw;
        at.b += (rest % size) * params.outer[i - 1u].b;
        rest /= size;
    }
    return at;
}

// Offsets of column `col` from the row's first column, in the first three tensors and in the others.
fn along_a(col: u32) -> vec3<u32> {
    if INNER == 1u {
        return col * params.inner[0].a.yzw;
    }
    var at = vec3<u32>(0u);
    var rest = col;
    for (var i = INNER; i > 0u; i--) {
        let axis = params.inner[i - 1u].a;
        at += (rest % axis.x) * axis.yzw;
        rest /= axis.x;
    }
    return at;
}

fn along_b(col: u32) -> vec4<u32> {
    if INNER == 1u {
        return col * params.inner[0].b;
    }
    var at = vec4<u32>(0u);
    var rest = col;
    for (var i = INNER; i > 0u; i--) {
        let size = params.inner[i - 1u].a.x;
        at += (rest % size) * params.inner[i - 1u].b;
        rest /= size;
    }
    return at;
}
