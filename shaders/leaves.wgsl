// Sums of the columns' sums, a leaf of the row tree for each THREADS threads: the gradient of a parameter that columns
// share. `total` adds the leaves. The columns of this launch are the row, cut into its leaves.

fn slow_term(col: u32) -> Terms {
    let last = params.cols - 1u;
    let at = params.parameter * params.chunks * params.partial_cols;
    let sums = vec4<f32>(
        partials_get(at + min(col, last)),
        partials_get(at + min(col + 1u, last)),
        partials_get(at + min(col + 2u, last)),
        partials_get(at + min(col + 3u, last)),
    );
    return Terms(select(vec4<f32>(0.0), sums, is_inside(col)), zero4());
}

@compute @workgroup_size(GROUP)
fn leaves(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(INVOCATION) invocation: u32,
) {
    if !enter(group, groups, invocation, 0u) {
        return;
    }
    let sum = slow_sums();
    if is_first() {
        partials_set(params.leaf_base + params.first_leaf + leaf, sum.a);
    }
}
