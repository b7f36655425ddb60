// Sums of the columns' sums, a leaf of the row tree for each THREADS threads: the gradient of a parameter that columns
// share. `total` adds the leaves.

fn term(which: u32, kept: bool, leaf: u32, step: u32, quad: u32) -> vec4<f32> {
    let col = column(leaf, step, quad);
    let last = params.cols - 1u;
    let at = params.parameter * params.chunks * params.partial_cols;
    let sums = vec4<f32>(
        partials_get(at + min(col, last)),
        partials_get(at + min(col + 1u, last)),
        partials_get(at + min(col + 2u, last)),
        partials_get(at + min(col + 3u, last)),
    );
    return inside(col, sums);
}

@compute @workgroup_size(GROUP)
fn leaves(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(INVOCATION) invocation: u32,
) {
    enter(invocation);
    choose_row(group, groups);
    let sum = leaf_sum(0u, false, slot);
    if thread == 0u && live {
        partials_set(params.leaf_base + params.first_leaf + slot, sum);
    }
}
