// The sums of a leaf whose row may be in registers: see `leaf_row`.

fn fast_sums() -> Sums {
    var a: array<vec4<f32>, QUADS>;
    var b: array<vec4<f32>, QUADS>;
    for (var quad = 0u; quad < QUADS; quad++) { // unrolled
        a[quad] = zero4();
        b[quad] = zero4();
    }
    if HELD > 0u {
        for (var step = 0u; step < HELD; step++) { // unrolled
            for (var quad = 0u; quad < QUADS; quad++) { // unrolled
                let term = fast_term(step * QUADS + quad, column(step, quad));
                a[quad] += term.a;
                b[quad] += term.b;
            }
        }
    } else {
        for (var step = 0u; step < step_count(); step++) {
            for (var quad = 0u; quad < QUADS; quad++) { // unrolled
                let term = fast_term(0u, column(step, quad));
                a[quad] += term.a;
                b[quad] += term.b;
            }
        }
    }
    HALVE;
    return fold_pair(a[0], b[0]);
}
