// Numbers that belong to a row: moments, statistics, sums.
#pragma once
#include "math.cuh"
#include "params.cuh"

// A stored exponent. Those of rows are whole and small; what else a caller gives is held to what cannot overflow.
template <class F> DEVICE i32 to_exponent(F number) {
    constexpr i32 MOST = 1 << 24;
    const float x = static_cast<float>(number);
    if (x <= static_cast<float>(Limits<F>::NONE)) {
        return Limits<F>::NONE;
    }
    if (x >= static_cast<float>(MOST)) {
        return MOST;
    }
    return x == x ? static_cast<i32>(x) : 0;
}

// N of the operand's numbers of a row, from the k-th on.
template <class V, class O, int N>
DEVICE Quad<typename V::F, N> numbers_of(const Params<V>& p, const Place<V>& row, i64 k) {
    Quad<typename V::F, N> x;
    UNROLL for (int n = 0; n < N; ++n) {
        x.at[n] = number<V, O>(p, row, k + n);
    }
    return x;
}

template <class V, class O, int N>
DEVICE void set_numbers(const Params<V>& p, const Place<V>& row, i64 k, const Quad<typename V::F, N>& x) {
    UNROLL for (int n = 0; n < N; ++n) {
        set_number<V, O>(p, row, k + n, x.at[n]);
    }
}
