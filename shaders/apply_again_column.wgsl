// As `apply`, for rows that are scaled.

fn slow_apply() {
    for (var col = leaf_start(); col < leaf_start() + leaf_length(); col++) {
        slow_write(col);
    }
}
