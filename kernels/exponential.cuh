#pragma once
// exp(-2 a) = power * exp(-2 rho) with a power of two, and what of exp(-2 rho) is beside 1: additions and multiplications, as
// docs/numerics.md has them.
#include "math.cuh"

// The numbers that the two types have of their own.
template <class F> struct ExpConstants;

template <> struct ExpConstants<float> {
    // Twice the binary logarithm of e, and ln 2 / 2 as one number and as two.
    static constexpr float STEPS = 2.88539004f;
    static constexpr float HALF_LN2 = 0.346573591f;
    static constexpr float HALF_LN2_HI = 0.3465728759765625f, HALF_LN2_LO = 7.1430340e-7f;
    // 1.5 * 2^23 and an exponent's bias: adding it leaves the exponent field of a power of two in the low bits.
    static constexpr float MAGIC_POWER = 12583039.0f;
};

template <> struct ExpConstants<double> {
    static constexpr double STEPS = 2.8853900817779268;
    static constexpr double HALF_LN2 = 0.34657359027997264;
    static constexpr double HALF_LN2_HI = 0.34657359018456191, HALF_LN2_LO = 9.5410746463529385e-11;
    static constexpr double MAGIC_POWER = 6755399441056767.0;
};

// a, or the limit beyond it; NaN stays.
template <class F> DEVICE F held(F a, F limit) {
    return a > limit ? limit : a;
}

// (rho - (1 - exp(-2 rho)) / 2) / rho^2 for |rho| up to a quarter of ln 2: for float32 the least largest error, for
// float64 the series 2/2! - 4/3! rho + 8/4! rho^2 - ...
DEVICE float bend_series(float rho) {
    return horner(rho, 1.0f, -0.6666618f, 0.33333123f, -0.13386248f, 0.044610064f);
}

DEVICE double bend_series(double rho) {
    return horner(rho, 1.0, -4.0 / 6, 8.0 / 24, -16.0 / 120, 32.0 / 720, -64.0 / 5040, 128.0 / 40320, -256.0 / 362880,
                  512.0 / 3628800, -1024.0 / 39916800, 2048.0 / 479001600, -4096.0 / 6227020800, 8192.0 / 87178291200,
                  -16384.0 / 1307674368000);
}

// f of exp(-2 rho) = 1 - 2 (rho - f).
template <class F> DEVICE F bend(F rho) {
    return (rho * rho) * bend_series(rho);
}
