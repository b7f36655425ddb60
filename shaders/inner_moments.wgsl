// Makes the statistics of the branch's norm of the current rows, whose elements stay in registers if they fit.
fn enter_inner() {
    for (var step = 0u; step < HELD; step++) { // unrolled
        for (var quad = 0u; quad < QUADS; quad++) { // unrolled
            held[step * QUADS + quad] = input_at(column(step, quad));
        }
    }
    s_of_inner = finish_of_inner(leaf_moments_of_inner());
    if HAS_INNER_STATISTICS && is_first() {
        inner_statistics_set(0u, s_of_inner.mean);
        inner_statistics_set(1u, s_of_inner.correction);
        inner_statistics_set(2u, s_of_inner.rstd);
        inner_statistics_set(3u, REAL(s_of_inner.exponent));
    }
}
