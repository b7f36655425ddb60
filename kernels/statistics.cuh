// What is known of a row or a part of it: moments, their merging, and the statistics that finish them.
#pragma once
#include "math.cuh"
#include "nearest.cuh"
#include "numbers.cuh"
#include "power.cuh"

// Numbers of a row's moments and statistics, in the order of their members.
constexpr int MOMENTS_SIZE = 5, STATISTICS_SIZE = 4;

template <class F> struct Moments {
    F count, mean, correction, m2;
    i32 exponent;
};

template <class F> struct Statistics {
    F mean, correction, rstd;
    i32 exponent;
};

template <class F> DEVICE Quad<F, MOMENTS_SIZE> to_numbers(const Moments<F>& m) {
    return {{m.count, m.mean, m.correction, m.m2, F(m.exponent)}};
}

template <class F> DEVICE Moments<F> to_moments(const Quad<F, MOMENTS_SIZE>& x) {
    return {x.at[0], x.at[1], x.at[2], x.at[3], to_exponent(x.at[4])};
}

template <class F> DEVICE Quad<F, STATISTICS_SIZE> to_numbers(const Statistics<F>& s) {
    return {{s.mean, s.correction, s.rstd, F(s.exponent)}};
}

template <class F> DEVICE Statistics<F> to_statistics(const Quad<F, STATISTICS_SIZE>& x) {
    return {x.at[0], x.at[1], x.at[2], to_exponent(x.at[3])};
}

// An element, centred if the statistic is, over the divisor.
template <bool CENTRED, class F> DEVICE F normalized(const Statistics<F>& s, F x) {
    F e = s.exponent == 0 ? x : scale(x, -s.exponent);
    if constexpr (CENTRED) {
        e = (e - s.mean) - s.correction;
    }
    return e * s.rstd;
}

// Moments of no element.
template <class F> DEVICE Moments<F> no_moments() {
    return {F(0), F(0), F(0), F(0), Limits<F>::NONE};
}

// `m2`, which is a sum of powers of numbers that are scaled by 2^by.
template <class V> DEVICE typename V::F scale_m2(const Scalars<typename V::F>& s, typename V::F m2, i32 by) {
    if constexpr (V::KIND == Kind::Norm1 || V::KIND == Kind::Largest) {
        return scale(m2, by);
    } else if constexpr (V::KIND == Kind::IntegerPower) {
        return scale(m2, by * V::POWER);
    } else if constexpr (V::KIND == Kind::Power) {
        return scale_power(m2, by, s.power, s.power_low);
    } else {
        return scale(m2, 2 * by);
    }
}

// The same moments, read with another exponent.
template <class V>
DEVICE Moments<typename V::F> rescaled(const Scalars<typename V::F>& s, Moments<typename V::F> m, i32 exponent) {
    const i32 by = m.exponent - exponent;
    // Numbers without an exponent are zeros.
    if (m.exponent != Limits<typename V::F>::NONE && by != 0) {
        m.mean = scale(m.mean, by);
        m.correction = scale(m.correction, by);
        m.m2 = scale_m2<V>(s, m.m2, by);
    }
    m.exponent = exponent;
    return m;
}

// Of the elements of both.
template <class V>
DEVICE Moments<typename V::F> merge(const Scalars<typename V::F>& s, Moments<typename V::F> a, Moments<typename V::F> b) {
    using F = typename V::F;
    if (a.count == F(0)) {
        return b;
    }
    if (b.count == F(0)) {
        return a;
    }
    const i32 exponent = a.exponent > b.exponent ? a.exponent : b.exponent;
    a = rescaled<V>(s, a, exponent);
    b = rescaled<V>(s, b, exponent);
    Moments<F> both = {a.count + b.count, F(0), F(0), F(0), exponent};
    if constexpr (V::KIND == Kind::Largest) {
        both.m2 = larger(a.m2, b.m2);
    } else {
        both.m2 = a.m2 + b.m2;
    }
    if constexpr (V::KIND == Kind::Moments) {
        const F r = b.count * nearest_recip(both.count);
        const F d = (b.mean - a.mean) + (b.correction - a.correction);
        const F t = d * r;
        both.m2 = both.m2 + (d * t) * a.count;
        const Two<F> mean = two_sum(a.mean, a.correction + t);
        both.mean = mean.hi;
        both.correction = mean.lo;
    }
    return both;
}

