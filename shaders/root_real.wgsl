// The norm that m2 is: of a p-norm with any p.
fn root_of(m2: REAL) -> REAL {
    return real_power(m2, Two(REAL(params.inv_power), REAL(params.inv_power_low)));
}

// m2 as it is at another scale.
fn scale_m2(m2: REAL, p: INT) -> REAL {
    let by = REAL(p);
    let y = two_prod(by, REAL(params.power));
    let power = exp2_parts(y.hi, opaque(y.lo + opaque(by * params.power_low)));
    return scale(opaque(m2 * power.factor), power.k);
}
