// Values merged pairwise in their order, as `plan::tree` has it: those of the first p, p being the largest power of two
// below their number, with those of the rest. Runs of 2^k values are branches of that tree, so lanes take neighbouring
// values, a warp goes through runs of 32, and LEAVES warps take long runs side by side. A value that adds nothing stands
// for those beyond the last.
#pragma once
#include "params.cuh"

constexpr u32 WARP = 32;
constexpr u32 ALL_LANES = 0xffffffffu;

template <class F, int N> DEVICE Quad<F, N> from_lane(const Quad<F, N>& x, u32 lane) {
    Quad<F, N> y;
    UNROLL for (int n = 0; n < N; ++n) {
        y.at[n] = device::shuffle(ALL_LANES, x.at[n], lane);
    }
    return y;
}

// `a` or `b`, number by number: chosen as a whole, they would lie in memory.
template <class F, int N> DEVICE Quad<F, N> chosen(bool first, const Quad<F, N>& a, const Quad<F, N>& b) {
    Quad<F, N> x;
    UNROLL for (int n = 0; n < N; ++n) {
        x.at[n] = first ? a.at[n] : b.at[n];
    }
    return x;
}

// Of a value of each of the first COUNT lanes, a power of two; these get the result.
template <u32 COUNT = WARP, class T, class Merge> DEVICE T merged_lanes(T mine, Merge merge) {
    const u32 lane = device::thread() % WARP;
    for (u32 distance = 1; distance < COUNT; distance *= 2) {
        const T other = from_lane(mine, lane ^ distance);
        const bool is_left = (lane & distance) == 0;
        mine = merge(chosen(is_left, mine, other), chosen(is_left, other, mine));
    }
    return mine;
}

// Of the values `get(i)` for i from `first` to `end`, by one warp.
template <class T, class Get, class Merge> DEVICE T merged_run(u64 first, u64 end, T none, Get get, Merge merge) {
    const u32 lane = device::thread() % WARP;
    // A stack: lane k keeps the result of 2^k runs of 32 values where bit k of their number is set.
    T waiting = none;
    u32 runs = 0;
    for (u64 at = first; at < end; at += WARP, ++runs) {
        T run = none;
        if (at + lane < end) {
            run = get(at + lane);
        }
        run = merged_lanes(run, merge);
        u32 level = 0;
        for (; ((runs >> level) & 1) != 0; ++level) {
            run = merge(from_lane(waiting, level), run);
        }
        waiting = chosen(lane == level, run, waiting);
    }
    T all = none;
    for (u32 level = 0; (runs >> level) != 0; ++level) {
        const T run = from_lane(waiting, level);
        if (((runs >> level) & 1) != 0) {
            all = merge(run, all);
        }
    }
    return all;
}

// Of `count` values, by LEAVES warps, which are a block where they are several. They use LEAVES * N numbers of shared
// memory. Every thread gets the result.
template <class V, class F, int N, class Get, class Merge>
DEVICE Quad<F, N> merged(u64 count, Quad<F, N> none, Get get, Merge merge) {
    if constexpr (V::LEAVES == 1) {
        return merged_run(0, count, none, get, merge);
    } else {
        static_assert(V::LEAVES <= int(WARP) && V::TEAMS == 1, "the warps of a block meet in one");
        const u32 warp = device::thread() / WARP, lane = device::thread() % WARP;
        u64 length = WARP;
        while (length * V::LEAVES < count) {
            length *= 2;
        }
        const u64 first = warp * length < count ? warp * length : count;
        const Quad<F, N> run = merged_run(first, count - first < length ? count : first + length, none, get, merge);
        if (lane == 0) {
            UNROLL for (int n = 0; n < N; ++n) {
                device::shared_set<F>((warp * u32(N) + u32(n)) * u32(sizeof(F)), run.at[n]);
            }
        }
        device::barrier();
        Quad<F, N> mine = none;
        if (lane < V::LEAVES) {
            UNROLL for (int n = 0; n < N; ++n) {
                mine.at[n] = device::shared_get<F>((lane * u32(N) + u32(n)) * u32(sizeof(F)));
            }
        }
        return merged_lanes(mine, merge);
    }
}
