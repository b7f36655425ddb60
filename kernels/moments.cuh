#pragma once
#include "fusion.cuh"
#include "leaf.cuh"
#include "power.cuh"
#include "statistics.cuh"
// Moments of a leaf: one pass where the mean of its first elements is near enough to the mean of all, and a second, as the
// corrected two-pass algorithm has it, where it is not. Rare leaves whose squares would overflow or underflow are read
// again, scaled.

// Bounds of m2 / count within which no square, power or sum was lost.
template <class F, bool SQUARES> struct Window;
template <> struct Window<float, true> {
    static constexpr u32 LOW = u32(127 - 80) << 23, HIGH = u32(127 + 100) << 23;
};
template <> struct Window<float, false> {
    static constexpr u32 LOW = u32(127 - 40) << 23, HIGH = u32(127 + 50) << 23;
};
template <> struct Window<double, true> {
    static constexpr u64 LOW = u64(1023 - 800) << 52, HIGH = u64(1023 + 900) << 52;
};
template <> struct Window<double, false> {
    static constexpr u64 LOW = u64(1023 - 400) << 52, HIGH = u64(1023 + 450) << 52;
};

// `N` is the norm whose moments they are: the variant's, of what is normalized, or that of a branch or a residual, of an
// operand.
template <class V, class N = V> struct LeafMoments {
    using F = typename V::F;
    using I = Index<V>;
    using Kept = typename Prologue<V>::Kept;
    using Mask = typename V::mask;
    static constexpr bool CENTRED = N::KIND == Kind::Moments;
    static constexpr bool LARGEST = N::KIND == Kind::Largest;
    static constexpr bool POWERS = N::KIND == Kind::IntegerPower || N::KIND == Kind::Power;
    static constexpr bool SQUARES = CENTRED || N::KIND == Kind::MeanSquare || N::KIND == Kind::Norm2;
    static constexpr bool ALL_COUNT = !N::PREFIX && !Mask::PRESENT;
    static constexpr int KEPT = Leaf<V>::HELD > 0 ? Leaf<V>::HELD : 1;

    const Params<V>& p;
    Leaf<V>& leaf;
    // The leaf's elements, where it is kept.
    const Kept (&held)[KEPT];

    // What is subtracted, and in the last resort a second time.
    F shift = 0, rest = 0;
    i32 exponent = 0;
    // How far before the end the first element lies that counts.
    I before = 0;

    DEVICE Numbers<V> input(I col) const {
        if constexpr (N::IS_INNER) {
            return load_quad<V, typename N::Elements>(p, leaf.place, col, leaf.end);
        } else {
            return Prologue<V>::numbers(p, leaf.place, col, leaf.end);
        }
    }

    DEVICE F one(I col) const {
        if constexpr (N::IS_INNER) {
            return Prologue<V>::template one_of<typename N::Elements>(p, leaf.place, col);
        } else {
            return Prologue<V>::one(p, leaf.place, col);
        }
    }

    // Columns that the statistic sees.
    DEVICE i64 prefix() const { return N::IS_INNER ? p.s.inner_prefix : p.s.prefix; }

    // Calls `then(k)` for those of the columns from `col` on that the statistic sees.
    template <class Then> DEVICE void counted(I col, Then then) const {
        Numbers<V> mask;
        if constexpr (Mask::PRESENT) {
            mask = load_quad<V, Mask>(p, leaf.place, col, leaf.end);
        }
        UNROLL for (int k = 0; k < V::WIDTH; ++k) {
            bool counts = leaf.is_inside(col, k);
            if constexpr (N::PREFIX) {
                counts = counts && i64(col + I(k)) < prefix();
            }
            if constexpr (Mask::PRESENT) {
                counts = counts && magnitude(mask.at[k]) != 0;
            }
            if (counts) {
                then(k);
            }
        }
    }

    // What an element adds to the sum of the statistic.
    DEVICE F degree(F x) const {
        if constexpr (SQUARES) {
            return x * x;
        } else if constexpr (N::KIND == Kind::IntegerPower) {
            return integer_power<N::POWER>(absolute(x));
        } else if constexpr (N::KIND == Kind::Power) {
            return real_power(absolute(x), p.s.power, p.s.power_low);
        } else {
            return absolute(x);
        }
    }

    // The m2 of a pass, `sum` being that of the statistic and `most` the largest magnitude seen.
    DEVICE F m2_of(F sum, Bits<F> most) const {
        return LARGEST ? scale(device::of_bits(most), -exponent) : sum;
    }

    DEVICE static bool is_regular(F x) {
        if constexpr (POWERS) {
            // Powers leave the range too soon to tell.
            return false;
        } else {
            // By bits, so that NaN is irregular, too.
            return device::bits(x) >= Window<F, SQUARES>::LOW && device::bits(x) <= Window<F, SQUARES>::HIGH;
        }
    }

    // Whether the mean was guessed well enough, by bits, so that NaN is the largest.
    DEVICE static bool is_near(F product, F squares) { return magnitude(F(4) * product) <= magnitude(squares); }

    // One pass over the leaf as it is.
    DEVICE Pair<F> first_sums(Bits<F>& most) {
        Bits<F> seen = 0;
        Pair<F> sums = leaf.sums([&](int i, I col, Numbers<V>& a, Numbers<V>& b) {
            a = b = {};
            Numbers<V> x = Leaf<V>::HELD > 0 ? widened<V>(held[i]) : input(col);
            counted(col, [&](int k) {
                if constexpr (LARGEST) {
                    seen = Most()(seen, magnitude(x.at[k]));
                } else {
                    F e = CENTRED ? x.at[k] - shift : x.at[k];
                    a.at[k] = CENTRED ? e : F(0);
                    b.at[k] = degree(e);
                }
            });
        });
        most = LARGEST ? leaf.fold(seen, Most()) : 0;
        return sums;
    }

    // The same with the leaf's exponent, `centred` a second time; `most` is the largest magnitude bits of the elements.
    DEVICE Pair<F> sums_again(bool centred, Bits<F>& most) {
        Bits<F> seen = 0;
        Pair<F> sums = leaf.sums_again([&](int, I col, Numbers<V>& a, Numbers<V>& b) {
            a = b = {};
            Numbers<V> x = input(col);
            counted(col, [&](int k) {
                seen = Most()(seen, magnitude(x.at[k]));
                F e = scale(x.at[k], -exponent);
                if constexpr (CENTRED) {
                    e = e - shift;
                    e = centred ? e - rest : e;
                    a.at[k] = e;
                }
                b.at[k] = degree(e);
            });
        });
        most = leaf.fold(seen, Most());
        return sums;
    }

    // How many elements count; where there is a mask, finds the first.
    DEVICE F count_elements() {
        if constexpr (!Mask::PRESENT) {
            i64 from = i64(leaf.start), until = prefix() < i64(leaf.end) ? prefix() : i64(leaf.end);
            return F(until > from ? until - from : 0);
        } else {
            F count = 0;
            count = leaf.sums_again([&](int, I col, Numbers<V>& a, Numbers<V>& b) {
                a = b = {};
                counted(col, [&](int k) {
                    a.at[k] = F(1);
                    before = Most()(before, leaf.end - col - I(k));
                });
            }).a;
            before = leaf.fold(before, Most());
            return count;
        }
    }

    DEVICE F first_shift() {
        auto get = [&](I col) { return scale(one(col), -exponent); };
        if constexpr (Mask::PRESENT) {
            return before > 0 ? get(leaf.end - before) : F(0);
        } else {
            return leaf.first_mean(get);
        }
    }

    DEVICE Moments<F> moments() {
        F count = F(leaf.length());
        F inv = leaf.length() == I(LEAF) ? F(1) / F(LEAF) : p.s.inv_last;
        if constexpr (!ALL_COUNT) {
            count = count_elements();
            inv = nearest_recip(count);
        }
        if constexpr (CENTRED) {
            shift = first_shift();
        }
        Bits<F> most;
        Pair<F> sums = first_sums(most);
        Moments<F> m = {count, 0, 0, m2_of(sums.b, most), 0};
        bool good = is_regular(m.m2 * inv);
        if constexpr (CENTRED) {
            F c = sums.a * inv;
            F product = sums.a * c;
            m.m2 = sums.b - product;
            Two<F> mean = two_sum(shift, c);
            m.mean = mean.hi;
            m.correction = mean.lo;
            good = is_near(product, sums.b) && is_regular(m.m2 * inv);
        }
        bool empty = (!ALL_COUNT || V::LEAVES > 1) && count == F(0);
        if (leaf.any(!good && !empty)) {
            moments_again(m, good || empty, inv);
        }
        return empty ? no_moments<F>() : m;
    }

    // From the beginning, round by round, for leaves that are not `good`; others come by and keep what they have.
    DEVICE void moments_again(Moments<F>& m, bool good, F inv) {
        // What the next round takes the sums around.
        enum { GUESS, MEAN, CORRECTED_MEAN, SETTLED } around = good ? SETTLED : GUESS;
        bool scaled = false;
        do {
            bool centred = around == CORRECTED_MEAN;
            Bits<F> most;
            Pair<F> sums = sums_again(centred, most);
            bool again = false;
            if (around != SETTLED) {
                F c = sums.a * inv;
                F product = sums.a * c;
                bool settles = !CENTRED || centred || is_near(product, sums.b);
                F m2 = m2_of(sums.b, most);
                if constexpr (CENTRED) {
                    m2 = centred ? sums.b : sums.b - product;
                    rest = centred ? rest : c;
                }
                if (settles) {
                    m.m2 = m2;
                    if constexpr (CENTRED) {
                        Two<F> mean = two_sum(shift, rest);
                        m.mean = mean.hi;
                        m.correction = mean.lo;
                    }
                    if (!scaled && !is_regular(m2 * inv) && most < infinity_bits<F>()) {
                        m.exponent = most == 0 ? Limits<F>::NONE : exponent_of<F>(most);
                        again = most > 0 && m.exponent != 0;
                        scaled = true;
                    }
                    around = again ? GUESS : SETTLED;
                    exponent = again ? m.exponent : exponent;
                } else {
                    shift = around == GUESS ? shift + c : shift;
                    around = around == GUESS ? MEAN : CORRECTED_MEAN;
                }
            }
            if constexpr (CENTRED) {
                // Everyone helps to find it, if anyone needs it.
                if (leaf.any(again)) {
                    F guess = first_shift();
                    shift = again ? guess : shift;
                }
            }
        } while (leaf.any(around != SETTLED));
    }
};
