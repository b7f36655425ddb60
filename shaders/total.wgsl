// Adds the sums of a row's leaves pairwise: the last step of a parameter that columns share.

fn term(which: u32, kept: bool, leaf: u32, step: u32, quad: u32) -> vec4<f32> {
    return vec4<f32>(0.0);
}

@compute @workgroup_size(GROUP)
fn total_of_leaves(@builtin(INVOCATION) invocation: u32) {
    enter(invocation);
    if thread == 0u {
        for (var leaf = 0u; leaf < params.leaves; leaf++) {
            push(leaf, partials_get(params.leaf_base + leaf));
        }
        gradient_set(0u, 1u, vec4<f32>(total(params.leaves)));
    }
}
