// The indices of the four elements at `col`, as if they were places in memory.
fn element_at(col: u32) -> vec4<u32> {
    return vec4<u32>(BASE_0, BASE_1, BASE_2, BASE_3) + ALONG;
}
