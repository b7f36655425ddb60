// Calls `fast_write` for every quad of the leaf.
fn fast_apply() {
    if HELD > 0u {
        for (var step = 0u; step < HELD; step++) { // unrolled
            for (var quad = 0u; quad < QUADS; quad++) { // unrolled
                fast_write(step * QUADS + quad, column(step, quad));
            }
        }
        return;
    }
    for (var step = 0u; step < step_count(); step++) {
        for (var quad = 0u; quad < QUADS; quad++) { // unrolled
            fast_write(0u, column(step, quad));
        }
    }
}
