// The gradient of alpha from those of the shares, which have the shares' names.

// -1, 0 or 1; NaN stays.
fn sign_of(z: vec4<f32>) -> vec4<f32> {
    let size = magnitude4(z);
    let sign = bitcast<vec4<u32>>(z) & vec4<u32>(0x80000000u);
    let one = bitcast<vec4<f32>>(sign | vec4<u32>(0x3f800000u));
    return select(one, abs(z), (size == vec4<u32>(0u)) | (size > vec4<u32>(INFINITY)));
}

@compute @workgroup_size(GROUP)
fn gradient_of_shares(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    if !enter_rows(group, groups, invocation) {
        return;
    }
    let difference = opaque4(mix_weight_at(0u) - inner_weight_at(0u));
    gradient_set(0u, alive, opaque4(opaque4(difference * params.factor) * sign_of(scaled_alpha())));
}
