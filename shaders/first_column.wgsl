// The mean of the leaf's first elements, as many as the largest power of two up to 32 that there are.
fn first_mean() -> vec4<f32> {
    let count = 1u << min(firstLeadingBit(leaf_length()), 5u);
    for (var index = 0u; index < count; index++) {
        let x = first_element(leaf_start() + lane_at(index, count));
        push(index, x, x);
    }
    let bits = firstTrailingBit(count);
    return opaque4(waiting_a[bits] * bitcast<f32>((127u - bits) << 23u));
}

// Of each row, the element in the column named for it.
fn pick(col: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(x_at(col.x).x, x_at(col.y).y, x_at(col.z).z, x_at(col.w).w);
}
