// Combining the numbers of the THREADS threads of a row. Here a workgroup is exactly one subgroup and a row's threads
// are neighbours in it, so that shuffles do and no barrier is needed.

fn fold_add(x: vec4<f32>) -> vec4<f32> {
    var sum = x;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        sum += subgroupShuffleXor(sum, half);
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
