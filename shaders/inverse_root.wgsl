// x / sqrt(alpha + x^2) and its derivatives, four at a time. docs/numerics.md tells what is rounded.

fn scale_each(x: vec4<f32>, p: vec4<i32>) -> vec4<f32> {
    let first = clamp(p, vec4<i32>(-126), vec4<i32>(126));
    let second = clamp(p - first, vec4<i32>(-126), vec4<i32>(126));
    let third = clamp(p - first - second, vec4<i32>(-126), vec4<i32>(126));
    return opaque4(opaque4(opaque4(x * power_of_two(first)) * power_of_two(second)) * power_of_two(third));
}

fn power_of_two(p: vec4<i32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(p + vec4<i32>(127)) << vec4<u32>(23u));
}

fn exponents_of(x: vec4<f32>) -> vec4<i32> {
    let bits = magnitude4(x);
    return select(vec4<i32>(bits >> vec4<u32>(23u)) - vec4<i32>(127), vec4<i32>(NONE), bits == vec4<u32>(0u));
}

// x and alpha where their squares are in range, and the exponent taken out.
struct Squarable {
    alpha: vec4<f32>,
    x: vec4<f32>,
    e: vec4<i32>,
}

fn squarable(alpha: f32, x: vec4<f32>) -> Squarable {
    let most = max(exponents_of(x), exponents_of(vec4<f32>(alpha)) >> vec4<u32>(1u));
    let e = select(most, vec4<i32>(0), (most >= vec4<i32>(-40)) & (most <= vec4<i32>(25)));
    return Squarable(scale_each(vec4<f32>(alpha), -2 * e), scale_each(x, -e), e);
}

// r = 1 / sqrt(d), h = alpha * d^(-3/2) and k = x * d^(-3/2), each rounded once, with d = alpha + x^2.
struct Roots {
    r: vec4<f32>,
    h: vec4<f32>,
    k: vec4<f32>,
}

fn inverse_roots(s: Squarable) -> Roots {
    // d in two numbers; the square is not smaller than its error, so that alpha is added to it alone.
    let square = two_prod4(s.x, s.x);
    let sum = opaque4(square.hi + s.alpha);
    let part = opaque4(sum - square.hi);
    let error = opaque4(opaque4(square.hi - opaque4(sum - part)) + opaque4(s.alpha - part));
    let bits = magnitude4(sum);
    let usual = (bits >= vec4<u32>(SMALLEST)) & (bits < vec4<u32>(INFINITY));
    let half = select(vec4<i32>(0), (vec4<i32>(bits >> vec4<u32>(23u)) - vec4<i32>(127)) >> vec4<u32>(1u), usual);
    let down = power_of_two(-half);
    // In [1, 4).
    let d = opaque4(opaque4(select(vec4<f32>(1.0), sum, usual) * down) * down);
    let l = opaque4(opaque4(select(vec4<f32>(0.0), opaque4(error + square.lo), usual) * down) * down);
    // A Newton step from the built-in, then one from the exact residual.
    let guess = inverseSqrt(d);
    let near = opaque4(guess * (1.5 - 0.5 * d * guess * guess));
    let near_square = two_prod4(near, near);
    let product = two_prod4(d, near_square.hi);
    let exact = opaque4(opaque4(opaque4(1.0 - product.hi) - product.lo) - opaque4(d * near_square.lo));
    let residual = opaque4(exact - opaque4(l * near_square.hi));
    let step = opaque4(near * opaque4(opaque4(0.5 * residual) + opaque4(0.375 * opaque4(residual * residual))));
    let r = opaque4(near + step);
    let rl = opaque4(opaque4(near - r) + step);
    // Its cube.
    let two = two_prod4(r, r);
    let two_low = opaque4(two.lo + opaque4(opaque4(2.0 * r) * rl));
    let three = two_prod4(two.hi, r);
    let three_low = opaque4(three.lo + opaque4(opaque4(two.hi * rl) + opaque4(two_low * r)));
    let a = opaque4(opaque4(s.alpha * down) * down);
    let h = two_prod4(a, three.hi);
    let x = opaque4(s.x * down);
    let k = two_prod4(x, three.hi);
    // Of zero and infinity, infinity and zero.
    let other = select(bitcast<vec4<f32>>(vec4<u32>(INFINITY) ^ vec4<u32>(params.zero)), zero4(), bits == vec4<u32>(INFINITY));
    let special = select(other, sum, bits > vec4<u32>(INFINITY));
    return Roots(
        select(special, opaque4(r * down), usual),
        select(special, opaque4(opaque4(h.hi + opaque4(h.lo + opaque4(a * three_low))) * down), usual),
        select(opaque4(s.x * special),
            opaque4(opaque4(opaque4(k.hi + opaque4(k.lo + opaque4(x * three_low))) * down) * down), usual),
    );
}

fn value(alpha: f32, x: vec4<f32>) -> vec4<f32> {
    let s = squarable(alpha, x);
    return opaque4(s.x * inverse_roots(s).r);
}

// What stays the same from row to row: nothing but the weight.
fn begin_slopes(alpha: f32, weight: vec4<f32>) -> vec4<f32> {
    return weight;
}

fn slopes(alpha: f32, of_column: vec4<f32>, weight: vec4<f32>, x: vec4<f32>, g: vec4<f32>) -> Slopes {
    let s = squarable(alpha, x);
    let roots = inverse_roots(s);
    let gw = opaque4(g * weight);
    return Slopes(
        opaque4(s.x * roots.r),
        scale_each(opaque4(gw * roots.h), -s.e),
        scale_each(opaque4(-0.5 * opaque4(gw * roots.k)), -2 * s.e),
    );
}
