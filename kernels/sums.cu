// Gradients of parameters: sums of columns over rows in chunks, the chunks' sums added pairwise, and for a parameter that
// columns share the sums of the columns added like a row.
#pragma once
#include "columns.cuh"
#include "fusion.cuh"
#include "leaf.cuh"
#include "pairwise.cuh"
#include "row_gradient.cuh"
#include "row_sums.cuh"
#include "statistics.cuh"

// N numbers of what each of a thread's columns belongs to; once where it is the same for all of them.
template <class V, class O, int N> struct NumbersOfColumns {
    static constexpr int EACH = O::ACCESS == Access::Splat ? 1 : V::WIDTH;
    Quad<typename V::F, N> at[EACH];

    DEVICE const Quad<typename V::F, N>& of(int column) const { return at[column % EACH]; }

    DEVICE void load(const Params<V>& p, const Place<V>& row, Index<V> col) {
        UNROLL for (int i = 0; i < EACH; ++i) {
            if (col + Index<V>(i) < Index<V>(p.s.cols)) {
                const typename O::T* from = element<V, O>(p, row, col + Index<V>(i));
                UNROLL for (int n = 0; n < N; ++n) {
                    at[i].at[n] = device::widen_to<typename V::F>(device::load<typename O::T, 1>(from + n).at[0]);
                }
            }
        }
    }
};

// What the terms of a norm's weight and bias are made of in a row: the elements and the saved statistics, or, FROM_SUMS,
// the sums over the elements of the row that share a parameter.
template <class V> struct AffineRow {
    // Rotated back, where a rotary embedding follows the norm.
    typename Either<Rotary<V>::IS_THERE, Numbers<V>, Stored<V, typename V::grad_output>>::Type grad_output;
    Stored<V, typename V::input> input;
    Stored<V, typename V::before> before;
    Stored<V, typename V::after> after;
    Stored<V, typename V::mask> mask;
    NumbersOfColumns<V, typename V::statistics, STATISTICS_SIZE> statistics;
    // Those of a branch's norm.
    NumbersOfColumns<V, typename V::inner_statistics, STATISTICS_SIZE> inner;
    NumbersOfColumns<V, typename V::sums, SUMS_SIZE> sums;
    // The sums of all of a row, and the gradient that the hidden value has of its own: for the terms of a BRANCH.
    NumbersOfColumns<V, typename V::given, SUMS_SIZE> of_row;
    Stored<V, typename V::grad_hidden> own;
    // Columns that dropout keeps, a bit each.
    u32 kept;
};

