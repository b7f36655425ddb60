#pragma once
// Every function of device.cuh once, with results that can be told beforehand: what a machine must get right before
// any kernel is worth running on it. `part` says which of the functions below runs; each writes its results as words
// of 8 bytes.
#include "convert.cuh"

using device::bf16, device::f16;
using device::u32, device::u64;

// What a launch is told: where its numbers are, how many, and the part.
template <class V> struct Params {
    u64 input, output, count;
    u32 part;
};

template <class V> constexpr u32 block_threads() {
    return V::THREADS;
}

struct SelfTest {
    static constexpr u32 THREADS = 64;
};

// Two blocks, each by itself or both a cluster.
constexpr u32 THREADS_OF_GRID = 2 * SelfTest::THREADS;
constexpr u32 ALL_LANES = 0xFFFFFFFF;
// Words that a thread of `meeting` writes, and those of a number in `conversions` and `arithmetic`.
constexpr u32 MEETING_WORDS = 16, CONVERSION_WORDS = 11, ARITHMETIC_WORDS = 6;
// Bytes between the sections of `copies`.
constexpr u32 SECTION = 4096;

template <class V> DEVICE void put(const Params<V>& p, u64 word, u64 value) {
    device::store<u64, 1>(reinterpret_cast<u64*>(p.output) + word, {{value}});
}

template <class V> DEVICE u64 get(const Params<V>& p, u64 word) {
    return device::load<u64, 1>(reinterpret_cast<const u64*>(p.input) + word).at[0];
}

// A fold whose result depends on who brought what.
template <class T> DEVICE T folded(u32 lanes, T x, u32 distances) {
    for (u32 distance = 1; distance < distances; distance *= 2) {
        x = x * 3 + device::shuffle_xor(lanes, x, distance);
    }
    return x;
}

// Threads that meet, by shuffles, barriers, shared memory and clusters. Needs 64 threads a block and 2688 bytes.
template <class V> DEVICE void meeting(const Params<V>& p) {
    const u32 thread = device::thread(), lane = thread % 32, size = device::threads();
    const u64 block = device::block();
    const u64 at = (block * size + thread) * MEETING_WORDS;
    const u32 x = u32(block) * 1000 + thread;
    const u64 wide = x * 0x9E3779B97F4A7C15u;
    const u32 team = 0xFFu << lane / 8 * 8;
    put(p, at, thread | u64(size) << 16 | block << 32);

    const bool fifth = device::barrier_any(thread == 5), nobody = device::barrier_any(false);
    const bool first = device::barrier_any(block == 0);
    put(p, at + 1, u64(fifth) | u64(nobody) << 1 | u64(first) << 2);

    put(p, at + 2, folded(ALL_LANES, x, 32));
    put(p, at + 3, folded(ALL_LANES, wide, 32));
    put(p, at + 4, folded(team, wide, 8));
    put(p, at + 5, device::shuffle(ALL_LANES, x, 7) | u64(device::shuffle(ALL_LANES, x, (lane * 5 + 3) % 32)) << 32);
    put(p, at + 6, device::bits(device::shuffle(team, double(wide), lane ^ 6)));
    const bool eleventh = device::any(team, lane == 11), second = device::any(ALL_LANES, thread == 40);
    put(p, at + 7, u64(eleventh) | u64(second) << 1);

    device::shared_set(4 * thread, x);
    device::shared_set(256 + 8 * thread, double(x));
    device::shared_set(768 + 16 * thread, device::Pack<u32, 4>{{x, x + 1, x + 2, x + 3}});
    device::shared_set(1792 + 2 * thread, f16{device::u16(x)});
    device::barrier();
    put(p, at + 8, device::shared_get<u32>(4 * ((thread + 17) % size)));
    put(p, at + 9, device::bits(device::shared_get<double>(256 + 8 * ((thread + 40) % size))));
    const auto pack = device::shared_get<device::Pack<u32, 4>>(768 + 16 * ((thread + 1) % size));
    put(p, at + 10, pack.at[1] | u64(pack.at[3]) << 32);
    put(p, at + 11, device::shared_get<f16>(1792 + 2 * ((thread + 2) % size)).bits);

    const u32 rank = device::cluster_rank(), next = (rank + 1) % device::cluster_size();
    put(p, at + 12, rank | u64(device::cluster_size()) << 32);
    device::shared_set(1920 + 4 * thread, x);
    device::shared_set(2176 + 8 * thread, wide);
    device::cluster_barrier();
    put(p, at + 13, device::cluster_get<u32>(next, 1920 + 4 * ((thread + 3) % size)));
    put(p, at + 14, device::cluster_get<u64>(next, 2176 + 8 * ((thread + 4) % size)));
    device::cluster_barrier();

    // The halves of a warp part and come together again.
    u32 y;
    if (lane < 16) {
        y = device::shuffle_xor(0x0000FFFF, x, 1) + 1;
    } else {
        y = device::shuffle_xor(0xFFFF0000, x, 2) + 2;
    }
    put(p, at + 15, device::shuffle_xor(ALL_LANES, y, 16));
}

