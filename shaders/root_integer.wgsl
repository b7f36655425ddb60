// The norm that m2 is: of a p-norm with an integer p, whose powers are products.
fn root_of(m2: REAL) -> REAL {
    return real_power(m2, Two(REAL(params.inv_power), REAL(params.inv_power_low)));
}

// m2 as it is at another scale.
fn scale_m2(m2: REAL, p: INT) -> REAL {
    return scale(m2, DEGREE * p);
}
