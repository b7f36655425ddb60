// Codes of 8 bits: the nearest to a quotient, ties to even. `spec::Quantization` has the rules.

// x / y, rounded once, for y that is no subnormal number; the built-in division may be off by some units.
fn quotient4(x: vec4<f32>, y: f32) -> vec4<f32> {
    let q = opaque4(x / y);
    let product = two_prod4(q, vec4<f32>(y));
    let rest = opaque4(opaque4(opaque4(x - product.hi) - product.lo) / y);
    let better = opaque4(q + rest);
    // Zeros keep their sign.
    return select(q, better, magnitude4(better) - vec4<u32>(1u) < vec4<u32>(INFINITY - 1u));
}

fn deliver_code(col: u32, y: vec4<f32>, scale: f32) {
    let count = there(col);
    if count > 0u {
        output_set(col, count, quotient4(y, scale));
    }
}

fn narrow_i8(x: vec4<f32>) -> vec4<u32> {
    let held = clamp(x, vec4<f32>(-128.0), vec4<f32>(127.0));
    // Beside this number, whose own low byte is 0, floats are 1 apart.
    let code = bitcast<vec4<u32>>(opaque4(held + 12582912.0)) & vec4<u32>(0xffu);
    return select(code, vec4<u32>(0u), magnitude4(x) > vec4<u32>(INFINITY));
}

// A float of 8 bits, of which `mantissa` are the mantissa's; what is beyond `largest` becomes that.
fn narrow_8(x: vec4<f32>, mantissa: u32, bias: u32, largest: f32) -> vec4<u32> {
    let shift = vec4<u32>(23u - mantissa);
    let sign = (bitcast<vec4<u32>>(x) >> vec4<u32>(24u)) & vec4<u32>(0x80u);
    let size = magnitude4(x);
    let held = min(size, vec4<u32>(bitcast<u32>(largest)));
    let half = (vec4<u32>(1u) << (shift - vec4<u32>(1u))) - vec4<u32>(1u);
    let rounded = (held + half + ((held >> shift) & vec4<u32>(1u))) >> shift;
    let normal = rounded - vec4<u32>((127u - bias) << mantissa);
    // Beside a number whose neighbours are as far apart as subnormal ones.
    let anchor = vec4<u32>((128u - bias + 23u - mantissa) << 23u);
    let sum = opaque4(bitcast<vec4<f32>>(held) + bitcast<vec4<f32>>(anchor));
    let subnormal = bitcast<vec4<u32>>(sum) - anchor;
    let code = sign | select(normal, subnormal, held < vec4<u32>((128u - bias) << 23u));
    return select(code, vec4<u32>(0x7fu), size > vec4<u32>(INFINITY));
}

fn narrow_f8e4m3(x: vec4<f32>) -> vec4<u32> {
    return narrow_8(x, 3u, 7u, 448.0);
}

fn narrow_f8e5m2(x: vec4<f32>) -> vec4<u32> {
    return narrow_8(x, 2u, 15u, 57344.0);
}

fn pack_8(codes: vec4<u32>) -> u32 {
    return codes.x | (codes.y << 8u) | (codes.z << 16u) | (codes.w << 24u);
}

fn words_i8(x: vec4<f32>) -> u32 {
    return pack_8(narrow_i8(x));
}

fn words_f8e4m3(x: vec4<f32>) -> u32 {
    return pack_8(narrow_f8e4m3(x));
}

fn words_f8e5m2(x: vec4<f32>) -> u32 {
    return pack_8(narrow_f8e5m2(x));
}
