// tanh and its derivative, four at a time, from one exponential. docs/numerics.md tells the steps.

// ln 2 / 2
const STEP = 0.346573591;
// The bits of `halves` for the least normal power.
const LEAST = 0x4b400001u;
// Bits of the |z| beyond which tanh is 1, 20, and sech^2 is too small for any finite gradient, 87.
const TANH_LIMIT = 0x41a00000u;
const SLOPE_LIMIT = 0x42ae0000u;

// The first third of the mantissa.
fn head_of(x: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) & vec4<u32>(0xffff0000u));
}

// |tanh(z)|, and y, the reciprocal of 1 - m, with m = (1 - exp(-2|z|)) / 2: tanh is m / (1 - m).
struct Quotient {
    t: vec4<f32>,
    y: vec4<f32>,
}

fn quotient(power: vec4<f32>, rho: vec4<f32>, f: vec4<f32>) -> Quotient {
    let below = opaque4(0.5 - 0.5 * power);
    let above = opaque4(0.5 + 0.5 * power);
    let straight = power * rho;
    let bent = power * f;
    let step = opaque4(straight - bent);
    let m = opaque4(below + step);
    let y = reciprocal(opaque4(1.0 - m));
    let head = head_of(m * y);
    // m - head (1 - m), of which the large parts cancel without an error.
    let large = opaque4(opaque4(below - head * above) + straight);
    let rest = opaque4(large - opaque4(bent - opaque4(step * head)));
    return Quotient(opaque4(head + opaque4(rest * y)), y);
}

// A magnitude with the sign of z.
fn or_sign(x: vec4<f32>, z: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) | (bitcast<vec4<u32>>(z) & vec4<u32>(SIGN)));
}

fn tanh_forward(z: vec4<f32>) -> vec4<f32> {
    let a = within(z, TANH_LIMIT);
    let u = halves(a);
    let rho = opaque4(a + opaque4(opaque4(u - MAGIC_POWER) * STEP));
    let power = bitcast<vec4<f32>>(bitcast<vec4<u32>>(u) << vec4<u32>(23u));
    return or_sign(quotient(power, rho, bend(rho)).t, z);
}

struct TanhBackward {
    // tanh(z)
    t: vec4<f32>,
    // sech(z)^2 = h * power * rest
    h: vec4<f32>,
    power: vec4<f32>,
    rest: vec4<f32>,
}

// Of the sum of z and its small low part.
fn tanh_backward(z: vec4<f32>, low: vec4<f32>) -> TanhBackward {
    let a = within(z, SLOPE_LIMIT);
    let beyond = is_beyond(z, SLOPE_LIMIT);
    let u = halves(a);
    let k = opaque4(u - MAGIC_POWER);
    let bits = bitcast<vec4<u32>>(u);
    let normal = max(bits, vec4<u32>(LEAST));
    let power = bitcast<vec4<f32>>(normal << vec4<u32>(23u));
    let below = bitcast<vec4<f32>>((bits - normal + vec4<u32>(127u)) << vec4<u32>(23u));
    let flipped = bitcast<vec4<f32>>(bitcast<vec4<u32>>(low) ^ (bitcast<vec4<u32>>(z) & vec4<u32>(SIGN)));
    let small = opaque4(opaque4(k * STEP_LO) + select(flipped, vec4<f32>(0.0), beyond));
    let rho = opaque4(opaque4(a + k * STEP_HI) + small);
    let f = bend(rho);
    let q = quotient(power, rho, f);
    let h = slope(power, rho, f, q.y);
    // Beyond the limit, 2^-100: so little that no finite gradient survives it, but an infinite one stays infinite.
    let little = select(vec4<f32>(0.0), vec4<f32>(7.888609052210118e-31), magnitude4(z) < vec4<u32>(INFINITY));
    return TanhBackward(or_sign(q.t, z), select(h, little, beyond), power, below);
}

// sech^2 without its power of two: exp(-2 rho) / q^2 with q = (1 + exp(-2|z|)) / 2, of whose reciprocal y is near.
fn slope(power: vec4<f32>, rho: vec4<f32>, f: vec4<f32>, y: vec4<f32>) -> vec4<f32> {
    let p = opaque4(rho - f);
    let e = opaque4(1.0 - 2.0 * p);
    let e_low = opaque4(opaque4(1.0 - e) - 2.0 * p);
    let half_power = 0.5 * power;
    let q = opaque4(0.5 + half_power * e);
    let q_low = opaque4(opaque4(opaque4(0.5 - q) + half_power * e) + half_power * e_low);
    let square = opaque4(y * y);
    let head = head_of(e * square);
    let q_head = head_of(q);
    let q_rest = opaque4(opaque4(q - q_head) + q_low);
    // e - head q^2, of which the large parts cancel without an error.
    let large = opaque4(opaque4(e - head * (q_head * q_head)) + e_low);
    let rest = opaque4(large - opaque4(head * opaque4(q_rest * opaque4(2.0 * q_head + q_rest))));
    return opaque4(head + opaque4(rest * square));
}
