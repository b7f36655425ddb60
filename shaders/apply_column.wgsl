// Calls `fast_write` for every column of the leaf.
fn fast_apply() {
    for (var col = leaf_start(); col < leaf_start() + leaf_length(); col++) {
        fast_write(0u, col);
    }
}
