// The sums of the rare leaf that is read again, at some scale.

fn slow_sums() -> Sums {
    let end = leaf_start() + leaf_length();
    for (var index = 0u; index < LANES; index++) {
        var a = zero4();
        var b = zero4();
        for (var col = leaf_start() + lane_at(index, LANES); col < end; col += LANES) {
            let term = slow_term(col);
            a += term.a;
            b += term.b;
        }
        push(index, a, b);
    }
    return Sums(waiting_a[LANE_BITS], waiting_b[LANE_BITS]);
}
