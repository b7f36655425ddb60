// The same for elements: see `power`.

// The sum and what it rounds away.
fn two_sum4(x: vec4<f32>, y: vec4<f32>) -> Two4 {
    let s = opaque4(x + y);
    let z = opaque4(s - x);
    return Two4(s, opaque4(opaque4(x - opaque4(s - z)) + opaque4(y - z)));
}

// x * 2^p, each component with its own p.
fn scale_each(x: vec4<f32>, p: vec4<i32>) -> vec4<f32> {
    let first = clamp(p, vec4<i32>(-126), vec4<i32>(126));
    let second = clamp(p - first, vec4<i32>(-126), vec4<i32>(126));
    let third = clamp(p - first - second, vec4<i32>(-126), vec4<i32>(126));
    return opaque4(opaque4(opaque4(x * pow2_4(first)) * pow2_4(second)) * pow2_4(third));
}

fn pow2_4(p: vec4<i32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(p + vec4<i32>(127)) << vec4<u32>(23u));
}

// Left to right through the bits of `p`.
fn integer_power(a: vec4<f32>, p: u32) -> vec4<f32> {
    if p == 0u {
        return vec4<f32>(1.0);
    }
    var result = a;
    for (var bit = firstLeadingBit(p); bit > 0u; bit--) {
        result = opaque4(result * result);
        if ((p >> (bit - 1u)) & 1u) == 1u {
            result = opaque4(result * a);
        }
    }
    return result;
}

fn log2_parts4(x: vec4<f32>) -> Two4 {
    // A number so small that its exponent field may say nothing is raised first.
    let small = magnitude4(x) < vec4<u32>(0x1f800000u);
    let a = select(x, opaque4(x * 1.8446744073709552e19), small);
    let bits = magnitude4(a);
    var k = vec4<i32>(bits >> vec4<u32>(23u)) - vec4<i32>(127);
    var m = bitcast<vec4<f32>>((bits & vec4<u32>(0x7fffffu)) | vec4<u32>(0x3f800000u));
    let high = m > vec4<f32>(1.4142135);
    m = select(m, m * 0.5, high);
    k = select(k, k + vec4<i32>(1), high) - select(vec4<i32>(0), vec4<i32>(64), small);
    // log2(m) = 2 / ln 2 * atanh(s), s = (m - 1) / (m + 1).
    let f = opaque4(m - 1.0);
    let d = two_sum4(m, vec4<f32>(1.0));
    let h = d.hi * 0.5;
    var r = opaque4(opaque4(opaque4(opaque4(vec4<f32>(SEED_2) * h) + SEED_1) * h) + SEED_0);
    for (var i = 0u; i < 3u; i++) {
        r = opaque4(r + opaque4(r * opaque4(1.0 - opaque4(h * r))));
    }
    r = r * 0.5;
    let s = opaque4(f * r);
    let t = two_prod4(s, d.hi);
    let sl = opaque4(r * opaque4(opaque4(opaque4(f - t.hi) - t.lo) - opaque4(s * d.lo)));
    // atanh(s) = s + s (w / 3 + w^2 (1/5 + w / 7 + ...)), w = s^2.
    let w = two_prod4(s, s);
    let wl = opaque4(w.lo + opaque4(opaque4(2.0 * s) * sl));
    var q = vec4<f32>(ATANH_15);
    q = opaque4(opaque4(q * w.hi) + ATANH_13);
    q = opaque4(opaque4(q * w.hi) + ATANH_11);
    q = opaque4(opaque4(q * w.hi) + ATANH_9);
    q = opaque4(opaque4(q * w.hi) + ATANH_7);
    q = opaque4(opaque4(q * w.hi) + ATANH_5);
    let c = two_sum4(vec4<f32>(THIRD), opaque4(w.hi * q));
    let cl = opaque4(c.lo + THIRD_LOW);
    let u = two_prod4(w.hi, c.hi);
    let ul = opaque4(u.lo + opaque4(opaque4(w.hi * cl) + opaque4(wl * c.hi)));
    let v = two_prod4(s, u.hi);
    let vl = opaque4(v.lo + opaque4(opaque4(s * ul) + opaque4(sl * u.hi)));
    let b = two_sum4(s, v.hi);
    let bl = opaque4(b.lo + opaque4(sl + vl));
    let l = two_prod4(b.hi, vec4<f32>(TWO_LOG2E));
    let ll = opaque4(l.lo + opaque4(opaque4(b.hi * TWO_LOG2E_LOW) + opaque4(bl * TWO_LOG2E)));
    let sum = two_sum4(vec4<f32>(k), l.hi);
    return Two4(sum.hi, opaque4(sum.lo + ll));
}

// 2^(y + yl) as a factor near 1 and an exponent.
struct Exp24 {
    factor: vec4<f32>,
    k: vec4<i32>,
}

fn exp2_parts4(wide: vec4<f32>, wide_low: vec4<f32>) -> Exp24 {
    // Beyond this every number that it multiplies leaves the range.
    let beyond = magnitude4(wide) > vec4<u32>(0x43fc0000u);
    let y = select(wide, vec4<f32>(0.0), beyond);
    let yl = select(wide_low, vec4<f32>(0.0), beyond);
    let kf = opaque4(opaque4(y + ROUNDS) - ROUNDS);
    let r = two_sum4(opaque4(y - kf), yl);
    let z = two_prod4(r.hi, vec4<f32>(NATURAL));
    let zl = opaque4(z.lo + opaque4(opaque4(r.hi * NATURAL_LOW) + opaque4(r.lo * NATURAL)));
    var q = vec4<f32>(2.48015873e-5);
    q = opaque4(opaque4(q * z.hi) + 1.98412698e-4);
    q = opaque4(opaque4(q * z.hi) + 1.38888889e-3);
    q = opaque4(opaque4(q * z.hi) + 8.33333333e-3);
    q = opaque4(opaque4(q * z.hi) + 4.16666667e-2);
    q = opaque4(opaque4(q * z.hi) + 1.66666667e-1);
    q = opaque4(opaque4(q * z.hi) + 0.5);
    let w = opaque4(opaque4(z.hi * z.hi) * q);
    let p = opaque4(z.hi + w);
    let pl = opaque4(opaque4(opaque4(z.hi - p) + w) + opaque4(zl * opaque4(1.0 + p)));
    let one = two_sum4(vec4<f32>(1.0), p);
    let factor = opaque4(one.hi + opaque4(one.lo + pl));
    let far = select(vec4<i32>(378), vec4<i32>(-378), (bitcast<vec4<u32>>(wide) >> vec4<u32>(31u)) == vec4<u32>(1u));
    return Exp24(select(factor, vec4<f32>(1.0), beyond), select(vec4<i32>(kf), far, beyond));
}

// a^(p.hi + p.lo) of a magnitude; zero, infinity and NaN stay.
fn real_power4(a: vec4<f32>, p: vec2<f32>) -> vec4<f32> {
    let bits = magnitude4(a);
    let usual = (bits > vec4<u32>(0u)) & (bits < vec4<u32>(0x7f800000u));
    let l = log2_parts4(select(vec4<f32>(1.0), a, usual));
    let y = two_prod4(l.hi, vec4<f32>(p.x));
    let yl = opaque4(y.lo + opaque4(opaque4(l.lo * p.x) + opaque4(l.hi * p.y)));
    let power = exp2_parts4(y.hi, yl);
    return select(a, scale_each(power.factor, power.k), usual);
}
