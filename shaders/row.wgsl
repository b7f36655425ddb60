// A row shared by THREADS threads, and its sum in the order of `plan::tree`. Thread t owns, of every LANES columns, the
// quads t, t + THREADS, ...: QUADS of them. A kernel supplies `term`, the four numbers of one quad to be summed.

const QUADS = LANES / 4u / THREADS;
const LEAF = 4096u;

// This thread's number in its workgroup and in its row, and the row's number in the launch.
var<private> lane: u32;
var<private> thread: u32;
var<private> slot: u32;
// Rows beyond the last one repeat it, so that every thread meets every barrier; they store nothing.
var<private> live: bool;

fn enter(invocation: u32) {
    lane = invocation;
    thread = lane % THREADS;
}

// One row a thread. A loop over several, to read the weight once for all, was tried on the software adapter and compiled
// for longer; its effect was not measured apart from other changes.
fn choose_row(group: vec3<u32>, groups: vec3<u32>) {
    let wanted = (group.x + group.y * groups.x) * (GROUP / THREADS) + lane / THREADS;
    live = wanted < params.rows;
    slot = min(wanted, params.rows - 1u);
    locate(params.first_row + slot);
}

fn column(leaf: u32, step: u32, quad: u32) -> u32 {
    return leaf * LEAF + step * LANES + 4u * (thread + THREADS * quad);
}

// Zero in columns from `end` on, which count for nothing.
fn within(col: u32, end: u32, x: vec4<f32>) -> vec4<f32> {
    return select(vec4<f32>(0.0), x, vec4<u32>(col) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(end));
}

// As `within`, for the row's own end.
fn inside(col: u32, x: vec4<f32>) -> vec4<f32> {
    if EXACT {
        return x;
    }
    return within(col, params.cols, x);
}

fn step_count(leaf: u32) -> u32 {
    return (min(params.cols - leaf * LEAF, LEAF) + LANES - 1u) / LANES;
}

// Sums of leaves, waiting for another of as many leaves.
var<private> stack: array<f32, 24>;

fn push(count: u32, leaf_sum: f32) {
    var sum = leaf_sum;
    var level = 0u;
    while ((count >> level) & 1u) == 1u {
        sum = stack[level] + sum;
        level++;
    }
    stack[level] = sum;
}

fn total(count: u32) -> f32 {
    var level = firstTrailingBit(count);
    var sum = stack[level];
    for (level++; level < 24u; level++) {
        if ((count >> level) & 1u) == 1u {
            sum = stack[level] + sum;
        }
    }
    return sum;
}

// The sum of one leaf, the same in every thread of the row. `kept` is a constant wherever this is called: whether the
// row is in registers.
fn leaf_sum(which: u32, kept: bool, leaf: u32) -> f32 {
    var sums: array<vec4<f32>, QUADS>;
    for (var quad = 0u; quad < QUADS; quad++) { // unrolled
        sums[quad] = zero4();
    }
    if kept {
        for (var step = 0u; step < HELD; step++) { // unrolled
            for (var quad = 0u; quad < QUADS; quad++) { // unrolled
                sums[quad] += term(which, true, 0u, step, quad);
            }
        }
    } else {
        for (var step = 0u; step < step_count(leaf); step++) {
            for (var quad = 0u; quad < QUADS; quad++) { // unrolled
                sums[quad] += term(which, false, leaf, step, quad);
            }
        }
    }
    for (var half = QUADS / 2u; half > 0u; half /= 2u) {
        for (var quad = 0u; quad < half; quad++) {
            sums[quad] += sums[quad + half];
        }
    }
    return fold_sum(sums[0]);
}

fn row_sum(which: u32, kept: bool) -> f32 {
    if kept {
        return leaf_sum(which, true, 0u);
    }
    for (var leaf = 0u; leaf < params.leaves; leaf++) {
        push(leaf, leaf_sum(which, false, leaf));
    }
    return total(params.leaves);
}
