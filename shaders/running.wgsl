// Statistics from a running mean and variance; running estimates from a batch's moments.

// 2^100
const HUGE = 0x71800000u;

@compute @workgroup_size(GROUP)
fn from_running(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    if !enter_rows(group, groups, invocation) {
        return;
    }
    let mean = running_mean_at(0u);
    let variance = running_var_at(0u);
    let of_mean = magnitude(mean);
    let of_variance = magnitude(variance);
    let finite = (of_mean < BITS(INFINITY)) & (of_variance < BITS(INFINITY));
    let huge = ((of_mean >= BITS(HUGE)) | (of_variance >= BITS(HUGE))) & finite;
    let e = select(INT(0), max(exponent_of(of_mean), exponent_of(of_variance) >> BITS(1u)), huge);
    let d = two_sum(scale(variance, -2 * e), scale(REAL(params.eps), -2 * e));
    statistics_set(0u, scale(mean, -e));
    statistics_set(1u, REAL(0.0));
    statistics_set(2u, nearest_rsqrt(d.hi, select(REAL(0.0), d.lo, magnitude(d.hi) < BITS(INFINITY))));
    statistics_set(3u, REAL(e));
}
