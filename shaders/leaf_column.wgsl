// A leaf of four neighbouring rows that one thread owns, and its sums in the order of `plan::tree`; see `leaf_row`. The
// lanes are visited in bit-reversed order, so that each halving adds two runs of lanes that have just been summed: runs
// wait in a stack for another of as many lanes.

const LEVELS = 9u;

// The rows' number in the launch, and which of their leaves.
var<private> slot: u32;
var<private> leaf: u32;

struct Sums {
    a: vec4<f32>,
    b: vec4<f32>,
}

alias Terms = Sums;

fn enter(group: vec3<u32>, groups: vec3<u32>, invocation: u32, turn: u32) -> bool {
    let task = (group.x + group.y * groups.x) * GROUP + invocation;
    let across = (params.rows + 3u) / 4u;
    slot = 4u * task;
    leaf = 0u;
    if SPLIT {
        // Neighbours are neighbours in the rows.
        slot = 4u * (task % across);
        leaf = task / across;
    }
    if task >= across * params.leaves {
        return false;
    }
    locate(params.first_row + slot);
    return true;
}

fn is_first() -> bool {
    return true;
}

fn leaf_start() -> u32 {
    return select(0u, leaf * LEAF, SPLIT);
}

fn leaf_length() -> u32 {
    return select(params.cols, min(params.cols - leaf_start(), LEAF), SPLIT);
}

fn there(col: u32) -> u32 {
    return alive;
}

fn is_within(col: u32, end: u32) -> vec4<bool> {
    return vec4<bool>(col < end);
}

fn is_inside(col: u32) -> vec4<bool> {
    return vec4<bool>(true);
}

var<private> waiting_a: array<vec4<f32>, LEVELS>;
var<private> waiting_b: array<vec4<f32>, LEVELS>;

// Adds the sums of the `index`-th lane visited.
fn push(index: u32, a: vec4<f32>, b: vec4<f32>) {
    var sum_a = a;
    var sum_b = b;
    var level = 0u;
    while ((index >> level) & 1u) == 1u {
        sum_a = waiting_a[level] + sum_a;
        sum_b = waiting_b[level] + sum_b;
        level++;
    }
    waiting_a[level] = sum_a;
    waiting_b[level] = sum_b;
}

// The `index`-th lane to visit of `lanes`, a power of two.
fn lane_at(index: u32, lanes: u32) -> u32 {
    return select(reverseBits(index) >> (32u - firstTrailingBit(lanes)), 0u, lanes == 1u);
}

fn any_row(x: vec4<bool>) -> bool {
    return any(x);
}

fn fold_most(x: vec4<u32>) -> vec4<u32> {
    return x;
}

fn fold_all(x: vec4<u32>) -> vec4<u32> {
    return x;
}

fn fold_count(x: vec4<f32>) -> vec4<f32> {
    return x;
}