template <class V> struct AffineTerms {
    using F = typename V::F;
    using Row = AffineRow<V>;
    // Where the weight's sums are among those that are wanted, and the bias's.
    static constexpr int WEIGHT = 0, BIAS = V::SUM_WEIGHT ? 1 : 0, WANTED = BIAS + (V::SUM_BIAS ? 1 : 0);
    // Terms are made of normalized elements.
    static constexpr bool NORMALIZES = V::SUM_WEIGHT || Epilogue<V>::IS_ACTIVATION || V::BRANCH;

    const Params<V>& p;
    const Index<V> col;
    // The parameters themselves, where the gradient depends on what the norm gave.
    Numbers<V> own_weight = {}, own_bias = {};
    // Those of a branch's norm, or of a branch: its bias's gradient is summed in the place of the bias's, its scale's in that of
    // the weight's.
    typename Prologue<V>::Branch branch;

    DEVICE AffineTerms(const Params<V>& params, Index<V> columns) : p(params), col(columns) {
        const Place<V> first = place_of_row(p, u64(p.s.first_row));
        if constexpr (V::weight::PRESENT) {
            own_weight = load_quad<V, typename V::weight>(p, first, col, Index<V>(p.s.cols));
        }
        if constexpr (V::bias::PRESENT) {
            own_bias = load_quad<V, typename V::bias>(p, first, col, Index<V>(p.s.cols));
        }
        branch = Prologue<V>::branch(p, first, col, Index<V>(p.s.cols));
    }

    DEVICE Row load(const Place<V>& row) const {
        const Index<V> cols = Index<V>(p.s.cols);
        Row x;
        if constexpr (V::FROM_SUMS) {
            x.sums.load(p, row, col);
        } else {
            if constexpr (Rotary<V>::IS_THERE) {
                using Output = typename V::grad_output;
                const Numbers<V> g = load_quad<V, Output>(p, row, col, cols);
                x.grad_output = Rotary<V>::template back<Output>(p, row, col, Rotary<V>::in_head(p, col), g);
            } else {
                x.grad_output = load_stored<V, typename V::grad_output>(p, row, col, cols);
            }
            if constexpr (NORMALIZES) {
                x.input = load_stored<V, typename V::input>(p, row, col, cols);
                x.statistics.load(p, row, col);
            }
            if constexpr (NORMALIZES) {
                x.kept = kept_columns(p, row, col);
            }
            if constexpr (NORMALIZES && V::before::PRESENT) {
                x.before = load_stored<V, typename V::before>(p, row, col, cols);
            }
            if constexpr (V::HAS_INNER) {
                x.inner.load(p, row, col);
            }
            if constexpr (V::given::PRESENT) {
                x.of_row.load(p, row, col);
            }
            if constexpr (V::grad_hidden::PRESENT) {
                x.own = load_stored<V, typename V::grad_hidden>(p, row, col, cols);
            }
            if constexpr (V::after::PRESENT) {
                x.after = load_stored<V, typename V::after>(p, row, col, cols);
            }
            if constexpr (V::mask::PRESENT) {
                x.mask = load_stored<V, typename V::mask>(p, row, col, cols);
            }
        }
        return x;
    }

    DEVICE Numbers<V> hidden(const Row& row) const {
        if constexpr (V::HAS_INNER) {
            Numbers<V> x = widened<V>(row.input);
            UNROLL for (int i = 0; i < V::WIDTH; ++i) {
                const Statistics<F> s = to_statistics(row.inner.of(i));
                x.at[i] = Prologue<V>::of_inner(p, s, x.at[i], branch.scale.at[i], branch.bias.at[i]);
            }
            return Prologue<V>::joined(p, x, widened<V>(row.before));
        }
        return widened<V>(Prologue<V>::made(p, row.input, row.before, branch, row.kept));
    }

    DEVICE Numbers<V> x_hat(const Row& row) const {
        using T = typename V::input::T;
        // Columns that have the same statistics.
        constexpr int ALIKE = V::WIDTH / decltype(row.statistics)::EACH;
        Numbers<V> x = hidden(row);
        UNROLL for (int first = 0; first < V::WIDTH; first += ALIKE) {
            const Statistics<F> s = to_statistics(row.statistics.of(first));
            // Rarely so: one branch for all of them.
            if (s.exponent != 0) {
                UNROLL for (int i = first; i < first + ALIKE; ++i) {
                    x.at[i] = scale(x.at[i], -s.exponent);
                }
            }
            UNROLL for (int i = first; i < first + ALIKE; ++i) {
                const F e = V::KIND == Kind::Moments ? (x.at[i] - s.mean) - s.correction : x.at[i];
                x.at[i] = e * s.rstd;
                if constexpr (V::ROUND) {
                    x.at[i] = device::widen_to<F>(device::narrow<T>(x.at[i]));
                }
            }
        }
        return x;
    }

    // Those of a branch's scale and bias, `bias` being what reaches the norm of the output's gradient.
    DEVICE void of_branch(const Row& row, Numbers<V>& scale, Numbers<V>& bias) const {
        constexpr int ALIKE = V::WIDTH / decltype(row.statistics)::EACH;
        const Numbers<V> x = hidden(row), mask = widened<V>(row.mask);
        Numbers<V> d = {};
        UNROLL for (int first = 0; first < V::WIDTH; first += ALIKE) {
            RowGradient<V> of_row = {p};
            of_row.s = to_statistics(row.statistics.of(first));
            of_row.begin(V::given::PRESENT ? to_sums(row.of_row.of(first)) : no_sums<F>());
            UNROLL for (int i = first; i < first + ALIKE; ++i) {
                if constexpr (V::weight::PRESENT && V::OUTER_WEIGHT) {
                    of_row.begin_outer(own_weight.at[i]);
                }
                const F w = of_row.with_offset(own_weight.at[i]);
                const bool is_seen = !V::PREFIX || i64(col + Index<V>(i)) < p.s.prefix;
                const bool takes_part = !V::mask::PRESENT || magnitude(mask.at[i]) != 0;
                d.at[i] = takes_part ? of_row.gradient_of(bias.at[i], x.at[i], w, is_seen) : F(0);
            }
        }
        d = Prologue<V>::inside(p, Prologue<V>::with_own(d, row.own), row.kept);
        const Numbers<V> shifted = Prologue<V>::shifted(row.input, branch, row.kept);
        bias = Prologue<V>::scaled(d, branch);
        UNROLL for (int i = 0; i < V::WIDTH; ++i) {
            scale.at[i] = d.at[i] * shifted.at[i];
        }
    }

    // The columns' terms of weight and bias.
    DEVICE void terms(const Row& row, Numbers<V>& weight, Numbers<V>& bias) const {
        if constexpr (V::FROM_SUMS) {
            UNROLL for (int i = 0; i < V::WIDTH; ++i) {
                const RowSums<F> sums = to_sums(row.sums.of(i));
                const i32 exponent = exponent_of_sums(sums);
                weight.at[i] = scale(sums.s2, exponent);
                bias.at[i] = scale(sums.s1, exponent);
            }
        } else {
            bias = widened<V>(row.grad_output);
            if constexpr (NORMALIZES) {
                weight = x_hat(row);
            }
            if constexpr (Epilogue<V>::CHANGES_GRADIENT && !Rotary<V>::IS_THERE) {
                const Numbers<V> after = widened<V>(row.after);
                UNROLL for (int i = 0; i < V::WIDTH; ++i) {
                    const F v = scaled_and_shifted(p, weight.at[i], own_weight.at[i], own_bias.at[i]);
                    bias.at[i] = Epilogue<V>::gradients(bias.at[i], v, after.at[i]).of_value;
                }
            }
            if constexpr (V::BRANCH) {
                of_branch(row, weight, bias);
                return;
            }
            if constexpr (V::SUM_WEIGHT) {
                UNROLL for (int i = 0; i < V::WIDTH; ++i) {
                    weight.at[i] = bias.at[i] * weight.at[i];
                }
            }
            if constexpr (V::mask::PRESENT) {
                const Numbers<V> mask = widened<V>(row.mask);
                UNROLL for (int i = 0; i < V::WIDTH; ++i) {
                    const bool takes_part = magnitude(mask.at[i]) != 0;
                    weight.at[i] = takes_part ? weight.at[i] : F(0);
                    bias.at[i] = takes_part ? bias.at[i] : F(0);
                }
            }
        }
    }

    DEVICE void add(const Row& row, Numbers<V> (&sums)[WANTED]) const {
        Numbers<V> weight = {}, bias;
        terms(row, weight, bias);
        UNROLL for (int i = 0; i < V::WIDTH; ++i) {
            if constexpr (V::SUM_WEIGHT) {
                sums[WEIGHT].at[i] += weight.at[i];
            }
            if constexpr (V::SUM_BIAS) {
                sums[BIAS].at[i] += bias.at[i];
            }
        }
    }
};

