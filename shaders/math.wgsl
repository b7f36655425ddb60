// float32 arithmetic with known rounding. WGSL compilers may assume real numbers: `(a + b) - a` may become `b`, and a
// product may be fused into the sum that takes it. What passes through `opaque` is a rounded float32 of its own.

const MAGNITUDE = 0x7fffffffu;
const INFINITY = 0x7f800000u;
// In hexadecimal, which is exact: its shortest decimal lies above, and browsers refuse that.
const LARGEST = 0x1.fffffep+127f;

fn opaque(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) ^ params.zero);
}

fn opaque4(x: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) ^ vec4<u32>(params.zero));
}

// A zero that is not folded away: adding to it turns -0 into 0, as the first step of every sum does.
fn zero4() -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(params.zero));
}

fn magnitude(x: f32) -> u32 {
    return bitcast<u32>(x) & MAGNITUDE;
}

fn magnitude4(x: vec4<f32>) -> vec4<u32> {
    return bitcast<vec4<u32>>(x) & vec4<u32>(MAGNITUDE);
}

fn infinity() -> f32 {
    return bitcast<f32>(INFINITY ^ params.zero);
}

// The exponent of a number given by its magnitude bits.
fn exponent_of(bits: u32) -> i32 {
    return i32(bits >> 23u) - 127;
}

fn pow2(p: i32) -> f32 {
    return bitcast<f32>(u32(p + 127) << 23u);
}

// x * 2^p in three steps, so that no factor leaves the normal range.
fn scale4(x: vec4<f32>, p: i32) -> vec4<f32> {
    let first = clamp(p, -126, 126);
    let second = clamp(p - first, -126, 126);
    let third = p - first - second;
    return opaque4(opaque4(opaque4(x * pow2(first)) * pow2(second)) * pow2(third));
}

// As `scale4` for |p| <= 127 where two steps do.
fn scale_row(x: vec4<f32>, p: i32) -> vec4<f32> {
    let first = clamp(p, -126, 126);
    return opaque4(opaque4(x * pow2(first)) * pow2(p - first));
}

fn scale(x: f32, p: i32) -> f32 {
    return scale4(vec4<f32>(x), p).x;
}

struct Two {
    hi: f32,
    lo: f32,
}

struct Two4 {
    hi: vec4<f32>,
    lo: vec4<f32>,
}

// The product and its error. Products of halves are exact, so only the order of the sums needs protection.
fn two_prod4(a: vec4<f32>, b: vec4<f32>) -> Two4 {
    let ah = bitcast<vec4<f32>>(bitcast<vec4<u32>>(a) & vec4<u32>(0xfffff000u));
    let bh = bitcast<vec4<f32>>(bitcast<vec4<u32>>(b) & vec4<u32>(0xfffff000u));
    let al = opaque4(a - ah);
    let bl = opaque4(b - bh);
    let p = opaque4(a * b);
    let high = opaque4(opaque4(ah * bh) - p);
    let middle = opaque4(opaque4(high + opaque4(ah * bl)) + opaque4(al * bh));
    return Two4(p, opaque4(middle + opaque4(al * bl)));
}

fn two_prod(a: f32, b: f32) -> Two {
    let both = two_prod4(vec4<f32>(a), vec4<f32>(b));
    return Two(both.hi.x, both.lo.x);
}

// 1 / sqrt(d) on [1, 4), as a float32 and a rest: a Newton step from the built-in, then one from the exact residual.
fn rsqrt_parts(d: f32) -> Two {
    let guess = inverseSqrt(d);
    let r = opaque(guess * (1.5 - 0.5 * d * guess * guess));
    let square = two_prod(r, r);
    let product = two_prod(d, square.hi);
    let residual = opaque(opaque(opaque(1.0 - product.hi) - product.lo) - opaque(d * square.lo));
    return Two(r, opaque(r * opaque(opaque(0.5 * residual) + opaque(0.375 * opaque(residual * residual)))));
}

// An even power of two that brings a positive normal number into [1, 4), halved.
fn half_exponent(bits: u32) -> i32 {
    return exponent_of(bits) >> 1u;
}

fn nearest_rsqrt(d: f32) -> f32 {
    let bits = magnitude(d);
    if bits < 0x00800000u {
        return infinity();
    }
    if bits >= INFINITY {
        return select(0.0, d, bits > INFINITY);
    }
    let half = half_exponent(bits);
    let r = rsqrt_parts(d * pow2(-half) * pow2(-half));
    return opaque(r.hi + r.lo) * pow2(-half);
}

// sqrt(v) as the nearest float32 and a rest.
fn sqrt_parts(v: f32) -> Two {
    let bits = magnitude(v);
    if bits < 0x00800000u {
        return Two(0.0, 0.0);
    }
    if bits >= INFINITY {
        return Two(v, 0.0);
    }
    let half = half_exponent(bits);
    let d = opaque(opaque(v * pow2(-half)) * pow2(-half));
    let r = rsqrt_parts(d).hi;
    let q = opaque(d * r);
    let square = two_prod(q, q);
    let residual = opaque(opaque(d - square.hi) - square.lo);
    let rest = opaque(0.5 * opaque(residual * r));
    let root = opaque(q + rest);
    let low = opaque(opaque(q - root) + rest);
    return Two(root * pow2(half), low * pow2(half));
}

// The nearest float32 to 1 / (hi + lo), with lo below an ulp of hi.
fn nearest_recip(hi: f32, lo: f32) -> f32 {
    let bits = magnitude(hi);
    if bits < 0x00800000u {
        return infinity();
    }
    if bits >= INFINITY {
        return select(0.0, hi, bits > INFINITY);
    }
    let exponent = exponent_of(bits);
    let d = scale(hi, -exponent);
    let guess = opaque(1.0 / d);
    let r = opaque(guess + guess * opaque(1.0 - opaque(d * guess)));
    let product = two_prod(d, r);
    let residual = opaque(opaque(opaque(1.0 - product.hi) - product.lo) - opaque(r * scale(lo, -exponent)));
    return scale(opaque(r + opaque(r * opaque(residual + opaque(residual * residual)))), -exponent);
}

// The nearest float32 to 1 / (a * b); the factors are brought to [1, 2) so that no part of the product is lost.
fn nearest_recip_product(a: f32, b: f32) -> f32 {
    let exponent_a = exponent_of(magnitude(a));
    let exponent_b = exponent_of(magnitude(b));
    let product = two_prod(scale(a, -exponent_a), scale(b, -exponent_b));
    return scale(nearest_recip(product.hi, product.lo), -exponent_a - exponent_b);
}
