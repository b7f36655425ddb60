// Combining the numbers of the THREADS threads of a row through workgroup memory: for adapters without subgroups, or
// whose subgroup size is not fixed. Every thread of the workgroup must come by.

var<workgroup> shared_a: array<vec4<f32>, GROUP>;
var<workgroup> shared_b: array<vec4<f32>, GROUP>;
var<workgroup> shared_bits: array<u32, GROUP>;

fn components(four: vec4<f32>) -> f32 {
    return (four.x + four.z) + (four.y + four.w);
}

// The sums of the row's lanes: threads halved component by component, then the components.
fn fold_pair(a: vec4<f32>, b: vec4<f32>) -> Sums {
    shared_a[lane] = a;
    shared_b[lane] = b;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if thread < half {
            shared_a[lane] += shared_a[lane + half];
            shared_b[lane] += shared_b[lane + half];
        }
        workgroupBarrier();
    }
    let sums = Sums(components(shared_a[lane - thread]), components(shared_b[lane - thread]));
    workgroupBarrier();
    return sums;
}

// The sums over runs of 2 * `half` threads; each of them gets it.
fn fold_run(x: vec4<f32>, half: u32) -> vec4<f32> {
    shared_a[lane] = x;
    workgroupBarrier();
    let in_run = thread % max(2u * half, 1u);
    for (var distance = half; distance > 0u; distance /= 2u) {
        if in_run < distance {
            shared_a[lane] += shared_a[lane + distance];
        }
        workgroupBarrier();
    }
    let sum = shared_a[lane - in_run];
    workgroupBarrier();
    return sum;
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
