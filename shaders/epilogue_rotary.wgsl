// What becomes of v: pairs of columns are rotated by their row's angles, the first of a pair to x * cos - other * sin, the second to
// x * cos + other * sin. Columns beyond the last pair are v itself. See `epilogue_gate`.

struct Angles {
    cos: vec4<f32>,
    sin: vec4<f32>,
}

// The numbers in their heads of the four columns at `col`.
fn in_head(col: u32) -> vec4<u32> {
    let c = columns_of(col);
    if HEADS {
        let h = params.head;
        return c - h * vec4<u32>(divided(c.x, h), divided(c.y, h), divided(c.z, h), divided(c.w, h));
    }
    return c;
}

fn are_first(j: vec4<u32>) -> vec4<bool> {
    if HALVES {
        return j < vec4<u32>(params.pairs);
    }
    return (j < vec4<u32>(2u * params.pairs)) & ((j & vec4<u32>(1u)) == vec4<u32>(0u));
}

fn are_second(j: vec4<u32>) -> vec4<bool> {
    return (j < vec4<u32>(2u * params.pairs)) & !are_first(j);
}

// From the first of a pair to the second.
fn distance_of_pair() -> u32 {
    return select(1u, params.pairs, HALVES);
}

// The angles of the pairs that the four columns at `col` are of; of those that are of none, some angle.
fn angles_at(col: u32) -> Angles {
    let j = in_head(col);
    var pair = j >> vec4<u32>(1u);
    if HALVES {
        pair = select(j, j - params.pairs, j >= vec4<u32>(params.pairs));
    }
    let at = columns_of(col) - j + min(pair, vec4<u32>(params.pairs - 1u));
    if !HAS_POSITIONS {
        return Angles(cos_of(at, vec4<u32>(0u)), sin_of(at, vec4<u32>(0u)));
    }
    // The rows that the positions name; where there is no such row, what is no number. A NaN is written as bits.
    let position = positions_of(at);
    let is_there = position < vec4<u32>(params.table_rows);
    let row = select(vec4<u32>(0u), position, is_there);
    let none = bitcast<vec4<f32>>(vec4<u32>(0x7fc00000u ^ params.zero));
    return Angles(
        select(none, cos_of(at, row * params.cos_step), is_there),
        select(none, sin_of(at, row * params.sin_step), is_there));
}

fn turned(x: vec4<f32>, other: vec4<f32>, angles: Angles, adds: vec4<bool>) -> vec4<f32> {
    let product = opaque4(other * angles.sin);
    return opaque4(opaque4(x * angles.cos) + select(-product, product, adds));
}

// Where both of a pair are among four neighbouring columns.
fn epilogue(col: u32, v: vec4<f32>) -> vec4<f32> {
    let j = in_head(col);
    let rotated = are_first(j) | are_second(j);
    if !any(rotated) {
        return v;
    }
    return select(v, turned(v, v.yxwz, angles_at(col), are_second(j)), rotated);
}
