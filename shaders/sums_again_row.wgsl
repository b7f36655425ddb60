// The sums of the rare leaf that is read again, at some scale: short rather than fast.

fn slow_sums() -> Sums {
    var a: array<vec4<f32>, QUADS>;
    var b: array<vec4<f32>, QUADS>;
    for (var quad = 0u; quad < QUADS; quad++) {
        a[quad] = zero4();
        b[quad] = zero4();
        for (var step = 0u; step < step_count(); step++) {
            let term = slow_term(column(step, quad));
            a[quad] += term.a;
            b[quad] += term.b;
        }
    }
    for (var half = QUADS / 2u; half > 0u; half /= 2u) {
        for (var quad = 0u; quad < half; quad++) {
            a[quad] += a[quad + half];
            b[quad] += b[quad + half];
        }
    }
    return fold_pair(a[0], b[0]);
}

// The largest of the bits that the row's threads have seen.
fn fold_most(x: vec4<u32>) -> u32 {
    let two = max(x.xy, x.zw);
    return fold_max(max(two.x, two.y));
}

fn fold_all(x: vec4<u32>) -> u32 {
    let two = x.xy | x.zw;
    return fold_or(two.x | two.y);
}

// Sums of small integers, in any order.
fn fold_count(x: vec4<f32>) -> f32 {
    return fold_pair(x, x).a;
}
