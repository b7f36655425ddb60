// y = f(alpha, x) * weight + bias, and its gradients: those of the parameters as partial sums over the rows of a chunk,
// from the same reading. A thread owns WIDTH columns, neighbouring threads neighbouring columns, and takes rows one after
// the other; weight and bias stay in registers.
#pragma once
#include "columns.cuh"
#include "inverse_root.cuh"
#include "tanh.cuh"

// A function of an element, and what g passes on to the gradients of its input and of alpha.
template <class F> struct Slopes {
    F value, of_input, of_alpha;
};

template <class F> struct Tanh {
    DEVICE static F value(F alpha, F x) { return tanh_of(alpha * x); }

    DEVICE static Slopes<F> slopes(F alpha, F weight, F x, F g) {
        const TanhSlope<F> s = tanh_slope(two_prod(alpha, x));
        return {
            s.t,
            (((g * (weight * alpha)) * s.h) * s.power) * s.below,
            (((g * weight) * (s.h * x)) * s.power) * s.below,
        };
    }
};

template <class F> struct InverseRoot {
    DEVICE static F value(F alpha, F x) {
        const Squarable<F> s = squarable(alpha, x);
        return s.x * inverse_roots(s.alpha, s.x).r;
    }

    DEVICE static Slopes<F> slopes(F alpha, F weight, F x, F g) {
        const Squarable<F> s = squarable(alpha, x);
        const InverseRoots<F> roots = inverse_roots(s.alpha, s.x);
        const F gw = g * weight;
        Slopes<F> slopes = {s.x * roots.r, gw * roots.h, F(-0.5) * (gw * roots.k)};
        if (s.e != 0) {
            slopes.of_input = scale(slopes.of_input, -s.e);
            slopes.of_alpha = scale(slopes.of_alpha, -2 * s.e);
        }
        return slopes;
    }
};

template <bool INVERSE_ROOT, class F> struct FunctionOf {
    using Type = Tanh<F>;
};
template <class F> struct FunctionOf<true, F> {
    using Type = InverseRoot<F>;
};
template <class V> using Function = typename FunctionOf<V::INVERSE_ROOT, typename V::F>::Type;

// Elements as they wait. Of a Pack that a loop carries along the compiler keeps each element in a register of its own.
template <class T, int N> struct Waiting {
    u32 words[(sizeof(T) * N + 3) / 4];

    DEVICE void put(const device::Pack<T, N>& x) { memcpy(words, &x, sizeof(x)); }

    DEVICE device::Pack<T, N> get() const {
        device::Pack<T, N> x;
        memcpy(&x, words, sizeof(x));
        return x;
    }
};

// The elements of a thread's columns in one row.
template <class V> struct RowPart {
    Waiting<typename V::input::T, V::WIDTH> input;
    Waiting<typename V::grad_output::T, V::WIDTH> grad_output;
};

// A thread's rows one after the other, the elements of those to come being on their way. They are the row leaves from row
// `first` on, but for those of LEAVES - 1 other groups in between; fewer than 2^32 rows.
template <class V> struct RowsAhead {
    static constexpr u32 ROW_LEAF = SumsOfChunk<V, 1>::ROW_LEAF;
    // 64 bytes are on their way to each thread: with 512 threads, which 128 registers each allow, 32 KiB to a multiprocessor,
    // about what the memory of an H200 brings to one in a microsecond. Single elements are fewer bytes; more rows of them
    // would take registers from other threads.
    static constexpr int BYTES = int(sizeof(typename V::input::T)) * V::WIDTH * (V::grad_output::PRESENT ? 2 : 1);
    static constexpr int AHEAD = BYTES >= 32 ? 2 : 4;
    const Params<V>& p;
    const Index<V> col;
    const u64 first;
    // Rows from the first on.
    const u32 count;
    u32 asked = 0;
    RowPart<V> parts[AHEAD];

    DEVICE RowsAhead(const Params<V>& params, Index<V> columns, u64 from, u64 end)
        : p(params), col(columns), first(from), count(from < end ? u32(end - from) : 0) {
        UNROLL for (int ahead = 0; ahead < AHEAD; ++ahead) {
            ask(parts[ahead]);
        }
    }

    // Where row `n` of the group lies.
    DEVICE Place<V> place(u32 n) const { return place_of_row(p, u64(p.s.first_row) + first + n); }

    DEVICE void ask(RowPart<V>& part) {
        const u32 row = asked / ROW_LEAF * ROW_LEAF * V::LEAVES + asked % ROW_LEAF;
        asked += 1;
        if (row < count) {
            const Index<V> cols = Index<V>(p.s.cols);
            const Place<V> at = place(row);
            part.input.put(load_stored<V, typename V::input>(p, at, col, cols));
            if constexpr (V::grad_output::PRESENT) {
                part.grad_output.put(load_stored<V, typename V::grad_output>(p, at, col, cols));
            }
        }
    }

    // The next row.
    DEVICE RowPart<V> take() {
        const RowPart<V> first = parts[0];
        UNROLL for (int ahead = 1; ahead < AHEAD; ++ahead) {
            parts[ahead - 1] = parts[ahead];
        }
        ask(parts[AHEAD - 1]);
        return first;
    }
};

