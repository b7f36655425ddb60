// float32 arithmetic with known rounding. WGSL compilers may assume real numbers: `(a + b) - a` may become `b`, and a
// product may be fused into the sum that takes it. What passes through `opaque` is a rounded float32 of its own.

const MAGNITUDE = 0x7fffffffu;
const INFINITY = 0x7f800000u;
// In hexadecimal, which is exact: its shortest decimal lies above, and browsers refuse that.
const LARGEST = 0x1.fffffep+127f;
const SMALLEST = 0x00800000u;
// The exponent of numbers that are all zero.
const NONE = -1000;

fn opaque(x: REAL) -> REAL {
    return bitcast<REAL>(bitcast<BITS>(x) ^ BITS(params.zero));
}

fn opaque4(x: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) ^ vec4<u32>(params.zero));
}

// A zero that is not folded away: adding to it turns -0 into 0, as the first step of every sum does.
fn zero4() -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(params.zero));
}

fn magnitude(x: REAL) -> BITS {
    return bitcast<BITS>(x) & BITS(MAGNITUDE);
}

fn magnitude4(x: vec4<f32>) -> vec4<u32> {
    return bitcast<vec4<u32>>(x) & vec4<u32>(MAGNITUDE);
}

fn infinity() -> REAL {
    return bitcast<REAL>(BITS(INFINITY) ^ BITS(params.zero));
}

// The exponent of a number given by its magnitude bits.
fn exponent_of(bits: BITS) -> INT {
    return INT(bits >> BITS(23u)) - INT(127);
}

// 2^p; 0 for -127.
fn pow2(p: INT) -> REAL {
    return bitcast<REAL>(BITS(p + INT(127)) << BITS(23u));
}

// x * 2^p in three steps, so that no factor leaves the normal range. What is beyond three is zero or infinite anyway.
fn scale4(x: vec4<f32>, p: INT) -> vec4<f32> {
    let first = clamp(p, INT(-126), INT(126));
    let second = clamp(p - first, INT(-126), INT(126));
    let third = clamp(p - first - second, INT(-126), INT(126));
    return opaque4(opaque4(opaque4(x * pow2(first)) * pow2(second)) * pow2(third));
}

fn scale(x: REAL, p: INT) -> REAL {
    let first = clamp(p, INT(-126), INT(126));
    let second = clamp(p - first, INT(-126), INT(126));
    let third = clamp(p - first - second, INT(-126), INT(126));
    return opaque(opaque(opaque(x * pow2(first)) * pow2(second)) * pow2(third));
}

// As `scale4` for |p| <= 127 where two steps do.
fn scale_row(x: vec4<f32>, p: INT) -> vec4<f32> {
    let first = clamp(p, INT(-126), INT(126));
    return opaque4(opaque4(x * pow2(first)) * pow2(p - first));
}

// A number as an unevaluated sum.
struct Two {
    hi: REAL,
    lo: REAL,
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

fn two_prod(a: REAL, b: REAL) -> Two {
    let ah = bitcast<REAL>(bitcast<BITS>(a) & BITS(0xfffff000u));
    let bh = bitcast<REAL>(bitcast<BITS>(b) & BITS(0xfffff000u));
    let al = opaque(a - ah);
    let bl = opaque(b - bh);
    let p = opaque(a * b);
    let high = opaque(opaque(ah * bh) - p);
    let middle = opaque(opaque(high + opaque(ah * bl)) + opaque(al * bh));
    return Two(p, opaque(middle + opaque(al * bl)));
}

// The sum and what it rounds away.
fn two_sum(x: REAL, y: REAL) -> Two {
    let s = opaque(x + y);
    let z = opaque(s - x);
    return Two(s, opaque(opaque(x - opaque(s - z)) + opaque(y - z)));
}
