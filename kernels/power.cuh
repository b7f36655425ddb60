// Powers of magnitudes, as docs/numerics.md defines them: binary powering for small integers, else exp2(p log2 a) in two
// numbers, of additions and multiplications only.
#pragma once
#include "math.cuh"

// The numbers that the two types have of their own.
template <class F> struct PowerConstants;

template <> struct PowerConstants<float> {
    // Newton steps from `seed` to the reciprocal.
    static constexpr int STEPS = 3;
    // 1 / 3, 2 / ln 2 and ln 2 in two numbers each.
    static constexpr float THIRD = 0.3333333432674408f, THIRD_LOW = -9.934107758624577e-9f;
    static constexpr float TWO_LOG2E = 2.885390043258667f, TWO_LOG2E_LOW = 3.851926067000022e-8f;
    static constexpr float LN2 = 0.6931471824645996f, LN2_LOW = -1.9046542121259336e-9f;
};

template <> struct PowerConstants<double> {
    static constexpr int STEPS = 4;
    static constexpr double THIRD = 1.0 / 3.0, THIRD_LOW = 1.850371707708594e-17;
    static constexpr double TWO_LOG2E = 2.8853900817779268, TWO_LOG2E_LOW = 4.0710547481862066e-17;
    static constexpr double LN2 = 0.69314718055994531, LN2_LOW = 2.3190468138462996e-17;
};

// 1 / d for d in [1, 2] to 1 %. The coefficients are exact in float32.
template <class F> DEVICE F seed(F d) {
    return F(2.1212120056152344) + d * (F(-1.454545497894287) + d * F(0.3232323229312897));
}

// 1/5 + w/7 + w^2/9 + ...
DEVICE float atanh_series(float w) {
    return horner(w, 0.2f, 0.142857149f, 0.111111112f, 0.0909090936f, 0.0769230798f, 0.0666666701f);
}

DEVICE double atanh_series(double w) {
    return horner(w, 1.0 / 5, 1.0 / 7, 1.0 / 9, 1.0 / 11, 1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21, 1.0 / 23,
                  1.0 / 25, 1.0 / 27, 1.0 / 29, 1.0 / 31, 1.0 / 33);
}

// (exp(z) - 1 - z) / z^2 for |z| up to half of ln 2.
DEVICE float exp_series(float z) {
    return horner(z, 1.0f / 2, 1.0f / 6, 1.0f / 24, 1.0f / 120, 1.0f / 720, 1.0f / 5040, 1.0f / 40320);
}

DEVICE double exp_series(double z) {
    return horner(z, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320, 1.0 / 362880,
                  1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800, 1.0 / 87178291200,
                  1.0 / 1307674368000);
}

// log2 of a positive number as two numbers.
template <class F> DEVICE Two<F> log2_parts(F x) {
    using C = PowerConstants<F>;
    using L = Limits<F>;
    // A number so small that its exponent field may say nothing is raised first.
    constexpr i32 half = L::STEP / 2 + 1;
    const bool small = x < pow2<F>(-half);
    const Bits<F> bits = magnitude(small ? x * pow2<F>(half) : x);
    i32 k = exponent_of<F>(bits);
    F m = device::of_bits((bits & ((Bits<F>(1) << L::MANTISSA) - 1)) | (Bits<F>(L::BIAS) << L::MANTISSA));
    if (m > F(1.4142135)) {
        m = m * F(0.5);
        k += 1;
    }
    if (small) {
        k -= half;
    }
    // log2(m) = 2 / ln 2 * atanh(s), s = (m - 1) / (m + 1).
    const F f = m - F(1);
    const Two<F> d = two_sum(m, F(1));
    const F h = d.hi * F(0.5);
    F r = seed(h);
    UNROLL for (int i = 0; i < C::STEPS; ++i) {
        r = r + r * (F(1) - h * r);
    }
    r = r * F(0.5);
    const F s = f * r;
    const Two<F> t = two_prod(s, d.hi);
    const F sl = r * (((f - t.hi) - t.lo) - s * d.lo);
    // atanh(s) = s + s (w / 3 + w^2 (1/5 + w / 7 + ...)), w = s^2.
    const Two<F> w = two_prod(s, s);
    const F wl = w.lo + (F(2) * s) * sl;
    const Two<F> c = two_sum(C::THIRD, w.hi * atanh_series(w.hi));
    const F cl = c.lo + C::THIRD_LOW;
    const Two<F> u = two_prod(w.hi, c.hi);
    const F ul = u.lo + (w.hi * cl + wl * c.hi);
    // s + s (u + ul)
    const Two<F> v = two_prod(s, u.hi);
    const F vl = v.lo + (s * ul + sl * u.hi);
    const Two<F> b = two_sum(s, v.hi);
    const F bl = b.lo + (sl + vl);
    const Two<F> l = two_prod(b.hi, C::TWO_LOG2E);
    const F ll = l.lo + (b.hi * C::TWO_LOG2E_LOW + bl * C::TWO_LOG2E);
    const Two<F> sum = two_sum(static_cast<F>(k), l.hi);
    return {sum.hi, sum.lo + ll};
}

// A power of two as a factor near 1 and an exponent.
template <class F> struct Exp2 {
    F factor;
    i32 k;
};

// 2^(y.hi + y.lo); y.hi is not NaN.
template <class F> DEVICE Exp2<F> exp2_parts(Two<F> y) {
    using C = PowerConstants<F>;
    using L = Limits<F>;
    // Beyond this every number that it multiplies leaves the range.
    if (absolute(y.hi) > F(4 * L::STEP)) {
        return {F(1), y.hi < F(0) ? -3 * L::STEP : 3 * L::STEP};
    }
    const F k = (y.hi + L::MAGIC) - L::MAGIC;
    const Two<F> r = two_sum(y.hi - k, y.lo);
    const Two<F> z = two_prod(r.hi, C::LN2);
    const F zl = z.lo + (r.hi * C::LN2_LOW + r.lo * C::LN2);
    const F w = (z.hi * z.hi) * exp_series(z.hi);
    const F p = z.hi + w;
    const F pl = ((z.hi - p) + w) + zl * (F(1) + p);
    const Two<F> one = two_sum(F(1), p);
    return {one.hi + (one.lo + pl), static_cast<i32>(k)};
}

// a^(p + pl) of a magnitude; zero, infinity and NaN stay.
template <class F> DEVICE F real_power(F a, F p, F pl) {
    if (a == F(0) || !is_finite(a)) {
        return a;
    }
    const Two<F> l = log2_parts(a);
    const Two<F> y = two_prod(l.hi, p);
    const Exp2<F> power = exp2_parts(Two<F>{y.hi, y.lo + (l.lo * p + l.hi * pl)});
    return scale(power.factor, power.k);
}

// m2 * 2^(by * (p + pl)): a sum of powers as it is at another scale.
template <class F> DEVICE F scale_power(F m2, i32 by, F p, F pl) {
    const F steps = static_cast<F>(by);
    const Two<F> y = two_prod(steps, p);
    const Exp2<F> power = exp2_parts(Two<F>{y.hi, y.lo + steps * pl});
    return scale(m2 * power.factor, power.k);
}

// Left to right through the bits of P.
template <int P, class F> DEVICE F integer_power(F a) {
    if constexpr (P == 0) {
        return F(1);
    } else if constexpr (P == 1) {
        return a;
    } else {
        const F half = integer_power<P / 2>(a);
        const F square = half * half;
        return P % 2 == 1 ? square * a : square;
    }
}
