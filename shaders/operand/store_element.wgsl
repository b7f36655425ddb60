
fn NAME_set(col: u32, cols: u32, x: vec4<f32>) {
    let bits = narrow_DTYPE(x);
    NAME_put(col, bits.x);
    if col + 1u < cols {
        NAME_put(col + 1u, bits.y);
    }
    if col + 2u < cols {
        NAME_put(col + 2u, bits.z);
    }
    if col + 3u < cols {
        NAME_put(col + 3u, bits.w);
    }
}
