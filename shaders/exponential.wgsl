// What functions made of exp(-2 a) = 2^k exp(-2 rho) share, four at a time. docs/numerics.md tells the steps.

const SIGN = 0x80000000u;
// Twice the binary logarithm of e, and ln 2 / 2 as two numbers.
const STEPS = 2.88539004;
const STEP_HI = 0.3465728759765625;
const STEP_LO = 7.14303383e-7;
// 1.5 * 2^23 and an exponent's bias: adding it leaves the exponent field of a power of two in the low bits.
const MAGIC_POWER = 12583039.0;

// Whether z is beyond a limit; not so for NaN.
fn is_beyond(z: vec4<f32>, limit: u32) -> vec4<bool> {
    let bits = magnitude4(z);
    return (bits > vec4<u32>(limit)) & (bits <= vec4<u32>(INFINITY));
}

// |z|, kept within the limit.
fn within(z: vec4<f32>, limit: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(select(magnitude4(z), vec4<u32>(limit), is_beyond(z, limit)));
}

// MAGIC_POWER less a in halves of ln 2, rounded.
fn halves(a: vec4<f32>) -> vec4<f32> {
    return opaque4(opaque4(a * -STEPS) + MAGIC_POWER);
}

fn horner(q: vec4<f32>, r: vec4<f32>, c: f32) -> vec4<f32> {
    return opaque4(opaque4(q * r) + c);
}

// f of exp(-2 rho) = 1 - 2 (rho - f).
fn bend(rho: vec4<f32>) -> vec4<f32> {
    var g = vec4<f32>(0.044610064);
    g = horner(g, rho, -0.13386248);
    g = horner(g, rho, 0.33333123);
    g = horner(g, rho, -0.6666618);
    g = horner(g, rho, 1.0);
    return opaque4(opaque4(rho * rho) * g);
}

// The mantissa as a whole number.
fn mantissa(x: vec4<f32>) -> vec4<i32> {
    return bitcast<vec4<i32>>((bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffu)) | vec4<u32>(SMALLEST));
}

// The float32 nearest to 1 / d for d in [1/2, 1]: a division as good as WGSL promises, a Newton step, and one in the
// last bit, from the small residual 2^47 - (2^24 d) (2^23 y) of whole numbers. Where a number is the next power of two
// its mantissa is half of that, and the residual zero all the same.
fn reciprocal(d: vec4<f32>) -> vec4<f32> {
    let guess = opaque4(1.0 / d);
    let y = opaque4(guess + opaque4(guess * opaque4(1.0 - opaque4(d * guess))));
    let whole = mantissa(d);
    let residual = -2 * (whole * mantissa(y));
    let step = select(vec4<u32>(0u), vec4<u32>(1u), residual > whole)
        - select(vec4<u32>(0u), vec4<u32>(1u), residual < -whole);
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(y) + step);
}

