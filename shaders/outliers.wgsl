// Codes in columns that are flagged become 0. A column of the codes is a row here, shared by the threads of a workgroup.

fn fast_write(i: u32, col: u32) {
    let count = there(col);
    if count > 0u {
        output_set(col, count, vec4<f32>(0.0));
    }
}

@compute @workgroup_size(GROUP)
fn zero_columns(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(INVOCATION) invocation: u32,
) {
    if !enter(group, groups, invocation, 0u) {
        return;
    }
    if flags_of(vec4<u32>(0u)).x != 0u {
        fast_apply();
    }
}
