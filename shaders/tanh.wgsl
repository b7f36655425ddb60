// tanh and its derivative, four at a time, from one exponential kept as two numbers. docs/numerics.md tells the steps.

const LOG2E = 1.442695;
const MAGIC = 12582912.0;
const LN2_HI = 0.693145751953125;
const LN2_LO = 1.4286068e-6;
const LIMIT = -174.0;

struct Expm1 {
    p: vec4<f32>,
    pl: vec4<f32>,
    k: vec4<i32>,
    em: vec4<f32>,
    eml: vec4<f32>,
    den: vec4<f32>,
    dl: vec4<f32>,
}

fn horner(q: vec4<f32>, r: vec4<f32>, c: f32) -> vec4<f32> {
    return opaque4(opaque4(q * r) + c);
}

fn expm1_parts(z: vec4<f32>, zl: vec4<f32>) -> Expm1 {
    let sign = bitcast<vec4<u32>>(z) & vec4<u32>(0x80000000u);
    let far = -2.0 * bitcast<vec4<f32>>(magnitude4(z));
    let beyond = far < vec4<f32>(LIMIT);
    let a = opaque4(select(far, vec4<f32>(LIMIT), beyond));
    let al = select(-2.0 * bitcast<vec4<f32>>(bitcast<vec4<u32>>(zl) ^ sign), vec4<f32>(0.0), beyond);
    let u = opaque4(opaque4(a * LOG2E) + MAGIC);
    let kf = opaque4(u - MAGIC);
    let k = bitcast<vec4<i32>>(u) - vec4<i32>(0x4b400000);
    let t1 = opaque4(a - opaque4(kf * LN2_HI));
    let t2 = opaque4(kf * LN2_LO);
    let r = opaque4(t1 - t2);
    let rl = opaque4(opaque4(opaque4(t1 - r) - t2) + al);
    var q = vec4<f32>(2.4801588e-5);
    q = horner(q, r, 1.9841270e-4);
    q = horner(q, r, 1.3888889e-3);
    q = horner(q, r, 8.3333333e-3);
    q = horner(q, r, 4.1666668e-2);
    q = horner(q, r, 1.6666667e-1);
    q = horner(q, r, 0.5);
    let w = opaque4(opaque4(r * r) * q);
    let p = opaque4(r + w);
    let pl = opaque4(opaque4(opaque4(r - p) + w) + opaque4(rl * opaque4(1.0 + p)));
    let s = bitcast<vec4<f32>>((max(k, vec4<i32>(-126)) + vec4<i32>(127)) << vec4<u32>(23u));
    let below = opaque4(s - 1.0);
    let sp = opaque4(s * p);
    let em = opaque4(below + sp);
    // What `s - 1` rounds away once s is below half an ulp of 1.
    let lost = opaque4(opaque4(-1.0 - below) + s);
    let eml = opaque4(opaque4(opaque4(opaque4(below - em) + sp) + opaque4(s * pl)) + lost);
    let den = opaque4(2.0 + em);
    let dl = opaque4(opaque4(opaque4(2.0 - den) + em) + eml);
    return Expm1(p, pl, k, em, eml, den, dl);
}

fn newton(d: vec4<f32>, r: vec4<f32>) -> vec4<f32> {
    return opaque4(r + opaque4(r * opaque4(1.0 - opaque4(d * r))));
}

// 1 / d on [1, 2]: the quadratic with the least relative error, then two Newton steps.
const SEED = vec3<f32>(2.1212120056152344, -1.454545497894287, 0.3232323229312897);

fn reciprocal(d: vec4<f32>) -> vec4<f32> {
    let seed = horner(horner(vec4<f32>(SEED.z), d, SEED.y), d, SEED.x);
    return newton(d, newton(d, seed));
}

fn with_sign(x: vec4<f32>, sign: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) ^ (bitcast<vec4<u32>>(sign) & vec4<u32>(0x80000000u)));
}

fn tanh_forward(z: vec4<f32>, zl: vec4<f32>) -> vec4<f32> {
    let e = expm1_parts(z, zl);
    let r = reciprocal(e.den);
    let t0 = opaque4(e.em * r);
    let ph = two_prod4(t0, e.den);
    let rem = opaque4(opaque4(opaque4(opaque4(e.em - ph.hi) - ph.lo) + e.eml) - opaque4(t0 * e.dl));
    return with_sign(abs(opaque4(t0 + opaque4(r * rem))), z);
}

struct TanhBackward {
    // tanh(z)
    t: vec4<f32>,
    // sech(z)^2 = 2^k (h + hl)
    h: vec4<f32>,
    hl: vec4<f32>,
    k: vec4<i32>,
}

fn tanh_backward(z: vec4<f32>, zl: vec4<f32>) -> TanhBackward {
    let x = expm1_parts(z, zl);
    let e = opaque4(1.0 + x.p);
    let el = opaque4(opaque4(opaque4(1.0 - e) + x.p) + x.pl);
    let d = two_prod4(x.den, x.den);
    let dl = opaque4(d.lo + opaque4(opaque4(2.0 * x.den) * x.dl));
    let r1 = reciprocal(x.den);
    let r = opaque4(r1 * r1);
    let ph = two_prod4(d.hi, r);
    let rl = opaque4(r * opaque4(opaque4(opaque4(1.0 - ph.hi) - ph.lo) - opaque4(dl * r)));
    let e4 = 4.0 * e;
    let h = two_prod4(e4, r);
    let hl = opaque4(h.lo + opaque4(opaque4(e4 * rl) + opaque4(opaque4(4.0 * el) * r)));
    let t = with_sign(abs(opaque4(x.em * opaque4(x.den * r))), z);
    let beyond = -2.0 * bitcast<vec4<f32>>(magnitude4(z)) < vec4<f32>(LIMIT);
    return TanhBackward(t, select(h.hi, vec4<f32>(0.0), beyond), select(hl, vec4<f32>(0.0), beyond), x.k);
}

// x * 2^p, each component with its own p.
fn scale_each(x: vec4<f32>, p: vec4<i32>) -> vec4<f32> {
    let first = clamp(p, vec4<i32>(-126), vec4<i32>(126));
    let second = clamp(p - first, vec4<i32>(-126), vec4<i32>(126));
    let third = p - first - second;
    let bias = vec4<i32>(127);
    let shift = vec4<u32>(23u);
    let once = opaque4(x * bitcast<vec4<f32>>((first + bias) << shift));
    let twice = opaque4(once * bitcast<vec4<f32>>((second + bias) << shift));
    return opaque4(twice * bitcast<vec4<f32>>((third + bias) << shift));
}

// alpha * x and its error, the latter where it still matters.
fn scaled_input(alpha: f32, x: vec4<f32>) -> Two4 {
    let z = two_prod4(vec4<f32>(alpha), x);
    let near = magnitude4(z.hi) <= vec4<u32>(0x49800000u);
    return Two4(z.hi, select(vec4<f32>(0.0), z.lo, near));
}
