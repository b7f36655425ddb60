// The norm that m2 is: of the 1-norm and the infinity norm, m2 itself.
fn root_of(m2: REAL) -> REAL {
    return m2;
}
