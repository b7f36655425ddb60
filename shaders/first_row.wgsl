// The mean of the leaf's first elements, as many as the largest power of two up to 32 that there are.
fn first_mean() -> f32 {
    let count = 1u << min(firstLeadingBit(leaf_length()), 5u);
    let quads = max(count / 4u, 1u);
    var x: vec4<f32>;
    if HELD > 0u && EXACT && THREADS == 8u {
        x = first_held();
    } else {
        x = first_element(leaf_start() + 4u * (thread % quads));
        if THREADS < quads {
            x += first_element(leaf_start() + 4u * (thread + THREADS));
        }
    }
    x = fold_run(x, min(quads, THREADS) / 2u);
    let all = (x.x + x.z) + (x.y + x.w);
    let sum = select(select(all, x.x + x.y, count == 2u), x.x, count == 1u);
    return opaque(sum * bitcast<f32>((127u - firstTrailingBit(count)) << 23u));
}

// The element in column `col`.
fn pick(col: u32) -> f32 {
    return x_at(col & ~3u)[col & 3u];
}
