#pragma once
#include "fusion.cuh"
#include "leaf.cuh"
// Results as codes of 8 bits beside scales, by float32 operations that are each rounded once: `spec::Quantization` has the
// rules.

template <class V> struct Quantizer {
    using F = typename V::F;
    using I = Index<V>;
    static constexpr bool IS_CODED = V::SCALING != Scaling::None;
    // The scale is that of elements which other threads have.
    static constexpr bool IS_DYNAMIC = V::SCALING == Scaling::Row || V::SCALING == Scaling::Block;

    // The bits of a magnitude as float32: they are in the order of magnitudes, and those of NaN above all.
    DEVICE static u32 size_bits(F v) { return device::bits(static_cast<float>(v)) & 0x7FFFFFFF; }

    // Whether elements from a threshold on are set apart; infinity is beyond any, NaN is not.
    static constexpr bool HAS_OUTLIERS = V::flags::PRESENT;

    DEVICE static bool is_outlier(const Params<V>& p, u32 size) {
        if constexpr (HAS_OUTLIERS) {
            return size >= device::bits(static_cast<float>(p.s.code_outlier)) && size <= 0x7F800000;
        } else {
            return false;
        }
    }

    // Flags the columns from `col` on that come before column `end` where there is an outlier.
    DEVICE static void flag(const Params<V>& p, const Place<V>& row, const Numbers<V>& v, I col, I end) {
        using Flags = typename V::flags;
        UNROLL for (int k = 0; k < V::WIDTH; ++k) {
            if (col + I(k) < end && is_outlier(p, size_bits(v.at[k]))) {
                device::raise(reinterpret_cast<i32*>(p.at[Flags::SLOT]) + row.at[Flags::SLOT] + i64(col + I(k)));
            }
        }
    }

    // The largest of the elements from column `col` on that come before column `end` and are no outliers.
    DEVICE static u32 most_of(const Params<V>& p, const Numbers<V>& v, I col, I end) {
        u32 most = 0;
        UNROLL for (int k = 0; k < V::WIDTH; ++k) {
            const u32 size = size_bits(v.at[k]);
            most = col + I(k) < end && size > most && !is_outlier(p, size) ? size : most;
        }
        return most;
    }

    // The scale of elements of which the largest has these bits.
    DEVICE static float scale(const Params<V>& p, u32 bits) {
        const float most = device::of_bits(bits), bound = static_cast<float>(p.s.code_bound);
        const float held = most > bound ? bound : most;
        const float scale = held / static_cast<float>(p.s.code_largest), least = static_cast<float>(p.s.code_least);
        return scale < least ? least : scale;
    }

    // What codes are the nearest to.
    DEVICE static Numbers<V> coded(const Params<V>& p, const Numbers<V>& v, float scale) {
        Numbers<V> y;
        UNROLL for (int k = 0; k < V::WIDTH; ++k) {
            const F quotient = static_cast<F>(static_cast<float>(v.at[k]) / scale);
            y.at[k] = is_outlier(p, size_bits(v.at[k])) ? F(0) : quotient;
        }
        return y;
    }

    // The largest of all of the row's elements; every thread gets it.
    DEVICE static u32 of_row(Leaf<V>& leaf, u32 most) {
        most = leaf.fold(most, Most());
        if constexpr (V::LEAVES > 1) {
            // Where the leaves have met before.
            device::barrier();
            using One = Quad<F, 1>;
            const One own = {{static_cast<F>(device::of_bits(most))}};
            const One all = leaf.across_leaves(own, One{{F(0)}}, [](const One& a, const One& b) {
                return size_bits(a.at[0]) > size_bits(b.at[0]) ? a : b;
            });
            most = size_bits(all.at[0]);
        }
        return most;
    }

    // Calls `body(column, end)` for the runs of columns of block `block` of the leaf that this thread has.
    template <class Body> DEVICE static void each(const Leaf<V>& leaf, I block, I size, Body body) {
        const I from = leaf.start + block * size;
        const I to = from < leaf.end ? (leaf.end - from > size ? from + size : leaf.end) : from;
        for (I col = from + I(V::WIDTH) * I(leaf.thread); col < to; col += I(V::WIDTH) * I(V::THREADS)) {
            body(col, to);
        }
    }

    // Writes a leaf's codes block by block, each with its scale: `value(column)` are the results from a column on, `store`
    // writes what becomes of them.
    template <class Value, class Store>
    DEVICE static void by_blocks(const Params<V>& p, Leaf<V>& leaf, Value value, Store store) {
        const I size = I(p.s.block);
        // As many for each leaf, so that all threads of a block meet: leaves are whole blocks, but for the last one.
        const I cols = leaf.SPREAD && I(p.s.cols) > I(LEAF) ? I(LEAF) : I(p.s.cols);
        const I count = (cols + size - 1) / size;
        for (I block = 0; block < count; ++block) {
            u32 most = 0;
            each(leaf, block, size, [&](I col, I to) {
                const u32 own = most_of(p, value(col), col, to);
                most = own > most ? own : most;
            });
            most = leaf.fold(most, Most());
            const float scale = Quantizer::scale(p, most);
            if (leaf.is_first() && leaf.start + block * size < leaf.end) {
                set_number<V, typename V::scales>(p, leaf.place, i64((leaf.start + block * size) / size), F(scale));
            }
            each(leaf, block, size, [&](I col, I) { store(col, coded(p, value(col), scale)); });
        }
    }
};
