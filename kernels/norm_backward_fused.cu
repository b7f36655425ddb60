#pragma once
#include "columns.cuh"
#include "norm_backward.cu"
// The gradients of the input and of the parameters from one reading, where each of a row's columns has its own parameters
// and a row is kept: a block takes a chunk of rows, its teams row leaves of it, whose sums they add to those of the chunk
// one team after the other, in the order of `plan::tree`.

template <class V> struct ChunkSums {
    using F = typename V::F;
    static constexpr u32 COUNT = (V::SUM_WEIGHT ? 1 : 0) + (V::SUM_BIAS ? 1 : 0);

    const Params<V>& p;

    DEVICE u32 at(u32 parameter, u32 col) const {
        return shared_of_folds<V>() + (parameter * u32(p.s.cols) + col) * u32(sizeof(F));
    }

    // Calls `then(parameter, column)` for this thread's share of all sums.
    template <class Then> DEVICE void each(Then then) const {
        UNROLL for (u32 parameter = 0; parameter < COUNT; ++parameter) {
            for (u32 col = device::thread(); col < u32(p.s.cols); col += device::threads()) {
                then(parameter, col);
            }
        }
    }

    DEVICE void begin() const {
        each([&](u32 parameter, u32 col) { device::shared_set<F>(at(parameter, col), F(0)); });
    }

    DEVICE void add(u32 parameter, u32 col, F sum) const {
        device::shared_set<F>(at(parameter, col), device::shared_get<F>(at(parameter, col)) + sum);
    }

    // Among the partial sums, [parameter][chunk][column].
    DEVICE void store(u64 chunk) const {
        F* partials = reinterpret_cast<F*>(p.at[V::partials::SLOT]);
        each([&](u32 parameter, u32 col) {
            i64 index = (i64(parameter) * p.s.chunks + i64(chunk)) * p.s.partial_cols + i64(col);
            device::store<F, 1>(partials + index, {{device::shared_get<F>(at(parameter, col))}});
        });
    }
};

template <class V> DEVICE void norm_backward_fused(const Params<V>& p) {
    using F = typename V::F;
    using I = Index<V>;
    constexpr int HELD = Leaf<V>::HELD, WIDTH = V::WIDTH;
    constexpr u32 ROW_LEAF = SumsOfChunk<V, 1>::ROW_LEAF;
    static_assert(HELD > 0 && V::LEAVES == 1 && !V::COLUMN && (V::TEAMS == 1 || Leaf<V>::IN_WARP));
    Leaf<V> leaf(p);
    ChunkSums<V> chunk = {p};
    u64 first = block_of(p) * u64(p.s.chunk_rows), rows = u64(p.s.rows);
    u64 end = first + u64(p.s.chunk_rows) < rows ? first + u64(p.s.chunk_rows) : rows;
    chunk.begin();
    device::barrier();
    for (u64 round = first; round < end; round += ROW_LEAF * V::TEAMS) {
        F of_weight[HELD * WIDTH], of_bias[HELD * WIDTH];
        UNROLL for (int i = 0; i < HELD * WIDTH; ++i) {
            of_weight[i] = of_bias[i] = F(0);
        }
        u64 begin = round + ROW_LEAF * (V::TEAMS > 1 ? leaf.team : 0);
        u64 stop = begin + ROW_LEAF < end ? begin + ROW_LEAF : end;
        for (u64 row = begin; row < stop; ++row) {
            leaf.enter_row(row);
            typename Backward<V>::KeptInput held_x[HELD];
            typename Backward<V>::KeptGradient held_g[HELD];
            Backward<V> backward = {{p}, leaf, held_x, held_g};
            backward.run();
            leaf.each([&](int i, I col) {
                Numbers<V> x = widened<V>(held_x[i]), g = widened<V>(held_g[i]);
                backward.taking_part(col, [&](int k) {
                    if constexpr (V::SUM_WEIGHT) {
                        of_weight[i * WIDTH + k] += g.at[k] * backward.rounded_hat(x.at[k]);
                    }
                    of_bias[i * WIDTH + k] += g.at[k];
                });
            });
        }
        UNROLL for (u32 turn = 0; turn < u32(V::TEAMS); ++turn) {
            if ((V::TEAMS == 1 || turn == leaf.team) && begin < end) {
                leaf.each([&](int i, I col) {
                    UNROLL for (int k = 0; k < WIDTH; ++k) {
                        if (leaf.is_inside(col, k)) {
                            if constexpr (V::SUM_WEIGHT) {
                                chunk.add(0, col + I(k), of_weight[i * WIDTH + k]);
                            }
                            if constexpr (V::SUM_BIAS) {
                                chunk.add(ChunkSums<V>::COUNT - 1, col + I(k), of_bias[i * WIDTH + k]);
                            }
                        }
                    }
                });
            }
            device::barrier();
        }
    }
    chunk.store(block_of(p));
}
