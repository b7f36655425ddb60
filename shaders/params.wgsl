// What a launch is told at run time, and where its rows and columns lie in memory.

// Size, then the strides of the tensors, in elements: four numbers to a part.
struct Axis {
    PART: vec4<u32>, // each part
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
    // The weight of a new sample in a running estimate, and of what was there; or what alpha is multiplied by.
    factor: f32,
    rest: f32,
    // What a prologue multiplies the input and the residual by.
    input_scale: f32,
    residual_scale: f32,
    // Pairs of columns that a rotary embedding rotates, and the columns of a head.
    pairs: u32,
    head: u32,
    // Rows of its tables that positions choose from, and how far they are apart in the tables of cosines and of sines.
    table_rows: u32,
    cos_step: u32,
    sin_step: u32,
    // Columns that share a scale of codes; the scale, or the largest magnitude that makes one larger; the code of that; and
    // the least scale.
    code_block: u32,
    code_scale: f32,
    code_bound: f32,
    code_largest: f32,
    code_least: f32,
    // Dropout's key, the upper half of its counter, and the least word of an element that is kept.
    drop_key_0: u32,
    drop_key_1: u32,
    drop_upper_0: u32,
    drop_upper_1: u32,
    drop_threshold: u32,
    // Of the norm of a branch.
    inner_prefix: u32,
    inner_eps: f32,
    inner_eps_exponent: i32,
    inner_eps_rstd: f32,
    inner_weight_offset: f32,
    // The least magnitude that is set apart from codes.
    code_outlier: f32,
    // Where index zero of each tensor lies in its binding, in elements, modulo 2^32; placed as in `Axis`.
    start_PART: vec4<u32>, // each part
    flat_start: vec4<u32>,
    outer: array<Axis, OUTER>,
    inner: array<Axis, INNER>,
}

@group(0) @binding(0) var<uniform> params: Params;

// Offsets of the tensors, in elements, each where its strides are. They wrap around, so strides may be negative: only the
// sum must be in range.
struct At {
    PART: vec4<u32>, // each part
}

// x / size for x below 2^31. Integer division is slow on the software adapter, which does it one thread at a time. The
// first quotient is off by 2^-22 of itself, the second by less than two, whatever a compiler makes of the floats.
fn divided(x: u32, size: u32) -> u32 {
    let reciprocal = 1.0 / f32(size);
    var quotient = u32(f32(x) * reciprocal);
    quotient += u32(i32(floor(f32(i32(x - quotient * size)) * reciprocal)));
    let rest = i32(x - quotient * size);
    return quotient + select(0u, 1u, rest >= i32(size)) - select(0u, 1u, rest < 0);
}

fn row_at(row: u32) -> At {
    var at: At;
    at.PART = params.start_PART; // each part
    var rest = row;
    for (var i = OUTER - 1u; i > 0u; i--) {
        let axis = params.outer[i];
        let slower = divided(rest, axis.a.x);
        at.PART += (rest - slower * axis.a.x) * axis.PART; // each part
        rest = slower;
    }
    at.PART += rest * params.outer[0].PART; // each part
    return at;
}
