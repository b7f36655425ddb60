// Combining the numbers of the THREADS threads of a row through workgroup memory: for adapters without subgroups, or
// whose subgroup size is not fixed. Every thread of the workgroup must come by.

var<workgroup> shared_sums: array<vec4<f32>, GROUP>;
var<workgroup> shared_bits: array<u32, GROUP>;

// The sum of the row's lanes: threads halved component by component, then the components.
fn fold_sum(x: vec4<f32>) -> f32 {
    shared_sums[lane] = x;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if thread < half {
            shared_sums[lane] += shared_sums[lane + half];
        }
        workgroupBarrier();
    }
    let four = shared_sums[lane - thread];
    workgroupBarrier();
    return (four.x + four.z) + (four.y + four.w);
}

fn fold_max(x: u32) -> u32 {
    shared_bits[lane] = x;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if thread < half {
            shared_bits[lane] = max(shared_bits[lane], shared_bits[lane + half]);
        }
        workgroupBarrier();
    }
    let most = shared_bits[lane - thread];
    workgroupBarrier();
    return most;
}

fn fold_or(x: u32) -> u32 {
    shared_bits[lane] = x;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if thread < half {
            shared_bits[lane] |= shared_bits[lane + half];
        }
        workgroupBarrier();
    }
    let all = shared_bits[lane - thread];
    workgroupBarrier();
    return all;
}

// Whether it holds for any row of the workgroup.
fn any_row(x: bool) -> bool {
    shared_bits[lane] = select(0u, 1u, x);
    workgroupBarrier();
    for (var half = GROUP / 2u; half > 0u; half /= 2u) {
        if lane < half {
            shared_bits[lane] |= shared_bits[lane + half];
        }
        workgroupBarrier();
    }
    return workgroupUniformLoad(&shared_bits[0]) != 0u;
}
