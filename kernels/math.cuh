// What the functions of docs/numerics.md are made of: bits and exponents, powers of two, exact sums and products. The
// constants and the order of the operations are those of src/backend/cpu/real.rs and math.rs.
#pragma once
#include "params.cuh"

// The layout of the compute types.
template <class F> struct Limits;

template <> struct Limits<float> {
    using Bits = u32;
    static constexpr int MANTISSA = 23, BIAS = 127;
    // Low mantissa bits that are cleared: for products of two numbers to be exact, and of three.
    static constexpr int SPLIT = 12, HEAD = 16;
    static constexpr Bits SIGN = 0x80000000u, INFINITE = 0x7F800000u;
    // The largest exponent that one step of `scale` takes.
    static constexpr i32 STEP = 126;
    // The exponent of numbers that are all zero: below that of any number.
    static constexpr i32 NONE = -1000;
    // 1.5 * 2^23: adding it rounds to an integer.
    static constexpr float MAGIC = 12582912.0f;
};

template <> struct Limits<double> {
    using Bits = u64;
    static constexpr int MANTISSA = 52, BIAS = 1023;
    static constexpr int SPLIT = 27, HEAD = 36;
    static constexpr Bits SIGN = 0x8000000000000000u, INFINITE = 0x7FF0000000000000u;
    static constexpr i32 STEP = 1022;
    static constexpr i32 NONE = -10000;
    static constexpr double MAGIC = 6755399441055744.0;
};

// The unsigned integer of the same width.
template <class F> using Bits = typename Limits<F>::Bits;

// The bits without the sign. As integers they order NaN > infinity > finite.
template <class F> DEVICE Bits<F> magnitude(F x) {
    return device::bits(x) & ~Limits<F>::SIGN;
}

template <class F> DEVICE F absolute(F x) {
    return device::of_bits(magnitude(x));
}

template <class F> DEVICE constexpr Bits<F> infinity_bits() {
    return Limits<F>::INFINITE;
}

template <class F> DEVICE F infinity() {
    return device::of_bits(infinity_bits<F>());
}

// The largest finite number.
template <class F> DEVICE F largest() {
    return device::of_bits(infinity_bits<F>() - 1);
}

template <class F> DEVICE bool is_finite(F x) {
    return magnitude(x) < infinity_bits<F>();
}

// The one whose magnitude is larger, NaN being the largest; the first if they are equal.
template <class F> DEVICE F larger(F a, F b) {
    return magnitude(b) > magnitude(a) ? b : a;
}

// A magnitude with the sign of another number.
template <class F> DEVICE F or_sign(F x, F sign) {
    return device::of_bits(device::bits(x) | (device::bits(sign) & Limits<F>::SIGN));
}

// The other sign if that of `sign` is minus.
template <class F> DEVICE F flip_sign(F x, F sign) {
    return device::of_bits(device::bits(x) ^ (device::bits(sign) & Limits<F>::SIGN));
}

// The upper half of the mantissa: the product of two such numbers is exact.
template <class F> DEVICE F upper(F x) {
    return device::of_bits((device::bits(x) >> Limits<F>::SPLIT) << Limits<F>::SPLIT);
}

// The first third of the mantissa: the product of three such numbers is exact.
template <class F> DEVICE F head(F x) {
    return device::of_bits((device::bits(x) >> Limits<F>::HEAD) << Limits<F>::HEAD);
}

// The exponent of a number given by its magnitude bits; that of subnormal numbers and of zero is the lowest, -127 (-1023).
template <class F> DEVICE i32 exponent_of(Bits<F> magnitude) {
    return static_cast<i32>(magnitude >> Limits<F>::MANTISSA) - Limits<F>::BIAS;
}

// 2^k within the normal range; 0 for -127 (-1023).
template <class F> DEVICE F pow2(i32 k) {
    return device::of_bits(static_cast<Bits<F>>(k + Limits<F>::BIAS) << Limits<F>::MANTISSA);
}

DEVICE i32 clamped(i32 x, i32 low, i32 high) {
    return x < low ? low : x > high ? high : x;
}

// x * 2^p in three steps, so that no factor leaves the normal range. What is beyond three is zero or infinite anyway.
template <class F> DEVICE F scale(F x, i32 p) {
    constexpr i32 step = Limits<F>::STEP;
    const i32 held = clamped(p, -3 * step, 3 * step);
    const i32 first = clamped(held, -step, step);
    const i32 second = clamped(held - first, -step, step);
    return x * pow2<F>(first) * pow2<F>(second) * pow2<F>(held - first - second);
}

// A number as an unevaluated sum.
template <class F> struct Two {
    F hi, lo;
};

// The sum and what it rounds away, whichever of both is larger.
template <class F> DEVICE Two<F> two_sum(F x, F y) {
    const F s = x + y;
    const F z = s - x;
    return {s, (x - (s - z)) + (y - z)};
}

// The product and what it rounds away, without a fused multiply-add: its result differs where a part underflows.
template <class F> DEVICE Two<F> two_prod(F a, F b) {
    const F ah = upper(a), bh = upper(b);
    const F al = a - ah, bl = b - bh;
    const F p = a * b;
    return {p, (((ah * bh - p) + ah * bl) + al * bh) + al * bl};
}

// c0 + x * (c1 + x * (c2 + ...)), from the last coefficient on.
template <class F> DEVICE F horner(F, F last) {
    return last;
}

template <class F, class... Rest> DEVICE F horner(F x, F first, Rest... rest) {
    return horner(x, rest...) * x + first;
}
