// What a backward pass sums of a row or a part of it.

struct RowSums {
    count: REAL,
    s1: REAL,
    s2: REAL,
    ties: REAL,
    g_exponent: INT,
    w_exponent: INT,
}

// The power of two that the sums are to be multiplied by.
fn exponent_of_sums(s: RowSums) -> INT {
    return select(s.g_exponent + s.w_exponent, INT(0), s.g_exponent == INT(NONE));
}

fn merge_sums(a: RowSums, b: RowSums) -> RowSums {
    let none_a = a.g_exponent == INT(NONE);
    let none_b = b.g_exponent == INT(NONE);
    let of_a = a.g_exponent + a.w_exponent;
    let of_b = b.g_exponent + b.w_exponent;
    let left = (none_b | (of_a >= of_b)) & !none_a;
    let e = select(of_b, of_a, left);
    let down_a = select(of_a - e, INT(0), none_a | left);
    let down_b = select(of_b - e, INT(0), none_b | !left);
    let s1 = opaque(scale(a.s1, down_a) + scale(b.s1, down_b));
    let s2 = opaque(scale(a.s2, down_a) + scale(b.s2, down_b));
    return RowSums(
        opaque(a.count + b.count),
        select(select(s1, b.s1, none_a), a.s1, none_b),
        select(select(s2, b.s2, none_a), a.s2, none_b),
        opaque(a.ties + b.ties),
        select(b.g_exponent, a.g_exponent, left),
        select(b.w_exponent, a.w_exponent, left),
    );
}
