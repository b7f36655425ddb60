// y = (x - mean) * rstd * weight + bias, row by row. A row that fits is read once and held in registers; a longer one is read again for each step. So is the rare row whose magnitude
// calls for a scale, so that the common path stays short.

const SHIFTED = 0u;
const CENTRED = 1u;
const SQUARED = 2u;
const KEPT = HELD > 0u;

var<private> held: array<vec4<f32>, HELD * QUADS + 1u>;
var<private> shift: f32;
var<private> mean: f32;
var<private> correction: f32;
var<private> rstd: f32;
var<private> root: f32;
var<private> statistic: f32;
var<private> divisor: f32;
// The row is read as x * 2^-exponent.
var<private> exponent: i32;

fn element(kept: bool, leaf: u32, step: u32, quad: u32) -> vec4<f32> {
    if kept {
        return held[step * QUADS + quad];
    }
    return scale_row(input_at(column(leaf, step, quad)), -exponent);
}

fn centred(x: vec4<f32>) -> vec4<f32> {
    if MOMENTS {
        return opaque4(opaque4(x - mean) - correction);
    }
    return x;
}

fn term(which: u32, kept: bool, leaf: u32, step: u32, quad: u32) -> vec4<f32> {
    let x = element(kept, leaf, step, quad);
    let col = column(leaf, step, quad);
    if which == SHIFTED {
        return inside(col, opaque4(x - shift));
    }
    if which == CENTRED {
        return inside(col, opaque4(x - mean));
    }
    let e = centred(x);
    if PREFIX {
        return within(col, params.prefix, opaque4(e * e));
    }
    return inside(col, opaque4(e * e));
}

fn compute(kept: bool) {
    if MOMENTS {
        shift = scale_row(input_at(0u), -exponent).x;
        mean = opaque(shift + opaque(row_sum(SHIFTED, kept) * params.inv_k));
        correction = opaque(row_sum(CENTRED, kept) * params.inv_k);
    }
    statistic = opaque(row_sum(SQUARED, kept) * params.inv_k);
    if OUTSIDE {
        let eps = scale(params.eps, -exponent);
        let q = sqrt_parts(statistic);
        root = q.hi;
        divisor = opaque(root + eps);
        // What the sum rounds away (Knuth's two-sum), and the root's own rest.
        let part = opaque(divisor - root);
        let error = opaque(opaque(root - opaque(divisor - part)) + opaque(eps - part));
        rstd = nearest_recip(divisor, opaque(error + q.lo));
    } else {
        divisor = opaque(statistic + scale(params.eps, -2 * exponent));
        rstd = nearest_rsqrt(divisor);
    }
}

// By bits, so that NaN is irregular too.
fn is_regular() -> bool {
    let bits = bitcast<u32>(divisor);
    return bits >= LOW && bits <= HIGH;
}

// The largest magnitude bits that the statistic sees.
fn largest() -> u32 {
    var most = vec4<u32>(0u);
    for (var leaf = 0u; leaf < params.leaves; leaf++) {
        for (var step = 0u; step < step_count(leaf); step++) {
            for (var quad = 0u; quad < QUADS; quad++) { // unrolled
                let col = column(leaf, step, quad);
                most = max(most, magnitude4(within(col, params.prefix, input_at(col))));
            }
        }
    }
    let two = max(most.xy, most.zw);
    return fold_max(max(two.x, two.y));
}

// Computes a row again whose divisor left the safe range. Regular rows beside it in the workgroup come by with an
// exponent of zero and get the numbers they had.
fn rescale() {
    let most = largest();
    let usable = most < INFINITY && (most > 0u || params.eps > 0.0);
    let again = usable && !is_regular();
    if again {
        exponent = params.eps_exponent;
        if most > 0u {
            exponent = max(exponent, exponent_of(most));
        }
    }
    compute(false);
    if again && statistic == 0.0 {
        rstd = min(scale(params.eps_rstd, exponent), LARGEST);
    }
}

// Writes what the scaled elements at `col` become.
fn write(col: u32, x: vec4<f32>) {
    var y = opaque4(centred(x) * rstd);
    if ROUND {
        y = round_input(y);
    }
    y = affine(col, y);
    if live && (EXACT || col < params.cols) {
        output_set(col, params.cols, y);
    }
}

@compute @workgroup_size(GROUP)
fn row_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(INVOCATION) invocation: u32,
) {
    enter(invocation);
    choose_row(group, groups);
    for (var step = 0u; step < HELD; step++) { // unrolled
        for (var quad = 0u; quad < QUADS; quad++) { // unrolled
            held[step * QUADS + quad] = input_at(column(0u, step, quad));
        }
    }
    exponent = 0;
    compute(KEPT);
    if any_row(!is_regular()) {
        rescale();
    }
    if HAS_STATISTICS && thread == 0u && live {
        statistics_set(4u * slot, select(select(0.0, root, OUTSIDE), mean, MOMENTS));
        statistics_set(4u * slot + 1u, correction);
        statistics_set(4u * slot + 2u, rstd);
        statistics_set(4u * slot + 3u, f32(exponent));
    }
    if KEPT {
        for (var step = 0u; step < HELD; step++) { // unrolled
            for (var quad = 0u; quad < QUADS; quad++) { // unrolled
                write(column(0u, step, quad), scale_row(element(true, 0u, step, quad), -exponent));
            }
        }
    } else {
        for (var leaf = 0u; leaf < params.leaves; leaf++) {
            for (var step = 0u; step < step_count(leaf); step++) {
                for (var quad = 0u; quad < QUADS; quad++) { // unrolled
                    write(column(leaf, step, quad), element(false, leaf, step, quad));
                }
            }
        }
    }
}
