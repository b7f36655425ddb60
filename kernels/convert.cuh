#pragma once
// Between stored elements and the compute types: exact one way, to nearest even the other. NaN stays NaN.
#include "device.cuh"

namespace device {

DEVICE float widen(float x) {
    return x;
}

DEVICE double widen(double x) {
    return x;
}

DEVICE float widen(bf16 x) {
    return of_bits(u32(x.bits) << 16);
}

#ifdef __CUDACC__
DEVICE float widen(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

DEVICE f16 to_f16(float x) {
    f16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
#else
DEVICE float widen(f16 x) {
    const u32 sign = u32(x.bits & 0x8000) << 16, magnitude = x.bits & 0x7FFF;
    // The exponent field moves to float's; 2^112 makes up for the bias, of subnormal numbers too.
    const u32 number = bits(of_bits(magnitude << 13) * 0x1p112f);
    return of_bits(sign | (magnitude >= 0x7C00 ? number | 0x7F800000 : number));
}

DEVICE f16 to_f16(float x) {
    const u32 sign = bits(x) >> 16 & 0x8000, magnitude = bits(x) & 0x7FFFFFFF;
    u32 y;
    if (magnitude > 0x7F800000) {
        y = 0x7E00 | (magnitude >> 13 & 0x3FF);
    } else if (magnitude >= 0x47800000) {
        y = 0x7C00;
    } else if (magnitude < 0x38800000) {
        // Subnormal: adding a half leaves the result's units in the last bits of the sum.
        y = bits(of_bits(magnitude) + 0.5f) - 0x3F000000;
    } else {
        // The exponent's bias, and a half less than what decides a tie.
        y = (magnitude - 0x38000000 + 0xFFF + (magnitude >> 13 & 1)) >> 13;
    }
    return {u16(sign | y)};
}
#endif

DEVICE bf16 to_bf16(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
#else
    const u32 b = bits(x);
    const u32 rounded = b + 0x7FFF + (b >> 16 & 1), quiet = b | 0x400000;
    return {u16((x != x ? quiet : rounded) >> 16)};
#endif
}

// To float, an inexact result with its last bit set: rounded again, to a type of at most 22 bits of mantissa, it is
// what one rounding would have given.
DEVICE float to_odd(double x) {
    const float y = static_cast<float>(x);
    const double back = static_cast<double>(y);
    const u32 b = bits(y);
    // Infinite, NaN, exact or odd as it is.
    if ((b & 0x7FFFFFFF) >= 0x7F800000 || back == x || (b & 1) == 1) {
        return y;
    }
    // One step towards x lands on an odd neighbour.
    const bool away = (back < x) != (x < 0.0);
    return of_bits(away ? b + 1 : b - 1);
}

// The nearest element of type T.
template <class T> struct Nearest;

template <> struct Nearest<float> {
    template <class F> static DEVICE float of(F x) { return static_cast<float>(x); }
};
template <> struct Nearest<double> {
    template <class F> static DEVICE double of(F x) { return static_cast<double>(x); }
};
template <> struct Nearest<f16> {
    static DEVICE f16 of(float x) { return to_f16(x); }
    static DEVICE f16 of(double x) { return to_f16(to_odd(x)); }
};
template <> struct Nearest<bf16> {
    static DEVICE bf16 of(float x) { return to_bf16(x); }
    static DEVICE bf16 of(double x) { return to_bf16(to_odd(x)); }
};

// To integers from -128 to 127; what is beyond becomes the nearest of them, NaN 0.
DEVICE i8 to_i8(float x) {
    float held = x > -128.0f ? x : -128.0f;
    held = held < 127.0f ? held : 127.0f;
    held = x != x ? 0.0f : held;
    // Beside this number, whose own low byte is 0, floats are 1 apart.
    return {u8(bits(held + 12582912.0f))};
}

// To floats of 8 bits, of which MANTISSA are the mantissa's; what is out of range becomes `largest`.
template <u32 MANTISSA, u32 BIAS> DEVICE u8 to_8_bits(float x, float largest) {
    constexpr u32 SHIFT = 23 - MANTISSA, LEAST = (127 + 1 - BIAS) << 23, ANCHOR = (127 + 1 - BIAS + SHIFT) << 23;
    const u32 sign = bits(x) >> 24 & 0x80;
    const float size = of_bits(bits(x) & 0x7FFFFFFF), held = size < largest ? size : largest;
    const u32 b = bits(held);
    const u32 normal = ((b + ((1u << (SHIFT - 1)) - 1) + (b >> SHIFT & 1)) >> SHIFT) - ((127 - BIAS) << MANTISSA);
    // Beside a number whose neighbours are as far apart as subnormal ones.
    const u32 subnormal = bits(held + of_bits(ANCHOR)) - ANCHOR;
    return u8(x != x ? 0x7F : sign | (b < LEAST ? subnormal : normal));
}

template <> struct Nearest<i8> {
    template <class F> static DEVICE i8 of(F x) { return to_i8(static_cast<float>(x)); }
};
template <> struct Nearest<f8e4m3> {
    template <class F> static DEVICE f8e4m3 of(F x) { return {to_8_bits<3, 7>(static_cast<float>(x), 448.0f)}; }
};
template <> struct Nearest<f8e5m2> {
    template <class F> static DEVICE f8e5m2 of(F x) { return {to_8_bits<2, 15>(static_cast<float>(x), 57344.0f)}; }
};

template <class T, class F> DEVICE T narrow(F x) {
    return Nearest<T>::of(x);
}

// A stored element as compute type F, which holds it exactly unless it is a double and F is float.
template <class F, class T> DEVICE F widen_to(T x) {
    return static_cast<F>(widen(x));
}

} // namespace device
