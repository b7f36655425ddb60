#pragma once
// Rotary position embedding: the columns of a pair are rotated by one of their row's angles, whose cosines and sines are operands.
// Both of a pair are worked on by one thread, which has read both before it writes either: the result may lie where they do.
#include "math.cuh"
#include "params.cuh"

template <class V> struct Rotary {
    using F = typename V::F;
    using I = Index<V>;
    // Pairs are columns `i` and `i + pairs` of a head, or else `2 i` and `2 i + 1`.
    static constexpr bool IS_HALVES = V::AFTER == After::RotaryHalves;
    static constexpr bool IS_THERE = IS_HALVES || V::AFTER == After::RotaryNeighbours;
    // Both of a pair are among the columns that a thread works on at a time.
    static constexpr bool IS_WITHIN = IS_THERE && !IS_HALVES && V::WIDTH > 1;
    // They are apart: the columns of a thread are all first ones, all second ones, or not rotated. The host sees to it.
    static constexpr bool IS_ACROSS = IS_THERE && !IS_WITHIN;

    // The columns from one that is number `j` of its head on.
    DEVICE static bool is_first(const Params<V>& p, I j) {
        return IS_HALVES ? j < I(p.s.pairs) : j < 2 * I(p.s.pairs) && j % 2 == 0;
    }
    DEVICE static bool is_second(const Params<V>& p, I j) {
        return j < 2 * I(p.s.pairs) && (IS_HALVES ? j >= I(p.s.pairs) : j % 2 == 1);
    }
    // From a first column to its second one.
    DEVICE static I distance(const Params<V>& p) { return IS_HALVES ? I(p.s.pairs) : I(1); }

    // The number in its head of a column among those of several heads.
    DEVICE static I in_head(const Params<V>& p, I col) {
        const I head = I(p.s.head);
        return col < head ? col : col - quotient(col, head) * head;
    }

    // The cosines, or the sines, of the columns from `col` on, which is number `j` of its head.
    template <class O> DEVICE static Numbers<V> angles(const Params<V>& p, const Place<V>& row, I col, I j) {
        const I pairs = I(p.s.pairs), head = col - j;
        if constexpr (IS_HALVES) {
            return load_quad<V, O>(p, row, head + (j < pairs ? j : j - pairs), head + pairs);
        } else {
            Numbers<V> x = {};
            UNROLL for (int k = 0; k < V::WIDTH; ++k) {
                const I i = (j + I(k)) / 2;
                if (i < pairs) {
                    x.at[k] = device::widen_to<F>(device::load<typename O::T, 1>(element<V, O>(p, row, head + i)).at[0]);
                }
            }
            return x;
        }
    }

    struct Angles {
        Numbers<V> cos, sin;
    };

    DEVICE static Angles angles_of(const Params<V>& p, const Place<V>& row, I col, I j) {
        using Positions = typename V::positions;
        Place<V> chosen = row;
        if constexpr (Positions::PRESENT) {
            const auto position = device::load<typename Positions::T, 1>(element<V, Positions>(p, row, col)).at[0];
            if (position < 0 || i64(position) >= p.s.table_rows) {
                Angles none;
                UNROLL for (int k = 0; k < V::WIDTH; ++k) {
                    none.cos.at[k] = none.sin.at[k] = device::of_bits(infinity_bits<F>() | 1u);
                }
                return none;
            }
            chosen.at[V::cos::SLOT] += i64(position) * p.s.cos_step;
            chosen.at[V::sin::SLOT] += i64(position) * p.s.sin_step;
        }
        return {angles<typename V::cos>(p, chosen, col, j), angles<typename V::sin>(p, chosen, col, j)};
    }

    // A pair after the rotation by an angle, or BACK by it.
    template <bool BACK> DEVICE static F first_of(F first, F second, F cos, F sin) {
        return BACK ? first * cos + second * sin : first * cos - second * sin;
    }
    template <bool BACK> DEVICE static F second_of(F first, F second, F cos, F sin) {
        return BACK ? second * cos - first * sin : second * cos + first * sin;
    }

    // Rotates pairs whose first columns begin with `col`.
    DEVICE static void across(const Params<V>& p, const Place<V>& row, I col, Numbers<V>& first, Numbers<V>& second) {
        const Angles of = angles_of(p, row, col, col);
        UNROLL for (int k = 0; k < V::WIDTH; ++k) {
            const F a = first.at[k], b = second.at[k];
            first.at[k] = first_of<false>(a, b, of.cos.at[k], of.sin.at[k]);
            second.at[k] = second_of<false>(a, b, of.cos.at[k], of.sin.at[k]);
        }
    }

    // Rotates the pairs within the columns from `col` on.
    template <bool BACK>
    DEVICE static Numbers<V> within(const Params<V>& p, const Place<V>& row, I col, I j, Numbers<V> x) {
        const Angles of = angles_of(p, row, col, j);
        UNROLL for (int k = 0; k + 1 < V::WIDTH; k += 2) {
            if (j + I(k) < 2 * I(p.s.pairs)) {
                const F a = x.at[k], b = x.at[k + 1];
                x.at[k] = first_of<BACK>(a, b, of.cos.at[k], of.sin.at[k]);
                x.at[k + 1] = second_of<BACK>(a, b, of.cos.at[k], of.sin.at[k]);
            }
        }
        return x;
    }

    // The gradient rotated back, of which `g` are the numbers of the columns from `col` on and O has those of the others.
    template <class O>
    DEVICE static Numbers<V> back(const Params<V>& p, const Place<V>& row, I col, I j, Numbers<V> g) {
        const I end = I(p.s.cols);
        if (col >= end) {
            return g;
        }
        if constexpr (IS_WITHIN) {
            return within<true>(p, row, col, j, g);
        }
        const bool first = is_first(p, j);
        if (!first && !is_second(p, j)) {
            return g;
        }
        const Numbers<V> other = load_quad<V, O>(p, row, first ? col + distance(p) : col - distance(p), end);
        const Angles of = angles_of(p, row, col, j);
        UNROLL for (int k = 0; k < V::WIDTH; ++k) {
            const F cos = of.cos.at[k], sin = of.sin.at[k];
            g.at[k] = first ? first_of<true>(g.at[k], other.at[k], cos, sin) : second_of<true>(other.at[k], g.at[k], cos, sin);
        }
        return g;
    }
};
