// What a launch is told at run time, and where its rows and columns lie in memory.

struct Axis {
    // Size, then the strides of up to three tensors of the input's shape, in elements.
    full: vec4<u32>,
    // Strides of up to three tensors of a row's shape; the last number is unused.
    along_row: vec4<u32>,
}

struct Params {
    // Zero, which no compiler knows: see `opaque`.
    zero: u32,
    // This launch computes `rows` rows from `first_row` on.
    first_row: u32,
    rows: u32,
    cols: u32,
    // Columns that the statistic sees, one over their number, and in how many leaves they are summed.
    prefix: u32,
    leaves: u32,
    inv_k: f32,
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
    unused_1: u32,
    unused_2: u32,
    // Where index zero of each tensor lies in its binding, in elements, modulo 2^32.
    full_start: vec4<u32>,
    row_start: vec4<u32>,
    flat_start: vec4<u32>,
    outer: array<vec4<u32>, OUTER>,
    inner: array<Axis, INNER>,
}

@group(0) @binding(0) var<uniform> params: Params;

// Where the current row of each full tensor starts.
var<private> start: vec3<u32>;

// Offsets wrap around, so strides may be negative: only the sum must be in range.
fn locate(row: u32) {
    start = params.full_start.xyz;
    if OUTER == 1u {
        start += row * params.outer[0].yzw;
        return;
    }
    var rest = row;
    for (var i = OUTER; i > 0u; i--) {
        let axis = params.outer[i - 1u];
        start += (rest % axis.x) * axis.yzw;
        rest /= axis.x;
    }
}

// Offsets of column `col` from the row's first column, in the full tensors and in those of a row's shape.
fn along_full(col: u32) -> vec3<u32> {
    if INNER == 1u {
        return col * params.inner[0].full.yzw;
    }
    var at = vec3<u32>(0u);
    var rest = col;
    for (var i = INNER; i > 0u; i--) {
        let axis = params.inner[i - 1u].full;
        at += (rest % axis.x) * axis.yzw;
        rest /= axis.x;
    }
    return at;
}

fn along_row(col: u32) -> vec3<u32> {
    if INNER == 1u {
        return col * params.inner[0].along_row.xyz;
    }
    var at = vec3<u32>(0u);
    var rest = col;
    for (var i = INNER; i > 0u; i--) {
        let size = params.inner[i - 1u].full.x;
        at += (rest % size) * params.inner[i - 1u].along_row.xyz;
        rest /= size;
    }
    return at;
}
