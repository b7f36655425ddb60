// Combining the numbers of the THREADS threads of a row. Here a workgroup is exactly one subgroup and a row's threads
// are neighbours in it, so that shuffles do and no barrier is needed.

// The sum of the row's lanes: threads halved component by component, then the components. Two threads that would
// compute the same sum share its components out between them instead, which halves the shuffles; a sum of two is the
// same whichever comes first.
fn fold_sum(x: vec4<f32>) -> f32 {
    const HALF = THREADS / 2u;
    const QUARTER = THREADS / 4u;
    let upper = (thread & HALF) != 0u;
    let odd = (thread & QUARTER) != 0u;
    let two = select(x.xy, x.zw, upper) + subgroupShuffleXor(select(x.zw, x.xy, upper), HALF);
    var one = select(two.x, two.y, odd) + subgroupShuffleXor(select(two.y, two.x, odd), QUARTER);
    for (var half = QUARTER / 2u; half > 0u; half /= 2u) {
        one += subgroupShuffleXor(one, half);
    }
    let pair = one + subgroupShuffleXor(one, HALF);
    return pair + subgroupShuffleXor(pair, QUARTER);
}

fn fold_pair(a: vec4<f32>, b: vec4<f32>) -> Sums {
    return Sums(fold_sum(a), fold_sum(b));
}

// The sums over runs of 2 * `half` threads; each of them gets it.
fn fold_run(x: vec4<f32>, half: u32) -> vec4<f32> {
    var sum = x;
    for (var distance = half; distance > 0u; distance /= 2u) {
        sum += subgroupShuffleXor(sum, distance);
    }
    return sum;
}

fn fold_max(x: u32) -> u32 {
    var most = x;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        most = max(most, subgroupShuffleXor(most, half));
    }
    return most;
}

fn fold_or(x: u32) -> u32 {
    var all = x;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        all |= subgroupShuffleXor(all, half);
    }
    return all;
}

// Whether it holds for any row of the workgroup.
fn any_row(x: bool) -> bool {
    return subgroupAny(x);
}
