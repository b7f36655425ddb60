// Storage formats to float32 and back, by integer arithmetic: the built-in conversions may flush or round otherwise.
// `widen` takes packed words, `bits` one element in the low bits of each component.

fn bits_f32(bits: vec4<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bits);
}

fn bits_bf16(bits: vec4<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bits << vec4<u32>(16u));
}

fn bits_f16(bits: vec4<u32>) -> vec4<f32> {
    let magnitude = bits & vec4<u32>(0x7fffu);
    let shifted = magnitude << vec4<u32>(13u);
    // A subnormal is its mantissa in units of 2^-24, exact as a float32.
    let subnormal = bitcast<vec4<u32>>(vec4<f32>(magnitude) * 5.9604645e-8);
    let normal = shifted + vec4<u32>(0x38000000u);
    var wide = select(normal, subnormal, magnitude < vec4<u32>(0x0400u));
    wide = select(wide, shifted | vec4<u32>(0x7f800000u), magnitude >= vec4<u32>(0x7c00u));
    return bitcast<vec4<f32>>(wide | ((bits & vec4<u32>(0x8000u)) << vec4<u32>(16u)));
}

fn unpack(words: vec2<u32>) -> vec4<u32> {
    return (words.xxyy >> vec4<u32>(0u, 16u, 0u, 16u)) & vec4<u32>(0xffffu);
}

fn widen_f32(words: vec4<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(words);
}

fn widen_bf16(words: vec2<u32>) -> vec4<f32> {
    return bits_bf16(unpack(words));
}

fn widen_f16(words: vec2<u32>) -> vec4<f32> {
    return bits_f16(unpack(words));
}

// Rounds to nearest, ties to even; the result is in the low bits of each component.
fn narrow_f32(x: vec4<f32>) -> vec4<u32> {
    return bitcast<vec4<u32>>(x);
}

fn narrow_bf16(x: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(x);
    let upper = bits >> vec4<u32>(16u);
    let rounded = (bits + vec4<u32>(0x7fffu) + (upper & vec4<u32>(1u))) >> vec4<u32>(16u);
    let nan = (bits & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
    return select(rounded, upper | vec4<u32>(0x40u), nan);
}

fn narrow_f16(x: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(x);
    let magnitude = bits & vec4<u32>(0x7fffffffu);
    let rebased = magnitude - vec4<u32>(0x38000000u);
    let normal = (rebased + vec4<u32>(0xfffu) + ((rebased >> vec4<u32>(13u)) & vec4<u32>(1u))) >> vec4<u32>(13u);
    // Below 2^-14 the result counts units of 2^-24: shift the whole mantissa down and round by what falls off.
    let shift = clamp(vec4<u32>(126u) - (magnitude >> vec4<u32>(23u)), vec4<u32>(1u), vec4<u32>(25u));
    let mantissa = (magnitude & vec4<u32>(0x7fffffu)) | vec4<u32>(0x800000u);
    let units = mantissa >> shift;
    let lost = mantissa - (units << shift);
    let half = vec4<u32>(1u) << (shift - vec4<u32>(1u));
    let up = (lost > half) | ((lost == half) & ((units & vec4<u32>(1u)) == vec4<u32>(1u)));
    let subnormal = units + select(vec4<u32>(0u), vec4<u32>(1u), up);
    var narrow = select(normal, subnormal, magnitude < vec4<u32>(0x38800000u));
    narrow = select(narrow, vec4<u32>(0x7c00u), magnitude >= vec4<u32>(0x477ff000u));
    let nan = vec4<u32>(0x7e00u) | ((magnitude >> vec4<u32>(13u)) & vec4<u32>(0x3ffu));
    narrow = select(narrow, nan, magnitude > vec4<u32>(0x7f800000u));
    return narrow | ((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u));
}

fn pack(halves: vec4<u32>) -> vec2<u32> {
    return halves.xz | (halves.yw << vec2<u32>(16u));
}

fn words_f32(x: vec4<f32>) -> vec4<u32> {
    return bitcast<vec4<u32>>(x);
}

fn words_bf16(x: vec4<f32>) -> vec2<u32> {
    return pack(narrow_bf16(x));
}

fn words_f16(x: vec4<f32>) -> vec2<u32> {
    return pack(narrow_f16(x));
}
