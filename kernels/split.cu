// Rows whose leaves were computed apart: their numbers merged, or one more part merged with what is there already, and the
// statistics that follow. THREADS is 32 for rows of several leaves, which LEAVES warps merge; else 1, a thread a row.
#pragma once
#include "pairwise.cuh"
#include "row_sums.cuh"
#include "statistics.cuh"

// Numbers are merged by objects and not by lambda expressions, which a compiler may leave as functions of their own, with
// all numbers on a stack.
template <class V> struct MergeMoments {
    using F = typename V::F;
    using Row = Quad<F, MOMENTS_SIZE>;
    const Scalars<F>& s;

    DEVICE Row operator()(const Row& a, const Row& b) const {
        return to_numbers(merge<V>(s, to_moments(a), to_moments(b)));
    }
};

template <class F> struct MergeSums {
    using Row = Quad<F, SUMS_SIZE>;

    DEVICE Row operator()(const Row& a, const Row& b) const {
        return to_numbers(merge_sums(to_sums(a), to_sums(b)));
    }
};

// The numbers of a row's leaves.
template <class V, int N> struct LeavesOfRow {
    const Params<V>& p;
    const Place<V>& row;

    DEVICE Quad<typename V::F, N> operator()(u64 leaf) const {
        return numbers_of<V, typename V::leaves, N>(p, row, i64(leaf) * N);
    }
};

// Merges what the operand `To` has of the row with one part, or all of its leaves. Every thread of the row gets the result.
template <class V, class To, class F, int N, class Merge>
DEVICE Quad<F, N> merged_parts(const Params<V>& p, const Place<V>& row, Quad<F, N> none, Merge merge) {
    const LeavesOfRow<V, N> leaves = {p, row};
    if constexpr (V::ACCUMULATE) {
        return merge(numbers_of<V, To, N>(p, row, 0), leaves(0));
    } else if constexpr (V::THREADS == 1) {
        return leaves(0);
    } else {
        static_assert(V::THREADS == WARP, "leaves are merged by warps");
        return merged<V>(u64(p.s.leaves), none, leaves, merge);
    }
}

// Threads of a row.
template <class V> constexpr u32 ROW_THREADS = V::THREADS * V::LEAVES;

// This thread's row in the launch.
template <class V> DEVICE u64 row_of_thread(const Params<V>& p) {
    return block_of(p) * V::TEAMS + device::thread() / ROW_THREADS<V>;
}

template <class V> DEVICE bool is_first_of_row() {
    return device::thread() % ROW_THREADS<V> == 0;
}

template <class V> DEVICE void merge_moments(const Params<V>& p) {
    using F = typename V::F;
    const u64 row = row_of_thread(p);
    if (row >= u64(p.s.rows)) {
        return;
    }
    const Place<V> place = place_of_row(p, u64(p.s.first_row) + row);
    const MergeMoments<V> merge = {p.s};
    const auto m = merged_parts<V, typename V::moments>(p, place, to_numbers(no_moments<F>()), merge);
    if (!is_first_of_row<V>()) {
        return;
    }
    if constexpr (V::moments::PRESENT) {
        set_numbers<V, typename V::moments>(p, place, 0, m);
    }
    if constexpr (V::statistics::PRESENT) {
        set_numbers<V, typename V::statistics>(p, place, 0, to_numbers(finish<V>(p.s, to_moments(m))));
    }
}

template <class V> DEVICE void merge_sums_of_rows(const Params<V>& p) {
    using F = typename V::F;
    const u64 row = row_of_thread(p);
    if (row >= u64(p.s.rows)) {
        return;
    }
    const Place<V> place = place_of_row(p, u64(p.s.first_row) + row);
    const auto s = merged_parts<V, typename V::sums>(p, place, to_numbers(no_sums<F>()), MergeSums<F>());
    if (is_first_of_row<V>()) {
        set_numbers<V, typename V::sums>(p, place, 0, s);
    }
}
