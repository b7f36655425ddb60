// Copies a tensor with the threads, the loads and the stores of `row_forward`: the floor that it is measured against.

fn term(which: u32, kept: bool, leaf: u32, step: u32, quad: u32) -> vec4<f32> {
    return vec4<f32>(0.0);
}

@compute @workgroup_size(GROUP)
fn copy(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(INVOCATION) invocation: u32,
) {
    enter(invocation);
    choose_row(group, groups);
    for (var leaf = 0u; leaf < params.leaves; leaf++) {
        for (var step = 0u; step < step_count(leaf); step++) {
            for (var quad = 0u; quad < QUADS; quad++) { // unrolled
                let col = column(leaf, step, quad);
                if live && (EXACT || col < params.cols) {
                    output_set(col, params.cols, input_at(col));
                }
            }
        }
    }
}
