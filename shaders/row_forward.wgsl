// y = (x - mean) * rstd * weight + bias, row by row. The row is read once and held in registers where it fits, and is
// read again from memory for each of the steps where it does not.

const SHIFTED = 0u;
const CENTRED = 1u;
const SQUARED = 2u;

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

fn scaled(leaf: u32, step: u32, quad: u32) -> vec4<f32> {
    if HELD > 0u {
        return held[step * QUADS + quad];
    }
    return scale4(input_at(column(leaf, step, quad)), -exponent);
}

fn centred(x: vec4<f32>) -> vec4<f32> {
    if MOMENTS {
        return opaque4(opaque4(x - mean) - correction);
    }
    return x;
}

fn term(which: u32, leaf: u32, step: u32, quad: u32) -> vec4<f32> {
    let x = scaled(leaf, step, quad);
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

fn statistics() {
    if MOMENTS {
        shift = scale(input_at(0u).x, -exponent);
        mean = opaque(shift + opaque(row_sum(SHIFTED) * params.inv_k));
        correction = opaque(row_sum(CENTRED) * params.inv_k);
    }
    statistic = opaque(row_sum(SQUARED) * params.inv_k);
    if OUTSIDE {
        let eps = scale(params.eps, -exponent);
        let q = sqrt_parts(statistic);
        root = opaque(q.hi + q.lo);
        divisor = opaque(root + eps);
        let virtual_eps = opaque(divisor - root);
        let error = opaque(opaque(root - opaque(divisor - virtual_eps)) + opaque(eps - virtual_eps));
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
    let leaves = select(params.leaves, 1u, HELD > 0u);
    for (var leaf = 0u; leaf < leaves; leaf++) {
        for (var step = 0u; step < steps_of(leaf, params.cols); step++) {
            for (var quad = 0u; quad < QUADS; quad++) {
                let x = scaled(leaf, step, quad);
                most = max(most, magnitude4(within(column(leaf, step, quad), params.prefix, x)));
            }
        }
    }
    let two = max(most.xy, most.zw);
    return fold_max(max(two.x, two.y));
}

// Chooses the exponent of an irregular row; whether the row is to be computed again.
fn rescale() -> bool {
    let most = largest();
    let usable = most < INFINITY && (most > 0u || params.eps > 0.0);
    let again = usable && !is_regular();
    if again {
        exponent = params.eps_exponent;
        if most > 0u {
            exponent = max(exponent, exponent_of(most));
        }
    }
    if HELD > 0u {
        for (var i = 0u; i < HELD * QUADS; i++) {
            held[i] = scale4(held[i], -exponent);
        }
    }
    return again;
}

@compute @workgroup_size(GROUP)
fn row_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(INVOCATION) invocation: u32,
) {
    enter(group, groups, invocation);
    exponent = 0;
    for (var step = 0u; step < HELD; step++) {
        for (var quad = 0u; quad < QUADS; quad++) {
            held[step * QUADS + quad] = input_at(column(0u, step, quad));
        }
    }
    var again = false;
    for (var attempt = 0u; attempt < 2u; attempt++) {
        statistics();
        if attempt == 1u || !any_row(!is_regular()) {
            break;
        }
        again = rescale();
    }
    if again && statistic == 0.0 {
        rstd = min(scale(params.eps_rstd, exponent), LARGEST);
    }
    if thread == 0u && live {
        statistics_set(4u * slot, select(select(0.0, root, OUTSIDE), mean, MOMENTS));
        statistics_set(4u * slot + 1u, correction);
        statistics_set(4u * slot + 2u, rstd);
        statistics_set(4u * slot + 3u, f32(exponent));
    }
    let leaves = select(params.leaves, 1u, HELD > 0u);
    for (var leaf = 0u; leaf < leaves; leaf++) {
        for (var step = 0u; step < steps_of(leaf, params.cols); step++) {
            for (var quad = 0u; quad < QUADS; quad++) {
                let col = column(leaf, step, quad);
                var y = opaque4(centred(scaled(leaf, step, quad)) * rstd);
                if ROUND {
                    y = round_input(y);
                }
                y = affine(col, y);
                if live && (EXACT || col < params.cols) {
                    output_set(col, params.cols, y);
                }
            }
        }
    }
}
