// running = (1 - factor) * running + factor * batch, from a batch's moments; the variance is the unbiased one.

fn updated(running: REAL, batch: REAL) -> REAL {
    return opaque(opaque(params.rest * running) + opaque(params.factor * batch));
}

@compute @workgroup_size(GROUP)
fn update_running(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    if !enter_rows(group, groups, invocation) {
        return;
    }
    let up = steps(INT(moments_get(4u)), INT(0));
    let mean = scale(opaque(moments_get(1u) + moments_get(2u)), up);
    let inv = nearest_recip(opaque(moments_get(0u) - 1.0), REAL(0.0));
    let variance = scale(opaque(moments_get(3u) * inv), 2 * up);
    running_mean_set(0u, alive, updated(running_mean_at(0u), mean));
    running_var_set(0u, alive, updated(running_var_at(0u), variance));
}
