#pragma once
#include "leaf.cuh"
#include "row_gradient.cuh"
// grad_input = rstd * (ghat - mean(ghat) - x_hat * mean(ghat * x_hat)), ghat = grad_output * weight, by leaves of rows, in
// up to two stages: COMPUTE the leaf's sums, APPLY those of the row. PLAIN sums are those of the parameters' gradients,
// over the part of a row that shares a parameter. A leaf that is kept is read once. What x is made of, and what of the
// output's gradient reaches the norm, is said in `fusion.cuh`.

template <class V> struct Backward : RowGradient<V> {
    using Row = RowGradient<V>;
    using F = typename V::F;
    using I = Index<V>;
    using Input = typename V::input;
    using Output = typename V::grad_output;
    using Other = typename V::after;
    using OfHidden = typename V::grad_hidden;
    using Result = Epilogue<V>;
    using Weight = typename V::weight;
    using Mask = typename V::mask;
    using Window = SumsWindow<F>;
    using Row::CENTRED, Row::LARGEST, Row::INNER_WEIGHT;
    using Row::p, Row::s, Row::g_exponent, Row::w_exponent;
    using Row::attains, Row::ghat, Row::rounded_hat, Row::scaled_ghat, Row::with_offset, Row::x_hat;
    static constexpr int KEPT = Leaf<V>::HELD > 0 ? Leaf<V>::HELD : 1;
    // How threads keep elements, and what reaches the norm of the output's gradient: as they are stored, if they are.
    using KeptInput = typename Prologue<V>::Kept;
    using KeptGradient = typename Either<Result::CHANGES_GRADIENT, Numbers<V>, Stored<V, Output>>::Type;

    Leaf<V>& leaf;
    KeptInput (&held_x)[KEPT];
    KeptGradient (&held_g)[KEPT];

    // What may overwrite the output's gradient is written by pairs of columns, where threads still read that for each other.
    static constexpr bool BY_PAIRS = Rotary<V>::IS_ACROSS && !(Leaf<V>::HELD > 0 && V::COMPUTE);

    // Columns that a thread reaches: with a rotary embedding, those of other leaves, too.
    DEVICE I end() const { return Rotary<V>::IS_ACROSS ? I(p.s.cols) : leaf.end; }

    DEVICE Numbers<V> input(I col) const { return Prologue<V>::numbers(p, leaf.place, col, end()); }

    DEVICE Stored<V, Output> output_gradient(I col) const {
        return load_stored<V, Output>(p, leaf.place, col, end());
    }

    // Of the epilogue's other operand.
    DEVICE Stored<V, Other> other(I col) const { return load_if_present<V, Other>(p, leaf.place, col, end()); }

    // The gradient that the hidden value has of its own.
    DEVICE Stored<V, OfHidden> hidden_gradient(I col) const {
        return load_if_present<V, OfHidden>(p, leaf.place, col, end());
    }

    // What reaches the norm of the output's gradient. The LAST time that a pass wants it, the gradient of the epilogue's
    // other operand is written, too: that of the output may be overwritten soon.
    template <bool LAST>
    DEVICE KeptGradient gradient(I col, const KeptInput& x, const Stored<V, Output>& g, const Stored<V, Other>& z) const {
        constexpr bool WRITES = LAST && V::APPLY && V::grad_after::PRESENT;
        Numbers<V> of_norm = widened<V>(g);
        if constexpr (Rotary<V>::IS_THERE) {
            of_norm = Rotary<V>::template back<Output>(p, leaf.place, col, col, of_norm);
        } else if constexpr (Result::CHANGES_GRADIENT || WRITES) {
            Numbers<V> value = {}, of_other;
            if constexpr (Result::NEEDS_VALUE) {
                value = values(col, widened<V>(x));
            }
            const Numbers<V> beside = widened<V>(z);
            UNROLL for (int k = 0; k < V::WIDTH; ++k) {
                const auto both = Result::gradients(of_norm.at[k], value.at[k], beside.at[k]);
                of_norm.at[k] = both.of_value;
                of_other.at[k] = both.of_other;
            }
            if constexpr (WRITES) {
                if (leaf.live) {
                    store_quad<V, typename V::grad_after>(p, leaf.place, col, end(), of_other);
                }
            }
        }
        if constexpr (Result::CHANGES_GRADIENT) {
            return of_norm;
        } else {
            return g;
        }
    }

    // What the norm gave of the columns from `col` on.
    DEVICE Numbers<V> values(I col, const Numbers<V>& x) const {
        Numbers<V> weight = {}, bias = {}, mask, v;
        if constexpr (Weight::PRESENT) {
            weight = load_quad<V, Weight>(p, leaf.place, col, end());
        }
        if constexpr (V::bias::PRESENT) {
            bias = load_quad<V, typename V::bias>(p, leaf.place, col, end());
        }
        if constexpr (Mask::PRESENT) {
            mask = load_quad<V, Mask>(p, leaf.place, col, end());
        }
        UNROLL for (int k = 0; k < V::WIDTH; ++k) {
            v.at[k] = scaled_and_shifted(p, rounded_hat(x.at[k]), weight.at[k], bias.at[k]);
            if constexpr (Mask::PRESENT) {
                v.at[k] = magnitude(mask.at[k]) != 0 ? v.at[k] : F(0);
            }
        }
        return v;
    }

    // What is normalized and what reaches the norm of the gradients, as numbers.
    struct Both {
        Numbers<V> x, g;
    };

    // Those that are kept, or else read again.
    template <bool LAST> DEVICE Both both(int i, I col) const {
        if constexpr (Leaf<V>::HELD > 0) {
            return {widened<V>(held_x[i]), widened<V>(held_g[i])};
        } else {
            return both_again<LAST>(col);
        }
    }

    template <bool LAST = false> DEVICE Both both_again(I col) const {
        const KeptInput x = Prologue<V>::load(p, leaf.place, col, end());
        return {widened<V>(x), widened<V>(gradient<LAST>(col, x, output_gradient(col), other(col)))};
    }

    // The weight that varies in the row.
    DEVICE Numbers<V> weights(I col) const {
        Numbers<V> w = {};
        if constexpr (INNER_WEIGHT) {
            w = load_quad<V, Weight>(p, leaf.place, col, end());
            UNROLL for (int k = 0; k < V::WIDTH; ++k) {
                w.at[k] = with_offset(w.at[k]);
            }
        }
        return w;
    }

    // Calls `then(k)` for those of the columns from `col` on that take part.
    template <class Then> DEVICE void taking_part(I col, Then then) const {
        Numbers<V> mask;
        if constexpr (Mask::PRESENT) {
            mask = load_quad<V, Mask>(p, leaf.place, col, end());
        }
        UNROLL for (int k = 0; k < V::WIDTH; ++k) {
            bool takes_part = col + I(k) < end();
            if constexpr (Mask::PRESENT) {
                takes_part = takes_part && magnitude(mask.at[k]) != 0;
            }
            if (takes_part) {
                then(k);
            }
        }
    }

    DEVICE static bool is_small(F x) { return magnitude(x) < magnitude(pow2<F>(Window::HIGH)); }

    // One pass over the leaf as it is.
    DEVICE Pair<F> first_sums() {
        return leaf.sums([&](int i, I col, Numbers<V>& a, Numbers<V>& b) {
            a = b = {};
            const Both of = both<false>(i, col);
            Numbers<V> w = weights(col);
            if constexpr (V::BRANCH) {
                branch_terms(col, of, w, a, b);
                return;
            }
            taking_part(col, [&](int k) {
                a.at[k] = ghat(of.g.at[k], w.at[k]);
                b.at[k] = a.at[k] * (V::PLAIN ? rounded_hat(of.x.at[k]) : x_hat(of.x.at[k]));
            });
        });
    }

    // The terms of the gradients of a branch's bias and of its scale, of all elements.
    DEVICE void branch_terms(I col, const Both& of, const Numbers<V>& w, Numbers<V>& a, Numbers<V>& b) const {
        Numbers<V> d = {};
        taking_part(col, [&](int k) {
            const bool is_seen = !V::PREFIX || i64(col + I(k)) < p.s.prefix;
            d.at[k] = Row::gradient_of(of.g.at[k], of.x.at[k], w.at[k], is_seen);
        });
        const auto own = Prologue<V>::branch(p, leaf.place, col, end());
        const u32 kept = kept_columns(p, leaf.place, col);
        d = Prologue<V>::inside(p, Prologue<V>::with_own(d, hidden_gradient(col)), kept);
        const Numbers<V> x = Prologue<V>::shifted(load_stored<V, Input>(p, leaf.place, col, end()), own, kept);
        a = Prologue<V>::scaled(d, own);
        UNROLL for (int k = 0; k < V::WIDTH; ++k) {
            b.at[k] = d.at[k] * x.at[k];
        }
    }

    // The largest magnitudes that a second reading finds.
    struct Seen {
        Bits<F> ghat, g, w;
    };

    DEVICE Seen largest_seen() {
        Bits<F> most[3] = {0, 0, INNER_WEIGHT ? 0 : magnitude(F(1))};
        leaf.each_in_turn([&](I col) {
            Numbers<V> g = both_again(col).g, w = weights(col);
            taking_part(col, [&](int k) {
                most[0] = Most()(most[0], magnitude(ghat(g.at[k], w.at[k])));
                most[1] = Most()(most[1], magnitude(g.at[k]));
                if constexpr (INNER_WEIGHT) {
                    most[2] = Most()(most[2], magnitude(w.at[k]));
                }
            });
        });
        return {leaf.fold(most[0], Most()), leaf.fold(most[1], Most()), leaf.fold(most[2], Most())};
    }

    // With the leaf's exponents.
    DEVICE Pair<F> scaled_sums() {
        return leaf.sums_again([&](int, I col, Numbers<V>& a, Numbers<V>& b) {
            a = b = {};
            const Both of = both_again(col);
            Numbers<V> w = weights(col);
            taking_part(col, [&](int k) {
                a.at[k] = scaled_ghat(of.g.at[k], w.at[k]);
                b.at[k] = a.at[k] * x_hat(of.x.at[k]);
            });
        });
    }

    // How many elements the statistic saw, and how many attain the infinity norm.
    DEVICE Pair<F> counts() {
        return leaf.sums_again([&](int, I col, Numbers<V>& a, Numbers<V>& b) {
            a = b = {};
            Numbers<V> x = input(col);
            taking_part(col, [&](int k) {
                a.at[k] = !V::PREFIX || i64(col + I(k)) < p.s.prefix ? F(1) : F(0);
                b.at[k] = LARGEST && attains(x.at[k]) ? F(1) : F(0);
            });
        });
    }

    DEVICE RowSums<F> leaf_sums() {
        Pair<F> sums = first_sums();
        RowSums<F> of_leaf = {F(leaf.length()), sums.a, sums.b, 0, 0, 0};
        if constexpr (V::PREFIX) {
            i64 until = p.s.prefix < i64(leaf.end) ? p.s.prefix : i64(leaf.end);
            of_leaf.count = F(until > i64(leaf.start) ? until - i64(leaf.start) : 0);
        }
        if constexpr (Mask::PRESENT || LARGEST) {
            Pair<F> both = counts();
            of_leaf.count = both.a;
            of_leaf.ties = both.b;
        }
        if constexpr (!V::PLAIN) {
            // A mean that large has a large term.
            F least = F(leaf.length()) * pow2<F>(Window::LEAST + 1);
            bool is_regular = is_small(sums.a) && is_small(sums.b) && absolute(sums.a) >= least;
            if (leaf.any(!is_regular)) {
                look_again(of_leaf, is_regular);
            }
        }
        return of_leaf;
    }

    // For leaves that are not known to be regular; others come by and keep what they have.
    DEVICE void look_again(RowSums<F>& of_leaf, bool is_regular) {
        const Seen seen = largest_seen();
        bool is_large = seen.ghat >= magnitude(pow2<F>(Window::LEAST));
        is_regular = is_regular || (is_small(of_leaf.s1) && is_small(of_leaf.s2) && is_large);
        bool is_finite = seen.g < infinity_bits<F>() && seen.w < infinity_bits<F>();
        bool is_zero = seen.g == 0 || seen.w == 0;
        if (!is_regular && is_finite && is_zero) {
            of_leaf.g_exponent = Limits<F>::NONE;
        }
        bool is_scaled = !is_regular && is_finite && !is_zero;
        if (leaf.any(is_scaled)) {
            g_exponent = exponent_of<F>(seen.g);
            w_exponent = INNER_WEIGHT ? exponent_of<F>(seen.w) : 0;
            Pair<F> sums = scaled_sums();
            if (is_scaled) {
                of_leaf = {of_leaf.count, sums.a, sums.b, of_leaf.ties, g_exponent, w_exponent};
            }
        }
    }

    // Sums of all of the row, where the teams of a block have its leaves.
    DEVICE RowSums<F> merged(const RowSums<F>& sums) {
        if constexpr (V::LEAVES == 1) {
            return sums;
        } else {
            using Six = Quad<F, SUMS_SIZE>;
            Six all = leaf.across_leaves(to_numbers(sums), to_numbers(no_sums<F>()), [](const Six& a, const Six& b) {
                return to_numbers(merge_sums(to_sums(a), to_sums(b)));
            });
            return to_sums(all);
        }
    }

    DEVICE void begin(const RowSums<F>& sums) {
        Row::begin(sums);
        if constexpr (Weight::PRESENT && V::OUTER_WEIGHT) {
            // The same in every column.
            Row::begin_outer(load_quad<V, Weight>(p, leaf.place, leaf.start, leaf.end).at[0]);
        }
    }

    DEVICE void apply(const RowSums<F>& sums, const Stored<V, OfHidden> (&held_own)[KEPT]) {
        begin(sums);
        auto write = [&](I col, const Both& of, const Stored<V, OfHidden>& own) {
            Numbers<V> w = weights(col);
            Numbers<V> y = {};
            taking_part(col, [&](int k) {
                const bool is_seen = !V::PREFIX || i64(col + I(k)) < p.s.prefix;
                y.at[k] = Row::gradient_of(of.g.at[k], of.x.at[k], w.at[k], is_seen);
            });
            if (leaf.live) {
                Prologue<V>::store_gradients(p, leaf.place, col, end(), y, own);
            }
        };
        leaf.each([&](int i, I col) {
            if constexpr (BY_PAIRS) {
                if (Rotary<V>::is_first(p, col)) {
                    const I other = col + Rotary<V>::distance(p);
                    const Both first = both_again<true>(col), second = both_again<true>(other);
                    const Stored<V, OfHidden> own = hidden_gradient(col), own_other = hidden_gradient(other);
                    write(col, first, own);
                    write(other, second, own_other);
                } else if (!Rotary<V>::is_second(p, col)) {
                    write(col, both_again<true>(col), hidden_gradient(col));
                }
            } else {
                const Both of = both<true>(i, col);
                write(col, of, Leaf<V>::HELD > 0 ? held_own[i] : hidden_gradient(col));
            }
        });
    }

    DEVICE void run() {
        using Saved = typename V::statistics;
        s = to_statistics(numbers_of<V, Saved, STATISTICS_SIZE>(p, leaf.place, 0));
        if constexpr (V::HAS_INNER) {
            using OfBranch = typename V::inner_statistics;
            leaf.place.inner = to_statistics(numbers_of<V, OfBranch, STATISTICS_SIZE>(p, leaf.place, 0));
        }
        if constexpr (V::HAS_MIX) {
            using OfResidual = typename V::mix_statistics;
            leaf.place.residual = to_statistics(numbers_of<V, OfResidual, STATISTICS_SIZE>(p, leaf.place, 0));
        }
        Stored<V, OfHidden> held_own[KEPT];
        if constexpr (Leaf<V>::HELD > 0) {
            // All is asked for before anything is written, which might be the memory of what follows.
            Stored<V, Output> asked_g[KEPT];
            Stored<V, Other> asked_z[KEPT];
            leaf.each([&](int i, I col) {
                held_x[i] = Prologue<V>::load(p, leaf.place, col, end());
                asked_g[i] = output_gradient(col);
                asked_z[i] = other(col);
                held_own[i] = hidden_gradient(col);
            });
            leaf.each([&](int i, I col) { held_g[i] = gradient<true>(col, held_x[i], asked_g[i], asked_z[i]); });
        }
        RowSums<F> sums = no_sums<F>();
        if constexpr (V::given::PRESENT) {
            sums = to_sums(numbers_of<V, typename V::given, SUMS_SIZE>(p, leaf.place, 0));
        }
        if constexpr (V::BRANCH) {
            begin(sums);
        }
        if constexpr (V::COMPUTE) {
            sums = merged(leaf_sums());
            if constexpr (V::sums::PRESENT) {
                if (V::SPLIT ? leaf.is_first() : leaf.is_first_of_row()) {
                    i64 at = V::SPLIT ? SUMS_SIZE * i64(leaf.leaf) : 0;
                    set_numbers<V, typename V::sums>(p, leaf.place, at, to_numbers(sums));
                }
            }
        }
        if constexpr (V::APPLY) {
            apply(sums, held_own);
        }
    }
};

template <class V> DEVICE void norm_backward(const Params<V>& p) {
    Leaf<V> leaf(p);
    if (!leaf.enter()) {
        return;
    }
    typename Backward<V>::KeptInput held_x[Backward<V>::KEPT];
    typename Backward<V>::KeptGradient held_g[Backward<V>::KEPT];
    Backward<V> backward = {{p}, leaf, held_x, held_g};
    backward.run();
}
