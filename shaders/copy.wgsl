// Copies a tensor with the threads, the loads and the stores of `norm_forward`: the floor that it is measured against.

fn fast_write(i: u32, col: u32) {
    let count = there(col);
    if count > 0u {
        output_set(col, count, input_at(col));
    }
}

@compute @workgroup_size(GROUP)
fn copy(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(INVOCATION) invocation: u32,
) {
    if !enter(group, groups, invocation, 0u) {
        return;
    }
    fast_apply();
}
