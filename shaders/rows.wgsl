// A thread for every four rows, for what is done between the passes over tensors.

// Whether there are rows for this thread.
fn enter_rows(group: vec3<u32>, groups: vec3<u32>, invocation: u32) -> bool {
    let row = 4u * ((group.x + group.y * groups.x) * GROUP + invocation);
    if row >= params.rows {
        return false;
    }
    locate(params.first_row + row);
    return true;
}
