#pragma once
#include "fusion.cuh"
#include "leaf.cuh"
#include "row_sums.cuh"
#include "statistics.cuh"
// The gradient of an element of what is normalized, from the numbers that its row has: the saved statistics and the sums.

// Bounds of a leaf's sums, and the least of its |ghat| that must be there, for nothing to be lost.
template <class F> struct SumsWindow;
template <> struct SumsWindow<float> {
    static constexpr i32 HIGH = 100, LEAST = -63;
};
template <> struct SumsWindow<double> {
    static constexpr i32 HIGH = 900, LEAST = -511;
};

template <class V> struct RowGradient {
    using F = typename V::F;
    static constexpr bool CENTRED = V::KIND == Kind::Moments;
    static constexpr bool LARGEST = V::KIND == Kind::Largest;
    static constexpr bool IS_NORM = V::KIND != Kind::Moments && V::KIND != Kind::MeanSquare;
    // The weight varies in the row, and is in its sums.
    static constexpr bool INNER_WEIGHT = V::weight::PRESENT && !V::OUTER_WEIGHT && (!V::PLAIN || V::BRANCH);

    const Params<V>& p;
    Statistics<F> s = {};
    // Exponents taken out of grad_output and of the weight.
    i32 g_exponent = 0, w_exponent = 0;
    // The means of ghat and of ghat * x_hat, and the power of two that the gradient is to be multiplied by.
    Pair<F> c = {F(0), F(0)};
    i32 power = 0;
    // A weight that is the same in all of the row, but for its exponent.
    F outer = F(1);

    DEVICE F with_offset(F weight) const { return V::OFFSET ? weight + p.s.weight_offset : weight; }

    DEVICE F scaled(F x) const { return s.exponent == 0 ? x : scale(x, -s.exponent); }

    DEVICE F x_hat(F x) const {
        F e = scaled(x);
        if constexpr (CENTRED) {
            e = (e - s.mean) - s.correction;
        }
        return e * s.rstd;
    }

    // As the weight multiplied it.
    DEVICE F rounded_hat(F x) const {
        F hat = x_hat(x);
        return V::ROUND ? device::widen_to<F>(device::narrow<typename V::input::T>(hat)) : hat;
    }

    DEVICE F ghat(F g, F w) const { return INNER_WEIGHT ? g * w : g; }

    DEVICE F scaled_ghat(F g, F w) const {
        return INNER_WEIGHT ? scale(g, -g_exponent) * scale(w, -w_exponent) : scale(g, -g_exponent);
    }

    DEVICE bool attains(F x) const { return absolute(scaled(x)) == s.mean; }

    // The means of ghat and of ghat * x_hat that are subtracted.
    DEVICE Pair<F> means(const RowSums<F>& sums) const {
        Pair<F> c = {F(0), F(0)};
        if constexpr (V::FROZEN) {
            return c;
        }
        if constexpr (LARGEST) {
            c.b = s.mean == F(0) ? F(0) : sums.s2 * nearest_recip(sums.ties);
        } else if constexpr (IS_NORM) {
            c.b = s.mean == F(0) ? F(0) : sums.s2;
        } else {
            F inv = nearest_recip(sums.count);
            c.a = CENTRED ? sums.s1 * inv : F(0);
            c.b = sums.s2 * inv;
            if constexpr (V::OUTSIDE && CENTRED) {
                // The root's share of the divisor, which has not been saved.
                F share = F(1) - s.rstd * scale(p.s.eps, -s.exponent);
                c.b = share > F(0) ? c.b * nearest_recip(share) : F(0);
            } else if constexpr (V::OUTSIDE) {
                c.b = s.mean == F(0) ? F(0) : c.b * nearest_recip(s.rstd * s.mean);
            }
        }
        return c;
    }

    // What multiplies the second mean.
    DEVICE F direction(F x) const {
        if constexpr (!IS_NORM || V::KIND == Kind::Norm2) {
            return x_hat(x);
        } else {
            F sign = x > F(0) ? F(1) : x < F(0) ? F(-1) : F(0);
            if constexpr (LARGEST) {
                return attains(x) ? sign : F(0);
            } else if constexpr (V::KIND == Kind::IntegerPower) {
                return sign * integer_power<V::POWER - 1>(absolute(x_hat(x)));
            } else if constexpr (V::KIND == Kind::Power) {
                return sign * real_power(absolute(x_hat(x)), p.s.slope_power, p.s.slope_power_low);
            } else {
                return sign;
            }
        }
    }

    // With the sums of all of the row, whose statistics are there.
    DEVICE void begin(const RowSums<F>& sums) {
        const bool has_terms = sums.g_exponent != Limits<F>::NONE;
        g_exponent = has_terms ? sums.g_exponent : 0;
        w_exponent = has_terms ? sums.w_exponent : 0;
        c = means(sums);
        power = g_exponent + w_exponent - s.exponent;
        outer = F(1);
    }

    // And a weight of the row, as a number of ordinary size and a power of two.
    DEVICE void begin_outer(F weight) {
        const F w = with_offset(weight);
        const Bits<F> bits = magnitude(w);
        constexpr i32 LEAST = SumsWindow<F>::LEAST;
        const bool is_usual = (bits >= magnitude(pow2<F>(LEAST)) && bits < magnitude(pow2<F>(-LEAST)))
            || bits == 0 || bits >= infinity_bits<F>();
        const i32 exponent = is_usual ? 0 : exponent_of<F>(bits);
        power = (g_exponent + w_exponent - s.exponent) + exponent;
        outer = scale(w, -exponent);
    }

    // Of an element `x`, `g` being what reaches the norm of the output's gradient and `w` its weight, if that varies in the row;
    // `is_seen` says whether the statistic saw it.
    DEVICE F gradient_of(F g, F x, F w, bool is_seen) const {
        F d = (g_exponent | w_exponent) != 0 ? scaled_ghat(g, w) : ghat(g, w);
        if (is_seen) {
            const F second = direction(x) * c.b;
            d = CENTRED ? (d - c.a) - second : d - second;
        }
        d = s.rstd * d;
        if constexpr (V::weight::PRESENT && V::OUTER_WEIGHT) {
            d = d * outer;
        }
        return power == 0 ? d : scale(d, power);
    }
};
