// The indices of the four elements at `column`, as if they were places in memory.
fn element_at(column: u32) -> vec4<u32> {
    var at: vec4<u32>;
    for (var i = 0u; i < 4u; i++) {
        let col = column + i;
        at[i] = BASE_0 + ALONG;
    }
    return at;
}
