// Statistics from a running mean and variance; running estimates from a batch's moments. A thread a row.
#pragma once
#include "statistics.cuh"

template <class V> DEVICE void from_running(const Params<V>& p) {
    const u64 row = block_of(p) * device::threads() + device::thread();
    if (row >= u64(p.s.rows)) {
        return;
    }
    const Place<V> place = place_of_row(p, u64(p.s.first_row) + row);
    const auto mean = number<V, typename V::running_mean>(p, place, 0);
    const auto variance = number<V, typename V::running_var>(p, place, 0);
    const auto s = of_running(mean, variance, p.s.eps);
    set_numbers<V, typename V::statistics>(p, place, 0, to_numbers(s));
}

// running = (1 - factor) * running + factor * batch
template <class V, class O> DEVICE void update_estimate(const Params<V>& p, const Place<V>& place, typename V::F batch) {
    set_number<V, O>(p, place, 0, p.s.rest * number<V, O>(p, place, 0) + p.s.factor * batch);
}

template <class V> DEVICE void update_running(const Params<V>& p) {
    using F = typename V::F;
    const u64 row = block_of(p) * device::threads() + device::thread();
    if (row >= u64(p.s.rows)) {
        return;
    }
    const Place<V> place = place_of_row(p, u64(p.s.first_row) + row);
    const Moments<F> m = to_moments(numbers_of<V, typename V::moments, MOMENTS_SIZE>(p, place, 0));
    // Numbers without an exponent are zeros.
    const i32 exponent = m.exponent == Limits<F>::NONE ? 0 : m.exponent;
    // With one degree of freedom less.
    const F variance = m.m2 * nearest_recip(m.count - F(1));
    update_estimate<V, typename V::running_mean>(p, place, scale(m.mean + m.correction, exponent));
    update_estimate<V, typename V::running_var>(p, place, scale(variance, 2 * exponent));
}