// Partial sums of grad_output * x_hat and of grad_output over the rows of a chunk.
template <class V> DEVICE void affine(const Params<V>& p) {
    SumsOfChunk<V, AffineTerms<V>::WANTED> chunk(p);
    chunk.run(AffineTerms<V>(p, chunk.col));
}

// The pairwise sum of chunks' numbers at `from`, `stride` apart, by one thread. There are no negative zeros among sums, so
// zeros stand for those beyond the last.
template <class F> DEVICE F sum_of_chunks(const F* from, u64 stride, u64 first, u64 end) {
    // Numbers that are asked for together.
    constexpr int RUN = 16;
    // Of all runs there can be: 16 MiB have the sums of 2^22 chunks.
    constexpr int LEVELS = 19;
    // A stack: level k is the sum of 2^k runs where bit k of their number is set. Indexed by constants, it is registers.
    F waiting[LEVELS];
    u32 runs = 0;
    for (u64 at = first; at < end; at += RUN, ++runs) {
        F x[RUN];
        UNROLL for (int i = 0; i < RUN; ++i) {
            x[i] = at + i < end ? device::load<F, 1>(from + (at + i) * stride).at[0] : F(0);
        }
        UNROLL for (int apart = 1; apart < RUN; apart *= 2) {
            UNROLL for (int i = 0; i < RUN; i += 2 * apart) {
                x[i] = x[i] + x[i + apart];
            }
        }
        F sum = x[0];
        bool carries = true;
        UNROLL for (int level = 0; level < LEVELS; ++level) {
            const bool waits = ((runs >> level) & 1) != 0;
            if (carries && waits) {
                sum = waiting[level] + sum;
            } else if (carries) {
                waiting[level] = sum;
                carries = false;
            }
        }
    }
    F total = F(0);
    UNROLL for (int level = 0; level < LEVELS; ++level) {
        if (((runs >> level) & 1) != 0) {
            total = waiting[level] + total;
        }
    }
    return total;
}

