// Sums over rows, column by column, in the order of `plan::tree`: a chunk of rows adds its row leaves in order, a row leaf
// its rows. Partial sums of chunks lie as [parameter][chunk][column].
#pragma once
#include "params.cuh"

// N sums of each column over the rows of a chunk. Of a block, THREADS * TEAMS threads have WIDTH columns of a chunk each,
// neighbouring threads neighbouring columns; LEAVES such groups take neighbouring row leaves of it.
template <class V, int N> struct SumsOfChunk {
    using F = typename V::F;
    static constexpr u32 ROW_LEAF = 16;
    // Rows whose elements are asked for together, before the first of them is needed: as many as leave the registers of a
    // block of 256 threads alone.
    static constexpr int AHEAD = 16 / int(sizeof(F));
    static constexpr u32 ACROSS = V::THREADS * V::TEAMS;
    // Sums of a thread's columns, and those that it has in its keeping from one row leaf to the next.
    static constexpr int SUMS = N * V::WIDTH;
    static constexpr int KEPT = (SUMS + V::LEAVES - 1) / V::LEAVES;

    const Params<V>& p;
    // This thread in its group, and the group in the block.
    u32 across, group;
    u64 chunk;
    Index<V> col;
    // Rows of the launch that are the chunk's; none where the thread has no column.
    u64 first, end;
    F kept[KEPT];

    DEVICE explicit SumsOfChunk(const Params<V>& params) : p(params) {
        across = device::thread() % ACROSS;
        group = device::thread() / ACROSS;
        const u64 task = block_of(p) * ACROSS + across;
        const u64 runs = (u64(p.s.cols) + V::WIDTH - 1) / V::WIDTH;
        chunk = quotient(task, runs);
        col = Index<V>(task - chunk * runs) * V::WIDTH;
        first = chunk * u64(p.s.chunk_rows);
        const u64 rows = u64(p.s.rows), rest = rows > first ? rows - first : 0;
        end = first + (rest < u64(p.s.chunk_rows) ? rest : u64(p.s.chunk_rows));
        UNROLL for (int i = 0; i < KEPT; ++i) {
            kept[i] = F(0);
        }
    }

    // Where the sums of a thread's columns lie while groups exchange them.
    DEVICE u32 shared_at(u32 of_group, u32 sum) const {
        return ((of_group * u32(SUMS) + sum) * ACROSS + across) * u32(sizeof(F));
    }

    // Adds the row leaves of the groups, in order, each group those sums that it keeps.
    DEVICE void add(const Numbers<V> (&sums)[N]) {
        if constexpr (V::LEAVES == 1) {
            UNROLL for (int i = 0; i < SUMS; ++i) {
                kept[i] += sums[i / V::WIDTH].at[i % V::WIDTH];
            }
        } else {
            UNROLL for (int i = 0; i < SUMS; ++i) {
                device::shared_set<F>(shared_at(group, u32(i)), sums[i / V::WIDTH].at[i % V::WIDTH]);
            }
            device::barrier();
            UNROLL for (int i = 0; i < KEPT; ++i) {
                const u32 sum = group + u32(i) * V::LEAVES;
                if (sum < u32(SUMS)) {
                    UNROLL for (u32 leaf = 0; leaf < V::LEAVES; ++leaf) {
                        kept[i] += device::shared_get<F>(shared_at(leaf, sum));
                    }
                }
            }
            device::barrier();
        }
    }

    // Sums what `terms.add(row, sums)` adds of each row, `terms.load(place)` being what it needs of one.
    template <class Terms> DEVICE void run(const Terms& terms) {
        // The groups of a block meet as often as the longest chunk asks for.
        const u64 length = V::LEAVES == 1 ? end - first : u64(p.s.chunk_rows);
        for (u64 at = 0; at < length; at += ROW_LEAF * V::LEAVES) {
            const u64 leaf = first + at + group * ROW_LEAF;
            const u64 leaf_end = leaf + ROW_LEAF < end ? leaf + ROW_LEAF : end;
            Numbers<V> sums[N] = {};
            for (u64 row = leaf; row < leaf_end; row += AHEAD) {
                typename Terms::Row rows[AHEAD];
                UNROLL for (int ahead = 0; ahead < AHEAD; ++ahead) {
                    if (row + ahead < leaf_end) {
                        rows[ahead] = terms.load(place_of_row(p, u64(p.s.first_row) + row + ahead));
                    }
                }
                UNROLL for (int ahead = 0; ahead < AHEAD; ++ahead) {
                    if (row + ahead < leaf_end) {
                        terms.add(rows[ahead], sums);
                    }
                }
            }
            add(sums);
        }
        store();
    }

    DEVICE void store() const {
        if (first == end) {
            return;
        }
        F* partials = reinterpret_cast<F*>(p.at[V::partials::SLOT]);
        UNROLL for (int i = 0; i < KEPT; ++i) {
            const u32 sum = group + u32(i) * V::LEAVES;
            const u64 column = u64(col) + sum % V::WIDTH;
            if (sum < u32(SUMS) && column < u64(p.s.cols)) {
                const u64 row = sum / V::WIDTH * u64(p.s.chunks) + chunk;
                device::store<F, 1>(partials + (row * u64(p.s.partial_cols) + column), {{kept[i]}});
            }
        }
    }
};