// A norm and what multiplies the row's elements.
template <class V>
DEVICE Statistics<typename V::F> finish_norm(const Scalars<typename V::F>& s, typename V::F m2, i32 exponent) {
    using F = typename V::F;
    F q = m2;
    if constexpr (V::KIND == Kind::Norm2) {
        q = device::square_root(m2);
    } else if constexpr (V::KIND == Kind::IntegerPower || V::KIND == Kind::Power) {
        q = real_power(m2, s.inv_power, s.inv_power_low);
    }
    const F floor = scale(s.eps, -exponent);
    Statistics<F> of_row = {F(0), F(0), F(0), exponent};
    if (q > floor || magnitude(q) >= infinity_bits<F>()) {
        of_row.mean = q;
        of_row.rstd = nearest_recip(q);
    } else if (s.eps > F(0)) {
        of_row.rstd = nearest_recip(floor);
    }
    return of_row;
}

// The statistics of a row with these moments.
template <class V>
DEVICE Statistics<typename V::F> finish(const Scalars<typename V::F>& s, Moments<typename V::F> m) {
    using F = typename V::F;
    if (m.count == F(0)) {
        return {F(0), F(0), F(0), 0};
    }
    const bool has_eps = s.eps > F(0);
    i32 exponent = m.exponent;
    if (has_eps && exponent != 0) {
        exponent = exponent > s.eps_exponent ? exponent : s.eps_exponent;
    } else if (exponent == Limits<F>::NONE) {
        exponent = 0;
    }
    m = rescaled<V>(s, m, exponent);
    if constexpr (V::KIND == Kind::Moments || V::KIND == Kind::MeanSquare) {
        Statistics<F> of_row = {m.mean, m.correction, F(0), exponent};
        if constexpr (V::OUTSIDE) {
            const RootAndReciprocal<F> root = rsqrt_outside(m.m2, m.count, scale(s.eps, -exponent));
            of_row.rstd = root.reciprocal;
            if constexpr (V::KIND == Kind::MeanSquare) {
                of_row.mean = root.root;
            }
        } else {
            of_row.rstd = rsqrt_inside(m.m2, m.count, scale(s.eps, -2 * exponent));
        }
        if (m.m2 == F(0) && has_eps && exponent != 0) {
            const F of_eps = scale(s.eps_rstd, exponent);
            of_row.rstd = magnitude(of_eps) < infinity_bits<F>() ? of_eps : largest<F>();
        }
        return of_row;
    } else {
        return finish_norm<V>(s, m.m2, exponent);
    }
}

// Statistics from a mean and a variance that were not taken of the row.
template <class F> DEVICE Statistics<F> of_running(F mean, F variance, F eps) {
    // Beyond it (2^100, in float64 2^900) the square of a deviation may leave the range.
    const Bits<F> large = magnitude(pow2<F>(sizeof(F) == 4 ? 100 : 900));
    const Bits<F> of_mean = magnitude(mean), of_variance = magnitude(variance);
    const bool is_large = (of_mean >= large && of_mean < infinity_bits<F>())
        || (of_variance >= large && of_variance < infinity_bits<F>());
    i32 exponent = 0;
    if (is_large) {
        // Right shifts of negative numbers round down.
        const i32 half = exponent_of<F>(of_variance) >> 1;
        exponent = exponent_of<F>(of_mean) > half ? exponent_of<F>(of_mean) : half;
    }
    const F rstd = rsqrt_inside(scale(variance, -2 * exponent), F(1), scale(eps, -2 * exponent));
    return {scale(mean, -exponent), F(0), rstd, exponent};
}
