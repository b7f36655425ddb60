// The shares that a mix of two norms makes of alpha, which are their weights.

@compute @workgroup_size(GROUP)
fn shares(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    if !enter_rows(group, groups, invocation) {
        return;
    }
    let share = abs(scaled_alpha());
    mix_weight_set(0u, alive, share);
    inner_weight_set(0u, alive, opaque4(1.0 - share));
}
