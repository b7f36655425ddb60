// Adds the sums of a row's leaves pairwise: the last step of a parameter that columns share.

var<private> stack: array<f32, 24>;

@compute @workgroup_size(GROUP)
fn total_of_leaves(@builtin(local_invocation_index) invocation: u32) {
    if invocation > 0u {
        return;
    }
    locate(0u);
    for (var leaf = 0u; leaf < params.leaves; leaf++) {
        var sum = partials_get(params.leaf_base + leaf);
        var level = 0u;
        while ((leaf >> level) & 1u) == 1u {
            sum = stack[level] + sum;
            level++;
        }
        stack[level] = sum;
    }
    var level = firstTrailingBit(params.leaves);
    var sum = stack[level];
    for (level++; level < 24u; level++) {
        if ((params.leaves >> level) & 1u) == 1u {
            sum = stack[level] + sum;
        }
    }
    gradient_set(0u, 1u, vec4<f32>(sum));
}
