// The norm that m2 is: of the 1-norm and the infinity norm, m2 itself.
fn root_of(m2: REAL) -> REAL {
    return m2;
}

// m2 as it is at another scale.
fn scale_m2(m2: REAL, p: INT) -> REAL {
    return scale(m2, DEGREE * p);
}