// Adds the chunks' sums pairwise and writes the gradient; for a parameter that columns share, the sums of the columns, in
// the place of the first chunk. Of a block, THREADS * TEAMS threads have a column each; LEAVES such groups share the
// chunks.
template <class V> DEVICE void finish_sums(const Params<V>& p) {
    using F = typename V::F;
    static_assert(V::WIDTH == 1 && V::LEAVES <= 8, "one column a thread, and registers for what groups exchange");
    constexpr u32 ACROSS = V::THREADS * V::TEAMS;
    const u32 across = device::thread() % ACROSS, group = device::thread() / ACROSS;
    const u64 col = block_of(p) * ACROSS + across, cols = u64(p.s.cols), chunks = u64(p.s.chunks);
    const u64 stride = u64(p.s.partial_cols);
    F* partials = reinterpret_cast<F*>(p.at[V::partials::SLOT]) + u64(p.s.parameter) * chunks * stride + col;
    // A group takes a run whose length is a power of two, so that it is a branch of the tree.
    u64 length = 1;
    while (length * V::LEAVES < chunks) {
        length *= 2;
    }
    const u64 first = group * length < chunks ? group * length : chunks;
    const u64 end = chunks - first < length ? chunks : first + length;
    F sum = col < cols ? sum_of_chunks(partials, stride, first, end) : F(0);
    if constexpr (V::LEAVES > 1) {
        device::shared_set<F>(device::thread() * u32(sizeof(F)), sum);
        device::barrier();
        F x[V::LEAVES];
        UNROLL for (int i = 0; i < V::LEAVES; ++i) {
            x[i] = device::shared_get<F>((u32(i) * ACROSS + across) * u32(sizeof(F)));
        }
        UNROLL for (int apart = 1; apart < V::LEAVES; apart *= 2) {
            UNROLL for (int i = 0; i < V::LEAVES; i += 2 * apart) {
                x[i] = x[i] + x[i + apart];
            }
        }
        sum = x[0];
    }
    if (col >= cols || group > 0) {
        return;
    }
    if constexpr (V::gradient::PRESENT) {
        const Place<V> place = place_of_row(p, 0);
        store_quad<V, typename V::gradient>(p, place, Index<V>(col), Index<V>(cols), {{sum}});
    } else {
        device::store<F, 1>(partials, {{sum}});
    }
}

// Sums of the columns' sums, a leaf of the row tree for each block of LANES threads. `total_of_leaves` adds the leaves.
template <class V> DEVICE void leaves(const Params<V>& p) {
    using F = typename V::F;
    static_assert(V::THREADS == V::LANES && V::LEAVES == 1 && V::TEAMS == 1, "a thread has one lane");
    F* partials = reinterpret_cast<F*>(p.at[V::partials::SLOT]);
    const F* sums = partials + u64(p.s.parameter) * u64(p.s.chunks) * u64(p.s.partial_cols);
    const u64 first = block_of(p) * LEAF, cols = u64(p.s.cols);
    const u64 end = cols - first < LEAF ? cols : first + LEAF;
    const u32 lane = device::thread();
    F sum = F(0);
    for (u64 col = first + lane; col < end; col += V::LANES) {
        sum += device::load<F, 1>(sums + col).at[0];
    }
    if constexpr (V::LANES > WARP) {
        device::shared_set<F>(lane * u32(sizeof(F)), sum);
        device::barrier();
        // Every warp halves all lanes' sums down to its own.
        constexpr int WARPS = V::LANES / int(WARP);
        F x[WARPS];
        UNROLL for (int i = 0; i < WARPS; ++i) {
            x[i] = device::shared_get<F>((lane % WARP + u32(i) * WARP) * u32(sizeof(F)));
        }
        UNROLL for (int half = WARPS / 2; half > 0; half /= 2) {
            UNROLL for (int i = 0; i < half; ++i) {
                x[i] = x[i] + x[i + half];
            }
        }
        sum = x[0];
    }
    UNROLL for (u32 distance = WARP / 2; distance > 0; distance /= 2) {
        sum += device::shuffle_xor(ALL_LANES, sum, distance);
    }
    if (lane == 0) {
        device::store<F, 1>(partials + u64(p.s.leaf_base) + block_of(p), {{sum}});
    }
}

// Sums of leaves as values that are merged by adding.
template <class F> struct LeafSums {
    const F* leaves;

    DEVICE Quad<F, 1> operator()(u64 leaf) const { return {{device::load<F, 1>(leaves + leaf).at[0]}}; }
};

struct AddSums {
    template <class T> DEVICE T operator()(const T& a, const T& b) const { return {{a.at[0] + b.at[0]}}; }
};

// Adds the sums of a row's leaves: the last step of a parameter that columns share. One block, of LEAVES warps.
template <class V> DEVICE void total_of_leaves(const Params<V>& p) {
    using F = typename V::F;
    static_assert(V::THREADS == WARP, "leaves are added by warps");
    const LeafSums<F> leaves = {reinterpret_cast<const F*>(p.at[V::partials::SLOT]) + u64(p.s.leaf_base)};
    const auto total = merged<V>(u64(p.s.leaves), Quad<F, 1>{{F(0)}}, leaves, AddSums());
    if (device::thread() == 0) {
        set_number<V, typename V::gradient>(p, place_of_row(p, 0), 0, total.at[0]);
    }
}
