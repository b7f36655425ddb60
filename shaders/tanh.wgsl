// tanh and its derivative, four at a time, from one exponential. docs/numerics.md tells the steps.

const SIGN = 0x80000000u;
const LOG2E = 1.442695;
const MAGIC = 12582912.0;
const LN2_HI = 0.693145751953125;
const LN2_LO = 1.4286068e-6;
// Where -2 |z| is held; the bits of the |z| beyond which it is.
const LIMIT = -174.0;
const LIMIT_BITS = 0x42ae0000u;

fn horner(q: vec4<f32>, r: vec4<f32>, c: f32) -> vec4<f32> {
    return opaque4(opaque4(q * r) + c);
}

// Whether -2 |z| is below LIMIT; not so for NaN.
fn is_beyond(z: vec4<f32>) -> vec4<bool> {
    let bits = magnitude4(z);
    return (bits > vec4<u32>(LIMIT_BITS)) & (bits <= vec4<u32>(INFINITY));
}

// a = -2 |z|, held at LIMIT, and the multiple k of ln 2 nearest to it.
struct Exponent {
    a: vec4<f32>,
    k: vec4<i32>,
    // k as a number.
    kf: vec4<f32>,
}

fn exponent_parts(z: vec4<f32>) -> Exponent {
    let far = -2.0 * bitcast<vec4<f32>>(magnitude4(z));
    let a = opaque4(select(far, vec4<f32>(LIMIT), is_beyond(z)));
    let u = opaque4(opaque4(a * LOG2E) + MAGIC);
    return Exponent(a, bitcast<vec4<i32>>(u) - vec4<i32>(0x4b400000), opaque4(u - MAGIC));
}

// (exp(r) - 1 - r) / r^2, for |r| up to half of ln 2.
fn taylor(r: vec4<f32>) -> vec4<f32> {
    var q = vec4<f32>(2.48015873e-5);
    q = horner(q, r, 1.98412698e-4);
    q = horner(q, r, 1.38888889e-3);
    q = horner(q, r, 8.33333333e-3);
    q = horner(q, r, 4.16666667e-2);
    q = horner(q, r, 1.66666667e-1);
    return horner(q, r, 0.5);
}

// 2^k is the product of `power`, within the exponents of normal numbers, and `rest`. k is never positive.
fn power(k: vec4<i32>) -> vec4<f32> {
    return bitcast<vec4<f32>>((max(k, vec4<i32>(-126)) + vec4<i32>(127)) << vec4<u32>(23u));
}

fn rest(k: vec4<i32>) -> vec4<f32> {
    return bitcast<vec4<f32>>((min(k + vec4<i32>(126), vec4<i32>(0)) + vec4<i32>(127)) << vec4<u32>(23u));
}

// x * 2^k, each component with its own k, the two factors one after the other.
fn times_power(x: vec4<f32>, k: vec4<i32>) -> vec4<f32> {
    return opaque4(opaque4(x * power(k)) * rest(k));
}

// exp(a) = 2^k (1 + p + pl), exp(a) - 1 = em + eml and exp(a) + 1 = den + dl.
struct Expm1 {
    p: vec4<f32>,
    pl: vec4<f32>,
    k: vec4<i32>,
    em: vec4<f32>,
    eml: vec4<f32>,
    den: vec4<f32>,
    dl: vec4<f32>,
}

fn expm1_parts(z: vec4<f32>, zl: vec4<f32>) -> Expm1 {
    let sign = bitcast<vec4<u32>>(z) & vec4<u32>(SIGN);
    let at = exponent_parts(z);
    let al = select(-2.0 * bitcast<vec4<f32>>(bitcast<vec4<u32>>(zl) ^ sign), vec4<f32>(0.0), is_beyond(z));
    let t1 = opaque4(at.a - opaque4(at.kf * LN2_HI));
    let t2 = opaque4(at.kf * LN2_LO);
    let r = opaque4(t1 - t2);
    let rl = opaque4(opaque4(opaque4(t1 - r) - t2) + al);
    let w = opaque4(opaque4(r * r) * taylor(r));
    let p = opaque4(r + w);
    let pl = opaque4(opaque4(opaque4(r - p) + w) + opaque4(rl * opaque4(1.0 + p)));
    let s = power(at.k);
    let below = opaque4(s - 1.0);
    let sp = opaque4(s * p);
    let em = opaque4(below + sp);
    // What `s - 1` rounds away once s is below half an ulp of 1.
    let lost = opaque4(opaque4(-1.0 - below) + s);
    let eml = opaque4(opaque4(opaque4(opaque4(below - em) + sp) + opaque4(s * pl)) + lost);
    let den = opaque4(2.0 + em);
    let dl = opaque4(opaque4(opaque4(2.0 - den) + em) + eml);
    return Expm1(p, pl, at.k, em, eml, den, dl);
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

// The magnitude of x with the sign of z.
fn with_sign(x: vec4<f32>, z: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(magnitude4(x) | (bitcast<vec4<u32>>(z) & vec4<u32>(SIGN)));
}

// tanh(z) = -em / den, by one corrected division with the reciprocal r of den.
fn quotient(e: Expm1, r: vec4<f32>, z: vec4<f32>) -> vec4<f32> {
    let t0 = opaque4(e.em * r);
    let product = two_prod4(t0, e.den);
    let rem = opaque4(opaque4(opaque4(opaque4(e.em - product.hi) - product.lo) + e.eml) - opaque4(t0 * e.dl));
    return with_sign(opaque4(t0 + opaque4(r * rem)), z);
}

fn tanh_forward(z: vec4<f32>, zl: vec4<f32>) -> vec4<f32> {
    let e = expm1_parts(z, zl);
    return quotient(e, reciprocal(e.den), z);
}

// tanh to two ulp, for results that are rounded to 16 bits: the same steps with one number for one.
fn tanh_short(z: vec4<f32>) -> vec4<f32> {
    let at = exponent_parts(z);
    let r = opaque4(opaque4(at.a - opaque4(at.kf * LN2_HI)) - opaque4(at.kf * LN2_LO));
    let p = opaque4(r + opaque4(opaque4(r * r) * taylor(r)));
    let s = power(at.k);
    let below = opaque4(s - 1.0);
    let sp = opaque4(s * p);
    let em = opaque4(below + sp);
    let eml = opaque4(opaque4(below - em) + sp);
    let den = opaque4(2.0 + em);
    let dl = opaque4(opaque4(opaque4(2.0 - den) + em) + eml);
    let inverse = reciprocal(den);
    let t0 = opaque4(em * inverse);
    let rem = opaque4(opaque4(opaque4(em - opaque4(t0 * den)) + eml) - opaque4(t0 * dl));
    return with_sign(opaque4(t0 + opaque4(inverse * rem)), z);
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
    let t = quotient(x, r1, z);
    let beyond = is_beyond(z);
    // Beyond the limit, 2^-100: so little that no finite gradient survives it, but an infinite one stays infinite.
    let little = select(vec4<f32>(0.0), vec4<f32>(7.888609052210118e-31), magnitude4(z) < vec4<u32>(INFINITY));
    return TanhBackward(t, select(h.hi, little, beyond), select(hl, vec4<f32>(0.0), beyond), x.k);
}

// alpha * x and its error, the latter where it still matters.
fn scaled_input(alpha: f32, x: vec4<f32>) -> Two4 {
    let z = two_prod4(vec4<f32>(alpha), x);
    let near = magnitude4(z.hi) <= vec4<u32>(0x49800000u);
    return Two4(z.hi, select(vec4<f32>(0.0), z.lo, near));
}
