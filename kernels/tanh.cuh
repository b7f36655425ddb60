// tanh and its derivative, as docs/numerics.md defines them: additions, multiplications and one division. Both come from
// exp(-2 |z|) = power * exp(-2 rho).
#pragma once
#include "exponential.cuh"
#include "nearest.cuh"

// The numbers that the two types have of their own.
template <class F> struct TanhConstants;

template <> struct TanhConstants<float> : ExpConstants<float> {
    // Beyond these tanh is 1, and sech^2 too small for any finite gradient.
    static constexpr float TANH_LIMIT = 20.0f, SLOPE_LIMIT = 87.0f;
    // The bits of MAGIC_POWER for the power 1, and for the least normal one.
    static constexpr u32 ONE = 0x4B40007Fu, LEAST = 0x4B400001u;
};

template <> struct TanhConstants<double> : ExpConstants<double> {
    static constexpr double TANH_LIMIT = 40.0, SLOPE_LIMIT = 708.0;
    static constexpr u64 ONE = 0x43380000000003FFu, LEAST = 0x4338000000000001u;
};

// |tanh(z)|, and the reciprocal of 1 - m, with m = (1 - exp(-2 |z|)) / 2: tanh is m / (1 - m).
template <class F> struct TanhQuotient {
    F t, y;
};

template <class F> DEVICE TanhQuotient<F> tanh_quotient(F power, F rho, F f) {
    const F half_power = F(0.5) * power;
    const F below = F(0.5) - half_power, above = F(0.5) + half_power;
    const F straight = power * rho, bent = power * f;
    const F step = straight - bent;
    const F m = below + step;
    const F y = nearest_recip_of_half_to_one(F(1) - m);
    const F first = head(m * y);
    // m - first (1 - m), of which the large parts cancel without an error.
    const F rest = ((below - first * above) + straight) - (bent - step * first);
    return {first + rest * y, y};
}

template <class F> DEVICE F tanh_of(F z) {
    using C = TanhConstants<F>;
    const F a = held(absolute(z), C::TANH_LIMIT);
    const F u = a * -C::STEPS + C::MAGIC_POWER;
    const F power = device::of_bits(device::bits(u) << Limits<F>::MANTISSA);
    // What ln 2 has beyond its last bit here, and what the product rounds, tanh damps.
    const F rho = a + (u - C::MAGIC_POWER) * C::HALF_LN2;
    return or_sign(tanh_quotient(power, rho, bend(rho)).t, z);
}

// tanh(z), and sech(z)^2 as h * power * below.
template <class F> struct TanhSlope {
    F t, h, power, below;
};

// sech(z)^2 without its power of two: exp(-2 rho) / q^2 with q = (1 + exp(-2 |z|)) / 2, of whose reciprocal y is near.
template <class F> DEVICE F sech_square(F power, F rho, F f, F y) {
    const F p = rho - f;
    const F e = F(1) - F(2) * p;
    const F e_low = (F(1) - e) - F(2) * p;
    const F half_power = F(0.5) * power;
    const F q = F(0.5) + half_power * e;
    const F q_low = ((F(0.5) - q) + half_power * e) + half_power * e_low;
    const F square = y * y;
    const F first = head(e * square), q_first = head(q);
    const F q_rest = (q - q_first) + q_low;
    // e - first q^2, of which the large parts cancel without an error.
    const F rest = ((e - first * (q_first * q_first)) + e_low) - first * (q_rest * (F(2) * q_first + q_rest));
    return first + rest * square;
}

// Of z.hi and its small low part: errors of the argument count here, exp makes relative ones of them.
template <class F> DEVICE TanhSlope<F> tanh_slope(Two<F> z) {
    using C = TanhConstants<F>;
    const F size = absolute(z.hi);
    const bool is_beyond = size > C::SLOPE_LIMIT;
    const F a = held(size, C::SLOPE_LIMIT);
    const F u = a * -C::STEPS + C::MAGIC_POWER;
    const F k = u - C::MAGIC_POWER;
    const Bits<F> field = device::bits(u);
    const Bits<F> normal = field < C::LEAST ? C::LEAST : field;
    const F power = device::of_bits(normal << Limits<F>::MANTISSA);
    const F below = device::of_bits((field - normal + C::ONE) << Limits<F>::MANTISSA);
    const F low = is_beyond ? F(0) : flip_sign(z.lo, z.hi);
    const F rho = (a + k * C::HALF_LN2_HI) + (k * C::HALF_LN2_LO + low);
    const F f = bend(rho);
    const TanhQuotient<F> quotient = tanh_quotient(power, rho, f);
    const F h = sech_square(power, rho, f, quotient.y);
    // Beyond the limit, so little that no finite gradient survives it, but an infinite one stays infinite.
    const F little = is_finite(size) ? pow2<F>(-100) : F(0);
    return {or_sign(quotient.t, z.hi), is_beyond ? little : h, power, below};
}
