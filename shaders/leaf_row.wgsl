// A leaf of a row shared by THREADS threads, and its sums in the order of `plan::tree`. Thread t owns, of every LANES
// columns, the quads t, t + THREADS, ...: QUADS of them. A kernel supplies `fast_term`, four numbers of each of two sums
// from quads in registers if HELD, and `slow_term`, the same at any scale.

const QUADS = LANES / 4u / THREADS;

// This thread's number in its workgroup and in its row.
var<private> lane: u32;
var<private> thread: u32;
// The row in the launch, and which of its leaves.
var<private> slot: u32;
var<private> leaf: u32;
// Rows beyond the last one repeat it, so that every thread meets every barrier; they store nothing.
var<private> live: bool;

struct Sums {
    a: f32,
    b: f32,
}

struct Terms {
    a: vec4<f32>,
    b: vec4<f32>,
}

// What this thread's number among all rows, or chunks of them, is made of.
fn number_of(group: vec3<u32>, groups: vec3<u32>, invocation: u32) -> u32 {
    lane = invocation;
    thread = lane % THREADS;
    return (group.x + group.y * groups.x) * (GROUP / THREADS) + lane / THREADS;
}

// Goes to the row of this turn. Whether there is anything to do for this thread.
fn enter(group: vec3<u32>, groups: vec3<u32>, invocation: u32, turn: u32) -> bool {
    let wanted = number_of(group, groups, invocation) * params.turns + turn;
    let count = params.rows * params.leaves;
    live = wanted < count;
    let task = min(wanted, count - 1u);
    slot = task;
    leaf = 0u;
    if SPLIT {
        slot = task / params.leaves;
        leaf = task % params.leaves;
    }
    locate(params.first_row + slot);
    return true;
}

// Whether this thread writes what belongs to the row.
fn is_first() -> bool {
    return thread == 0u && live;
}

fn leaf_start() -> u32 {
    return select(0u, leaf * LEAF, SPLIT);
}

fn leaf_length() -> u32 {
    return select(params.cols, min(params.cols - leaf_start(), LEAF), SPLIT);
}

fn step_count() -> u32 {
    return (leaf_length() + LANES - 1u) / LANES;
}

fn column(step: u32, quad: u32) -> u32 {
    return leaf_start() + step * LANES + 4u * (thread + THREADS * quad);
}

// How many of the four columns at `col` there are to write.
fn there(col: u32) -> u32 {
    if EXACT {
        return select(0u, 4u, live);
    }
    return select(0u, min(params.cols - min(col, params.cols), 4u), live);
}

fn is_within(col: u32, end: u32) -> vec4<bool> {
    return columns_of(col) < vec4<u32>(end);
}

// Whether columns at `col` are the row's.
fn is_inside(col: u32) -> vec4<bool> {
    if EXACT {
        return vec4<bool>(true);
    }
    return is_within(col, params.cols);
}
