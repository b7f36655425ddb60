
@compute @workgroup_size(GROUP)
fn norm_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(INVOCATION) invocation: u32,
) {
    if enter(group, groups, invocation, 0u) {
        backward_leaf();
    }
}
