#pragma once
// The functions of fused operations and their derivatives, as docs/numerics.md defines them.
#include "exponential.cuh"
#include "nearest.cuh"

template <class F> struct SigmoidConstants;

template <> struct SigmoidConstants<float> : ExpConstants<float> {
    // Of half of |z|, and of |z|: beyond it sigma(-|z|) counts as zero.
    static constexpr float MOST_HALF = 43.0f, MOST = 86.0f;
};

template <> struct SigmoidConstants<double> : ExpConstants<double> {
    static constexpr double MOST_HALF = 354.0, MOST = 708.0;
};

// 2 sqrt(2 / pi), and 0.044715 times it, once and three times.
template <class F> struct GeluConstants {
    static constexpr F K0 = F(1.5957691216057308), K1 = F(0.07135481627260025), K3 = F(0.21406444881780073);
};

// sigma(z) = 1 / (1 + exp(-z)), and sigma(-z).
template <class F> struct Sigmoids {
    F plus, minus;
};

// exp(-2 a) as two factors, of which one is a power of two.
template <class F> struct Power {
    F rest, two;
};

template <class F> DEVICE Power<F> power_of(F a) {
    using C = SigmoidConstants<F>;
    const F u = a * -C::STEPS + C::MAGIC_POWER;
    const F k = u - C::MAGIC_POWER;
    const F power = device::of_bits(device::bits(u) << Limits<F>::MANTISSA);
    const F rho = (a + k * C::HALF_LN2_HI) + k * C::HALF_LN2_LO;
    return {F(1) - F(2) * (rho - bend(rho)), power};
}

template <class F> DEVICE Sigmoids<F> sigmoids(F z) {
    using C = SigmoidConstants<F>;
    const F size = absolute(z);
    const Power<F> both = power_of(held(F(0.5) * size, C::MOST_HALF));
    const F e = both.rest, power = both.two;
    const F near = F(0.5) * nearest_recip_of_half_to_one(F(0.5) + (F(0.5) * power) * e);
    const F far = size > C::MOST ? F(0) : (e * power) * near;
    const bool is_below = z < F(0);
    return {is_below ? far : near, is_below ? near : far};
}

template <class F> DEVICE F silu(F z) {
    return z * sigmoids(z).plus;
}

// The function of a number, and its derivative there.
template <class F> struct ValueAndSlope {
    F value, slope;
};

template <class F> DEVICE ValueAndSlope<F> silu_and_slope(F z) {
    const Sigmoids<F> s = sigmoids(z);
    return {z * s.plus, s.plus * (F(1) + z * s.minus)};
}

// z² as far as it counts; NaN stays.
template <class F> DEVICE F square_for_gelu(F z) {
    return held(z * z, F(10000));
}

template <class F> DEVICE F gelu_tanh(F z) {
    using K = GeluConstants<F>;
    return z * sigmoids(z * (K::K0 + K::K1 * square_for_gelu(z))).plus;
}

template <class F> DEVICE F gelu_tanh_slope(F z) {
    using K = GeluConstants<F>;
    const F m = square_for_gelu(z);
    const Sigmoids<F> s = sigmoids(z * (K::K0 + K::K1 * m));
    return s.plus + (z * (s.plus * s.minus)) * (K::K0 + K::K3 * m);
}
