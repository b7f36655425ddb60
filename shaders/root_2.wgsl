// The norm that m2 is: of the 2-norm, its root.
fn root_of(m2: REAL) -> REAL {
    return sqrt_parts(m2, REAL(0.0)).hi;
}

// m2 as it is at another scale.
fn scale_m2(m2: REAL, p: INT) -> REAL {
    return scale(m2, DEGREE * p);
}
