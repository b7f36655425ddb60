// The shares that a mix of two norms makes of alpha, which are their weights, and the gradient of alpha from those of the weights.
// A thread a column.
#pragma once
#include "math.cuh"
#include "params.cuh"

template <class V> DEVICE void shares(const Params<V>& p) {
    using F = typename V::F;
    const u64 column = block_of(p) * device::threads() + device::thread();
    if (column >= u64(p.s.rows)) {
        return;
    }
    const Place<V> place = place_of_row(p, u64(p.s.first_row) + column);
    const F share = absolute(number<V, typename V::alpha>(p, place, 0) * p.s.factor);
    set_number<V, typename V::mix_weight>(p, place, 0, share);
    set_number<V, typename V::inner_weight>(p, place, 0, F(1) - share);
}

// The weights' places have their gradients.
template <class V> DEVICE void gradient_of_shares(const Params<V>& p) {
    using F = typename V::F;
    const u64 column = block_of(p) * device::threads() + device::thread();
    if (column >= u64(p.s.rows)) {
        return;
    }
    const Place<V> place = place_of_row(p, u64(p.s.first_row) + column);
    const F z = number<V, typename V::alpha>(p, place, 0) * p.s.factor;
    // NaN stays.
    const F sign = z > F(0) ? F(1) : z < F(0) ? F(-1) : absolute(z);
    const F of_share = number<V, typename V::mix_weight>(p, place, 0);
    const F of_rest = number<V, typename V::inner_weight>(p, place, 0);
    set_number<V, typename V::gradient>(p, place, 0, ((of_share - of_rest) * p.s.factor) * sign);
}
