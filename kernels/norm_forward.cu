#pragma once
#include "moments.cuh"
#include "quantize.cuh"
// y = (x - mean) * rstd * weight + bias by leaves of rows, in up to three stages: COMPUTE the leaf's moments, FINISH them to
// statistics, APPLY those to its elements. A leaf that is kept is read once. What x is made of, and what becomes of y, is
// said in `fusion.cuh`; codes of 8 bits are those of `quantize.cuh`. The moments of a branch that has a norm of its own come
// first, of the elements that are kept, if they are.

template <class V> struct Forward {
    using F = typename V::F;
    using I = Index<V>;
    using Input = typename V::input;
    using Residual = typename V::before;
    using Kept = typename Prologue<V>::Kept;
    using Other = typename V::after;
    static constexpr int KEPT = LeafMoments<V>::KEPT;
    static constexpr bool CENTRED = V::KIND == Kind::Moments;

    const Params<V>& p;
    Leaf<V>& leaf;
    Kept (&held)[KEPT];

    // Moments of all of the row, where the teams of a block have its leaves.
    template <class N = V> DEVICE Moments<F> merged(const Moments<F>& m) {
        if constexpr (V::LEAVES == 1) {
            return m;
        } else {
            using Five = Quad<F, MOMENTS_SIZE>;
            Five all = leaf.across_leaves(to_numbers(m), to_numbers(no_moments<F>()), [&](const Five& a, const Five& b) {
                return to_numbers(merge<N>(p.s, to_moments(a), to_moments(b)));
            });
            return to_moments(all);
        }
    }

    // Columns that a thread reaches: with a rotary embedding, those of other leaves, too.
    DEVICE I end() const { return Rotary<V>::IS_ACROSS ? I(p.s.cols) : leaf.end; }

    // What the norm gives of the elements from column `col` on.
    DEVICE Numbers<V> values(I col, const Numbers<V>& x, const Statistics<F>& s) const {
        Numbers<V> weight = {}, bias = {}, mask, y;
        if constexpr (V::weight::PRESENT) {
            weight = load_quad<V, typename V::weight>(p, leaf.place, col, end());
        }
        if constexpr (V::bias::PRESENT) {
            bias = load_quad<V, typename V::bias>(p, leaf.place, col, end());
        }
        if constexpr (V::mask::PRESENT) {
            mask = load_quad<V, typename V::mask>(p, leaf.place, col, end());
        }
        UNROLL for (int k = 0; k < V::WIDTH; ++k) {
            F e = normalized<CENTRED>(s, x.at[k]);
            if constexpr (V::ROUND) {
                e = device::widen_to<F>(device::narrow<typename Input::T>(e));
            }
            e = scaled_and_shifted(p, e, weight.at[k], bias.at[k]);
            if constexpr (V::mask::PRESENT) {
                e = magnitude(mask.at[k]) != 0 ? e : F(0);
            }
            y.at[k] = e;
        }
        return y;
    }

    // What the elements from column `col` on become, where they need no columns of other threads.
    DEVICE Numbers<V> result(I col, const Numbers<V>& x, const Stored<V, Other>& z, const Statistics<F>& s) const {
        Numbers<V> y = values(col, x, s);
        if constexpr (Rotary<V>::IS_WITHIN) {
            y = Rotary<V>::template within<false>(p, leaf.place, col, col, y);
        } else {
            const Numbers<V> after = widened<V>(z);
            UNROLL for (int k = 0; k < V::WIDTH; ++k) {
                y.at[k] = Epilogue<V>::output(y.at[k], after.at[k]);
            }
        }
        return y;
    }

    // Writes it, and what was normalized.
    DEVICE void write(I col, const Numbers<V>& x, const Numbers<V>& y) const {
        if (leaf.live) {
            if constexpr (V::hidden::PRESENT) {
                store_quad<V, typename V::hidden>(p, leaf.place, col, end(), x);
            }
            store_quad<V, typename V::output>(p, leaf.place, col, end(), y);
        }
    }

    // First columns bring their second ones with them.
    DEVICE void write_pairs(I col, const Numbers<V>& x, const Statistics<F>& s) const {
        if (Rotary<V>::is_first(p, col)) {
            const I other = col + Rotary<V>::distance(p);
            const Numbers<V> x_other = Prologue<V>::numbers(p, leaf.place, other, end());
            Numbers<V> y = values(col, x, s), y_other = values(other, x_other, s);
            Rotary<V>::across(p, leaf.place, col, y, y_other);
            write(col, x, y);
            write(other, x_other, y_other);
        } else if (!Rotary<V>::is_second(p, col)) {
            write(col, x, values(col, x, s));
        }
    }

    // Writes all of the leaf: `hidden(i, column)` is what was normalized, `of_hidden` what becomes of it.
    template <class Hidden, class Of> DEVICE void apply(Hidden hidden, Of of_hidden, const Statistics<F>& s) {
        using Codes = Quantizer<V>;
        if constexpr (Rotary<V>::IS_ACROSS) {
            static_assert(!Codes::IS_CODED);
            leaf.each([&](int i, I col) { write_pairs(col, hidden(i, col), s); });
            return;
        }
        if constexpr (V::SCALING == Scaling::Block) {
            // Threads have other columns than those that they keep. A hidden value that replaces an operand is written by who
            // reads that last.
            auto again = [&](I col) { return Prologue<V>::numbers(p, leaf.place, col, leaf.end); };
            Codes::by_blocks(
                p, leaf, [&](I col) { return result(col, again(col), other(col), s); },
                [&](I col, const Numbers<V>& y) { write(col, again(col), y); });
            return;
        }
        float scale = 0.0f;
        if constexpr (V::SCALING == Scaling::Static) {
            scale = static_cast<float>(p.s.code_scale);
        }
        if constexpr (V::SCALING == Scaling::Row) {
            u32 most = 0;
            leaf.each([&](int i, I col) {
                const u32 own = Codes::most_of(p, of_hidden(i, col, hidden(i, col)), col, leaf.end);
                most = own > most ? own : most;
            });
            scale = Codes::scale(p, Codes::of_row(leaf, most));
            if (leaf.is_first_of_row()) {
                set_number<V, typename V::scales>(p, leaf.place, 0, F(scale));
            }
        }
        leaf.each([&](int i, I col) {
            const Numbers<V> x = hidden(i, col);
            const Numbers<V> y = of_hidden(i, col, x);
            if constexpr (Codes::IS_CODED) {
                if (Codes::HAS_OUTLIERS && leaf.live) {
                    Codes::flag(p, leaf.place, y, col, leaf.end);
                }
                write(col, x, Codes::coded(p, y, scale));
            } else {
                write(col, x, y);
            }
        });
    }

    // Of the epilogue's other operand.
    DEVICE Stored<V, Other> other(I col) const { return load_if_present<V, Other>(p, leaf.place, col, leaf.end); }

    // Statistics of the norm of a branch, or of a residual, which are `Saved`. Its elements are kept as they are.
    template <class Of, class Saved> DEVICE Statistics<F> of_inner() {
        using Norm = InnerNorm<V, Of>;
        static_assert(V::COMPUTE && V::FINISH && !V::SPLIT && !V::mask::PRESENT && !V::element::PRESENT);
        if constexpr (Leaf<V>::HELD > 0) {
            leaf.each([&](int i, I col) { held[i] = load_quad<V, Of>(p, leaf.place, col, leaf.end); });
        }
        LeafMoments<V, Norm> of_leaf = {p, leaf, held};
        const Moments<F> m = merged<Norm>(of_leaf.moments());
        Scalars<F> own = p.s;
        own.eps = p.s.inner_eps;
        own.eps_rstd = p.s.inner_eps_rstd;
        own.eps_exponent = p.s.inner_eps_exponent;
        const Statistics<F> s = finish<Norm>(own, m);
        if constexpr (V::LEAVES > 1) {
            // The leaves of the sum meet where those of the branch may still be read.
            device::barrier();
        }
        if constexpr (Saved::PRESENT) {
            if (leaf.is_first_of_row()) {
                set_numbers<V, Saved>(p, leaf.place, 0, to_numbers(s));
            }
        }
        return s;
    }

    DEVICE void run() {
        Stored<V, Other> held_other[KEPT];
        // The residual's first: it is read again, the input is not.
        if constexpr (V::HAS_MIX) {
            leaf.place.residual = of_inner<Residual, typename V::mix_statistics>();
        }
        if constexpr (V::HAS_INNER) {
            leaf.place.inner = of_inner<Input, typename V::inner_statistics>();
        }
        if constexpr (Leaf<V>::HELD > 0) {
            leaf.each([&](int i, I col) {
                if constexpr (V::HAS_INNER) {
                    held[i] = Prologue<V>::with_inner(p, leaf.place, col, leaf.end, held[i]);
                } else {
                    held[i] = Prologue<V>::load(p, leaf.place, col, leaf.end);
                }
                held_other[i] = other(col);
            });
        }
        Statistics<F> s = {};
        if constexpr (V::COMPUTE) {
            LeafMoments<V> of_leaf = {p, leaf, held};
            Moments<F> m = merged(of_leaf.moments());
            if constexpr (V::moments::PRESENT) {
                if (V::SPLIT ? leaf.is_first() : leaf.is_first_of_row()) {
                    i64 at = V::SPLIT ? MOMENTS_SIZE * i64(leaf.leaf) : 0;
                    set_numbers<V, typename V::moments>(p, leaf.place, at, to_numbers(m));
                }
            }
            if constexpr (V::FINISH) {
                s = finish<V>(p.s, m);
            }
        } else {
            using Given = typename V::given;
            s = to_statistics(numbers_of<V, Given, STATISTICS_SIZE>(p, leaf.place, 0));
        }
        if constexpr (V::statistics::PRESENT) {
            if (leaf.is_first_of_row()) {
                set_numbers<V, typename V::statistics>(p, leaf.place, 0, to_numbers(s));
            }
        }
        if constexpr (V::APPLY) {
            auto hidden = [&](int i, I col) {
                if constexpr (Leaf<V>::HELD > 0) {
                    return widened<V>(held[i]);
                } else {
                    return Prologue<V>::numbers(p, leaf.place, col, leaf.end);
                }
            };
            auto of_hidden = [&](int i, I col, const Numbers<V>& x) {
                if constexpr (Leaf<V>::HELD > 0) {
                    return result(col, x, held_other[i], s);
                } else {
                    return result(col, x, other(col), s);
                }
            };
            apply(hidden, of_hidden, s);
        }
    }
};

template <class V> DEVICE void norm_forward(const Params<V>& p) {
    Leaf<V> leaf(p);
    if (!leaf.enter()) {
        return;
    }
    typename Prologue<V>::Kept held[LeafMoments<V>::KEPT];
    Forward<V> forward = {p, leaf, held};
    forward.run();
}
