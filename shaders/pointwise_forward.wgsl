// y = tanh(alpha * x) * weight + bias, a quad of columns of a row at a time. A workgroup takes GROUP neighbouring
// quads of the whole tensor.

@compute @workgroup_size(GROUP)
fn pointwise_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let quads = (params.cols + 3u) / 4u;
    // Workgroups count quads along a row first; `col_groups` workgroups cover it.
    let index = group.x + group.y * groups.x;
    let row = index / params.col_groups;
    let quad = (index % params.col_groups) * GROUP + invocation;
    if row >= params.rows || quad >= quads {
        return;
    }
    locate(params.first_row + row);
    let col = 4u * quad;
    let z = scaled_input(alpha_at(0u).x, input_at(col));
    output_set(col, params.cols, affine(col, tanh_forward(z.hi, z.lo)));
}
