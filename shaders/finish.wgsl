// Adds the partial sums of all chunks pairwise, and writes the gradient; for a parameter that columns share, the sums
// of the columns, in the place of the first chunk.

var<private> waiting: array<vec4<f32>, 24>;

@compute @workgroup_size(GROUP)
fn finish(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    col = params.first_col + 4u * ((group.x + group.y * groups.x) * GROUP + invocation);
    if col >= params.end_col {
        return;
    }
    for (var i = 0u; i < params.chunks; i++) {
        var sum = load_partial(params.parameter, i);
        var level = 0u;
        while ((i >> level) & 1u) == 1u {
            sum = waiting[level] + sum;
            level++;
        }
        waiting[level] = sum;
    }
    var total = vec4<f32>(0.0);
    var empty = true;
    for (var level = 0u; level < 24u; level++) {
        if ((params.chunks >> level) & 1u) == 1u {
            total = select(waiting[level] + total, waiting[level], empty);
            empty = false;
        }
    }
    if HAS_GRADIENT {
        locate(0u);
        gradient_set(col, min(params.end_col - col, 4u), total);
    } else {
        store_partial(params.parameter, 0u, total);
    }
}
