// As `apply`, for rows that are scaled.

fn slow_apply() {
    for (var step = 0u; step < step_count(); step++) {
        for (var quad = 0u; quad < QUADS; quad++) {
            slow_write(column(step, quad));
        }
    }
}
