// The logistic function and what is made of it, four at a time. docs/numerics.md tells the steps.

// Bits of the |z| beyond which 1 / (1 + exp(|z|)) is nothing, 86, and of the most that z^2 counts in GELU, 10^4.
const SIGMA_LIMIT = 0x42ac0000u;
const SQUARE_LIMIT = 0x461c4000u;
// 2 sqrt(2/pi), and that times 0.044715 and thrice 0.044715.
const GELU_0 = 1.5957691216057308;
const GELU_1 = 0.07135481627260025;
const GELU_3 = 0.21406444881780073;

// 1 / (1 + exp(-z)), of z and of its negative.
struct Sigma {
    same: vec4<f32>,
    opposite: vec4<f32>,
}

fn sigma(z: vec4<f32>) -> Sigma {
    let a = opaque4(0.5 * within(z, SIGMA_LIMIT));
    let u = halves(a);
    let k = opaque4(u - MAGIC_POWER);
    let power = bitcast<vec4<f32>>(bitcast<vec4<u32>>(u) << vec4<u32>(23u));
    let rho = opaque4(opaque4(a + k * STEP_HI) + opaque4(k * STEP_LO));
    let p = opaque4(rho - bend(rho));
    let e = opaque4(1.0 - 2.0 * p);
    let near = opaque4(0.5 * reciprocal(opaque4(0.5 + (0.5 * power) * e)));
    let far = select(opaque4(opaque4(e * power) * near), vec4<f32>(0.0), is_beyond(z, SIGMA_LIMIT));
    let below = (bitcast<vec4<u32>>(z) & vec4<u32>(SIGN)) != vec4<u32>(0u);
    return Sigma(select(near, far, below), select(far, near, below));
}

fn silu(z: vec4<f32>) -> vec4<f32> {
    return opaque4(z * sigma(z).same);
}

// The derivative of silu, by the sigma of z.
fn silu_slope(z: vec4<f32>, s: Sigma) -> vec4<f32> {
    return opaque4(s.same * opaque4(1.0 + opaque4(z * s.opposite)));
}

// z^2, kept where GELU's inner function is finite.
fn gelu_square(z: vec4<f32>) -> vec4<f32> {
    return within(opaque4(z * z), SQUARE_LIMIT);
}

// Of z, whose square is m: twice what tanh is taken of in GELU.
fn gelu_inner(z: vec4<f32>, m: vec4<f32>) -> vec4<f32> {
    return opaque4(z * opaque4(GELU_0 + opaque4(GELU_1 * m)));
}

fn gelu(z: vec4<f32>) -> vec4<f32> {
    return opaque4(z * sigma(gelu_inner(z, gelu_square(z))).same);
}

fn gelu_slope(z: vec4<f32>) -> vec4<f32> {
    let m = gelu_square(z);
    let s = sigma(gelu_inner(z, m));
    let rise = opaque4(GELU_0 + opaque4(GELU_3 * m));
    return opaque4(s.same + opaque4(opaque4(z * opaque4(s.same * s.opposite)) * rise));
}
