// grad_input = rstd * (ghat - mean(ghat) - x_hat * mean(ghat * x_hat)), ghat = grad_output * weight, row by row. As in
// `row_forward`, a row that fits is held; the rare row whose sums leave the safe range is read again, scaled.

const OF_GHAT = 0u;
const OF_PRODUCT = 1u;
const KEPT = HELD > 0u;

var<private> held_hat: array<vec4<f32>, HELD * QUADS + 1u>;
var<private> held_ghat: array<vec4<f32>, HELD * QUADS + 1u>;
// The saved statistics.
var<private> mean: f32;
var<private> correction: f32;
var<private> rstd: f32;
var<private> exponent: i32;
// Exponents taken out of grad_output and of the weight.
var<private> g_exponent: i32;
var<private> w_exponent: i32;
// OR of the magnitude bits of all ghat.
var<private> seen: vec4<u32>;

fn x_hat(x: vec4<f32>) -> vec4<f32> {
    let scaled = scale_row(x, -exponent);
    if MOMENTS {
        return opaque4(opaque4(opaque4(scaled - mean) - correction) * rstd);
    }
    return opaque4(scaled * rstd);
}

fn hat(kept: bool, leaf: u32, step: u32, quad: u32) -> vec4<f32> {
    if kept {
        return held_hat[step * QUADS + quad];
    }
    return x_hat(input_at(column(leaf, step, quad)));
}

fn ghat(kept: bool, leaf: u32, step: u32, quad: u32) -> vec4<f32> {
    if kept {
        return held_ghat[step * QUADS + quad];
    }
    let col = column(leaf, step, quad);
    let g = scale_row(grad_output_at(col), -g_exponent);
    if HAS_WEIGHT {
        return opaque4(g * scale_row(full_weight(col), -w_exponent));
    }
    return g;
}

fn term(which: u32, kept: bool, leaf: u32, step: u32, quad: u32) -> vec4<f32> {
    let g = inside(column(leaf, step, quad), ghat(kept, leaf, step, quad));
    seen |= magnitude4(g);
    if which == OF_GHAT {
        return g;
    }
    return inside(column(leaf, step, quad), opaque4(g * hat(kept, leaf, step, quad)));
}

// The largest magnitude bits of grad_output (and of the weight) in the row.
fn largest(of_weight: bool) -> u32 {
    var most = vec4<u32>(0u);
    for (var leaf = 0u; leaf < params.leaves; leaf++) {
        for (var step = 0u; step < step_count(leaf); step++) {
            for (var quad = 0u; quad < QUADS; quad++) { // unrolled
                let col = column(leaf, step, quad);
                if of_weight {
                    most = max(most, magnitude4(inside(col, full_weight(col))));
                } else {
                    most = max(most, magnitude4(inside(col, grad_output_at(col))));
                }
            }
        }
    }
    let two = max(most.xy, most.zw);
    return fold_max(max(two.x, two.y));
}

struct Means {
    c1: f32,
    c2: f32,
    regular: bool,
}

fn means(kept: bool, root: f32) -> Means {
    var s1 = 0.0;
    seen = vec4<u32>(0u);
    if MOMENTS {
        s1 = row_sum(OF_GHAT, kept);
    }
    let s2 = row_sum(OF_PRODUCT, kept);
    let two = seen.xy | seen.zw;
    let any_large = (fold_or(two.x | two.y) & 0x60000000u) != 0u;
    // 2^100
    let small = magnitude(s1) < 0x71800000u && magnitude(s2) < 0x71800000u;
    var c2 = opaque(s2 * params.inv_k);
    if OUTSIDE {
        c2 = select(opaque(c2 * nearest_recip_product(rstd, root)), 0.0, root == 0.0);
    }
    return Means(opaque(s1 * params.inv_k), c2, small && any_large);
}

fn is_ordinary(bits: u32) -> bool {
    return bits > 0u && bits < INFINITY;
}

// Takes the exponents out of a row's gradients and weights. Regular rows beside it keep exponents of zero.
fn rescale(regular: bool) {
    let g = largest(false);
    var w = 0x3f800000u;
    if HAS_WEIGHT {
        w = largest(true);
    }
    if !regular && is_ordinary(g) && is_ordinary(w) {
        g_exponent = exponent_of(g);
        w_exponent = exponent_of(w);
    }
}

fn write(kept: bool, c: Means, leaf: u32, step: u32, quad: u32) {
    let col = column(leaf, step, quad);
    let product = opaque4(hat(kept, leaf, step, quad) * c.c2);
    let g = ghat(kept, leaf, step, quad);
    var d = g;
    if MOMENTS {
        d = opaque4(opaque4(g - c.c1) - product);
    } else if PREFIX {
        let counted = vec4<u32>(col) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.prefix);
        d = select(g, opaque4(g - product), counted);
    } else {
        d = opaque4(g - product);
    }
    d = opaque4(rstd * d);
    if kept {
        d = scale_row(d, -exponent);
    } else {
        d = scale4(d, g_exponent + w_exponent - exponent);
    }
    if live && (EXACT || col < params.cols) {
        grad_input_set(col, params.cols, d);
    }
}

fn apply(kept: bool, c: Means) {
    if kept {
        for (var step = 0u; step < HELD; step++) { // unrolled
            for (var quad = 0u; quad < QUADS; quad++) { // unrolled
                write(true, c, 0u, step, quad);
            }
        }
        return;
    }
    for (var leaf = 0u; leaf < params.leaves; leaf++) {
        for (var step = 0u; step < step_count(leaf); step++) {
            for (var quad = 0u; quad < QUADS; quad++) { // unrolled
                write(false, c, leaf, step, quad);
            }
        }
    }
}

@compute @workgroup_size(GROUP)
fn row_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(INVOCATION) invocation: u32,
) {
    enter(invocation);
    choose_row(group, groups);
    let root = statistics_get(4u * slot);
    mean = root;
    correction = statistics_get(4u * slot + 1u);
    rstd = statistics_get(4u * slot + 2u);
    exponent = i32(statistics_get(4u * slot + 3u));
    g_exponent = 0;
    w_exponent = 0;
    for (var step = 0u; step < HELD; step++) { // unrolled
        for (var quad = 0u; quad < QUADS; quad++) { // unrolled
            let col = column(0u, step, quad);
            let i = step * QUADS + quad;
            held_hat[i] = x_hat(input_at(col));
            held_ghat[i] = grad_output_at(col);
            if HAS_WEIGHT {
                held_ghat[i] = opaque4(held_ghat[i] * full_weight(col));
            }
        }
    }
    let plain = means(KEPT, root);
    if any_row(!plain.regular) {
        rescale(plain.regular);
        apply(false, means(false, root));
    } else {
        apply(KEPT, plain);
    }
}