template <class T, int N, class V> DEVICE void copy(const Params<V>& p, u32 section) {
    const u64 at = section * u64(SECTION) + (device::block() * device::threads() + device::thread()) * sizeof(T) * N;
    const device::Pack<T, N> x = device::load<T, N>(reinterpret_cast<const T*>(p.input + at));
    device::store<T, N>(reinterpret_cast<T*>(p.output + at), x);
}

// Loads and stores of every width, each of which copies a section: as many runs as there are threads, at most 128.
template <class V> DEVICE void copies(const Params<V>& p) {
    copy<f16, 1>(p, 0);
    copy<f16, 2>(p, 1);
    copy<f16, 4>(p, 2);
    copy<f16, 8>(p, 3);
    copy<bf16, 1>(p, 4);
    copy<bf16, 8>(p, 5);
    copy<float, 1>(p, 6);
    copy<float, 2>(p, 7);
    copy<float, 4>(p, 8);
    copy<float, 8>(p, 9);
    copy<double, 1>(p, 10);
    copy<double, 2>(p, 11);
    copy<double, 4>(p, 12);
}

DEVICE f16 half_of(u64 x) {
    return {device::u16(x)};
}

DEVICE bf16 brain_of(u64 x) {
    return {device::u16(x)};
}

DEVICE float single_of(u64 x) {
    return device::of_bits(u32(x));
}

DEVICE double double_of(u64 x) {
    return device::of_bits(x);
}

// Of each word of the input: its last two, four and eight bytes, as the types of that size, in all the others.
template <class V> DEVICE void conversions(const Params<V>& p) {
    for (u64 i = device::block() * device::threads() + device::thread(); i < p.count; i += THREADS_OF_GRID) {
        const u64 x = get(p, i), at = i * CONVERSION_WORDS;
        put(p, at, device::bits(device::widen(half_of(x))));
        put(p, at + 1, device::bits(device::widen_to<double>(half_of(x))));
        put(p, at + 2, device::bits(device::widen(brain_of(x))));
        put(p, at + 3, device::bits(device::widen_to<double>(brain_of(x))));
        put(p, at + 4, device::narrow<f16>(single_of(x)).bits);
        put(p, at + 5, device::narrow<bf16>(single_of(x)).bits);
        put(p, at + 6, device::bits(device::narrow<double>(single_of(x))));
        put(p, at + 7, device::narrow<f16>(double_of(x)).bits);
        put(p, at + 8, device::narrow<bf16>(double_of(x)).bits);
        put(p, at + 9, device::bits(device::narrow<float>(double_of(x))));
        put(p, at + 10, device::bits(double_of(x)));
    }
}

// Of each word and the two after it, as float32 and as float64: a product and a sum, a quotient, a square root.
// Nothing is contracted, approximated or flushed to zero.
template <class V> DEVICE void arithmetic(const Params<V>& p) {
    for (u64 i = device::block() * device::threads() + device::thread(); i + 2 < p.count; i += THREADS_OF_GRID) {
        const u64 x = get(p, i), y = get(p, i + 1), z = get(p, i + 2), at = i * ARITHMETIC_WORDS;
        put(p, at, device::bits(single_of(x) * single_of(y) + single_of(z)));
        put(p, at + 1, device::bits(single_of(x) / single_of(y)));
        put(p, at + 2, device::bits(device::square_root(single_of(x))));
        put(p, at + 3, device::bits(double_of(x) * double_of(y) + double_of(z)));
        put(p, at + 4, device::bits(double_of(x) / double_of(y)));
        put(p, at + 5, device::bits(device::square_root(double_of(x))));
    }
}

template <class V> DEVICE void every_part(const Params<V>& p) {
    switch (p.part) {
    case 0:
        return meeting(p);
    case 1:
        return copies(p);
    case 2:
        return conversions(p);
    default:
        return arithmetic(p);
    }
}

KERNEL(self_test, every_part, SelfTest)