template <class V> DEVICE Numbers<V> repeated(typename V::F x) {
    Numbers<V> all;
    UNROLL for (int i = 0; i < V::WIDTH; ++i) {
        all.at[i] = x;
    }
    return all;
}

// The function's parameter, and the weight and bias of a thread's columns; without them ones and nothing.
template <class V> struct Parameters {
    typename V::F alpha;
    Numbers<V> weight, bias;

    DEVICE Parameters(const Params<V>& p, Index<V> col) {
        const Index<V> cols = Index<V>(p.s.cols);
        const Place<V> first = place_of_row(p, u64(p.s.first_row));
        alpha = number<V, typename V::alpha>(p, first, 0);
        weight = repeated<V>(1);
        bias = repeated<V>(0);
        if constexpr (V::weight::PRESENT) {
            weight = load_quad<V, typename V::weight>(p, first, col, cols);
        }
        if constexpr (V::bias::PRESENT) {
            bias = load_quad<V, typename V::bias>(p, first, col, cols);
        }
    }
};

template <class V> DEVICE void pointwise_forward(const Params<V>& p) {
    const u64 task = block_of(p) * device::threads() + device::thread();
    const Index<V> cols = Index<V>(p.s.cols);
    const u64 runs = (u64(cols) + V::WIDTH - 1) / V::WIDTH;
    const u64 group = quotient(task, runs);
    const u64 first = group * u64(p.s.turns), rows = u64(p.s.rows);
    if (first >= rows) {
        return;
    }
    const Index<V> col = Index<V>(task - group * runs) * V::WIDTH;
    const Parameters<V> of(p, col);
    RowsAhead<V> ahead(p, col, first, rows - first < u64(p.s.turns) ? rows : first + u64(p.s.turns));
    for (u32 row = 0; row < ahead.count; ++row) {
        const RowPart<V> part = ahead.take();
        Numbers<V> y = widened<V>(part.input.get());
        UNROLL for (int i = 0; i < V::WIDTH; ++i) {
            y.at[i] = Function<V>::value(of.alpha, y.at[i]);
            if constexpr (V::weight::PRESENT) {
                y.at[i] = y.at[i] * of.weight.at[i];
            }
            if constexpr (V::bias::PRESENT) {
                y.at[i] = y.at[i] + of.bias.at[i];
            }
        }
        store_quad<V, typename V::output>(p, ahead.place(row), col, cols, y);
    }
}

template <class V> DEVICE void pointwise_backward(const Params<V>& p) {
    constexpr int BIAS = V::SUM_WEIGHT, ALPHA = BIAS + V::SUM_BIAS, SUMS = ALPHA + V::SUM_ALPHA;
    // Without sums chunks still share the rows out; arrays have an element at least.
    constexpr int ROOM = SUMS > 0 ? SUMS : 1;
    using Sums = SumsOfChunk<V, ROOM>;
    Sums chunk(p);
    const Index<V> col = chunk.col, cols = Index<V>(p.s.cols);
    const Parameters<V> of(p, col);
    RowsAhead<V> ahead(p, col, chunk.first + chunk.group * Sums::ROW_LEAF, chunk.end);
    for (u32 leaf = 0; leaf < u32(p.s.chunk_rows); leaf += Sums::ROW_LEAF * V::LEAVES) {
        Numbers<V> sums[ROOM] = {};
        for (u32 row = leaf; row < leaf + Sums::ROW_LEAF && row < ahead.count; ++row) {
            const RowPart<V> part = ahead.take();
            const Numbers<V> g = widened<V>(part.grad_output.get()), x = widened<V>(part.input.get());
            Numbers<V> grad_input;
            UNROLL for (int i = 0; i < V::WIDTH; ++i) {
                const Slopes<typename V::F> s = Function<V>::slopes(of.alpha, of.weight.at[i], x.at[i], g.at[i]);
                grad_input.at[i] = s.of_input;
                if constexpr (V::SUM_WEIGHT) {
                    sums[0].at[i] += g.at[i] * s.value;
                }
                if constexpr (V::SUM_BIAS) {
                    sums[BIAS].at[i] += g.at[i];
                }
                if constexpr (V::SUM_ALPHA) {
                    sums[ALPHA].at[i] += s.of_alpha;
                }
            }
            if constexpr (V::grad_input::PRESENT) {
                store_quad<V, typename V::grad_input>(p, ahead.place(row), col, cols, grad_input);
            }
        }
        if constexpr (SUMS > 0) {
            chunk.add(sums);
        }
    }
    if constexpr (SUMS > 0) {
        chunk.store();
    }
}
