// The normal distribution, four at a time. docs/numerics.md tells the steps.

// Bits of the |z| that count at most, 16.
const NORMAL_LIMIT = 0x41800000u;
// 1 / sqrt(2 pi)
const BELL = 0.3989422804014327;

// The share of what is below z, and exp(-z^2 / 2).
struct Normal {
    below: vec4<f32>,
    bell: vec4<f32>,
}

// 1 / d for d from 1 up, in the exponent that its half is in.
fn reciprocal_above(d: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(d);
    let half = bitcast<vec4<f32>>((bits & vec4<u32>(0x7fffffu)) | vec4<u32>(0x3f000000u));
    return opaque4(reciprocal(half) * bitcast<vec4<f32>>((vec4<u32>(253u) - (bits >> vec4<u32>(23u))) << vec4<u32>(23u)));
}

fn normal(z: vec4<f32>) -> Normal {
    let size = within(z, NORMAL_LIMIT);
    let half_square = opaque4(0.5 * opaque4(size * size));
    let a = opaque4(0.5 * within(half_square, SIGMA_LIMIT));
    let u = halves(a);
    let k = opaque4(u - MAGIC_POWER);
    let power = bitcast<vec4<f32>>(bitcast<vec4<u32>>(u) << vec4<u32>(23u));
    let rho = opaque4(opaque4(a + k * STEP_HI) + opaque4(k * STEP_LO));
    let e = opaque4(1.0 - 2.0 * opaque4(rho - bend(rho)));
    let bell = select(opaque4(e * power), vec4<f32>(0.0), is_beyond(half_square, SIGMA_LIMIT));
    let t = reciprocal_above(opaque4(1.0 + opaque4(0.3125 * size)));
    var r = vec4<f32>(0.050154891);
    r = horner(r, t, -0.28117874);
    r = horner(r, t, 0.53267837);
    r = horner(r, t, -0.3152837);
    r = horner(r, t, 0.3167805);
    r = horner(r, t, 0.06239751);
    r = horner(r, t, 0.13520992);
    r = horner(r, t, -0.0007587924);
    let tail = opaque4(bell * r);
    let is_below = (bitcast<vec4<u32>>(z) & vec4<u32>(SIGN)) != vec4<u32>(0u);
    return Normal(select(opaque4(1.0 - tail), tail, is_below), bell);
}
