#pragma once
// The machine of device.cuh on a CPU: every access is checked, and threads that would hang or race on a GPU are
// reported.
#include "host_launch.cuh"

#define DEVICE inline
#define UNROLL
#define NO_UNROLL

// Kernel `entry`: `body` for a variant, and for several problems of one. It returns 0, or has described a fault.
#define KERNEL(entry, body, V) ENTRY(entry, body, V, Params<V>, )
#define KERNEL_TOGETHER(entry, body, V) ENTRY(entry, body, V, Together<V>, .of_block())
#define ENTRY(entry, body, V, Told, PROBLEM)                                                                           \
    extern "C" __attribute__((visibility("default"))) int entry(                                                       \
        const void* params, device::u64 grid, device::u32 block, device::u32 shared, device::u32 cluster,              \
        const device::host::Run* run) {                                                                                \
        Told told;                                                                                                     \
        memcpy(&told, params, sizeof(told));                                                                           \
        device::host::Launch launch = {                                                                                \
            #entry, #body, [](const void* at) { body<V>((*static_cast<const Told*>(at))PROBLEM); },                    \
            &told, grid, block, shared, cluster, block_threads<V>(), run, 0, 0};                                       \
        return device::host::launch(launch);                                                                           \
    }

// Where the caller is, for messages.
#define CALLER const char *file = __builtin_FILE(), u32 line = __builtin_LINE()

namespace device {

inline u32 thread() {
    return host::machine->current->number;
}

inline u32 threads() {
    return host::machine->launch->block;
}

inline u64 block() {
    return host::machine->current->block->number;
}

inline void barrier(CALLER) {
    host::meet(*host::machine, false, {"barrier", file, line});
}

inline void keep_order() {}

inline bool barrier_any(bool x, CALLER) {
    return host::meet(*host::machine, x, {"barrier_any", file, line});
}

// The bytes of a number as an integer, and back.
template <class T> u64 raw(T x) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8);
    u64 value = 0;
    memcpy(&value, &x, sizeof(T));
    return value;
}

template <class T> T of_raw(u64 value) {
    T x;
    memcpy(&x, &value, sizeof(T));
    return x;
}

template <class T> T shuffle_xor(u32 lanes, T x, u32 distance, CALLER) {
    const u32 source = thread() % host::WARP ^ distance;
    return of_raw<T>(host::exchange(*host::machine, lanes, raw(x), source, {"shuffle_xor", file, line}));
}

template <class T> T shuffle(u32 lanes, T x, u32 source, CALLER) {
    return of_raw<T>(host::exchange(*host::machine, lanes, raw(x), source, {"shuffle", file, line}));
}

inline bool any(u32 lanes, bool x, CALLER) {
    return host::exchange(*host::machine, lanes, x, host::ANYONE, {"any", file, line}) != 0;
}

template <class T> T shared_get(u32 at, CALLER) {
    T x;
    memcpy(&x, host::shared_to_read(*host::machine, at, sizeof(T), {"shared_get", file, line}), sizeof(T));
    return x;
}

template <class T> void shared_set(u32 at, T x, CALLER) {
    memcpy(host::shared_to_write(*host::machine, at, sizeof(T), {"shared_set", file, line}), &x, sizeof(T));
}

// What a GPU refuses of an address.
[[noreturn]] __attribute__((noinline, cold)) inline void refuse_address(u64 address, u64 size, const char* what,
                                                                        const char* file, u32 line) {
    host::fail(*host::machine, *host::machine->current, {what, file, line},
               "%llu bytes at once at address %llx, which is %s", size, address,
               address == 0 ? "null" : "no multiple of that");
}

inline void check_address(const void* p, u64 size, const char* what, const char* file, u32 line) {
    const u64 address = reinterpret_cast<u64>(p), alignment = size < 16 ? size : 16;
    if (address % alignment != 0 || address == 0) {
        refuse_address(address, alignment, what, file, line);
    }
}

// Element by element, so that the sanitizer sees each.
template <class T, int N> Pack<T, N> load(const T* p, CALLER) {
    check_address(p, sizeof(T) * N, "load", file, line);
    Pack<T, N> x;
    for (int i = 0; i < N; ++i) {
        x.at[i] = p[i];
    }
    return x;
}

template <class T, int N> void store(T* p, const Pack<T, N>& x, CALLER) {
    check_address(p, sizeof(T) * N, "store", file, line);
    for (int i = 0; i < N; ++i) {
        p[i] = x.at[i];
    }
}

inline void raise(i32* p, CALLER) {
    check_address(p, sizeof(i32), "raise", file, line);
    __atomic_store_n(p, 1, __ATOMIC_RELAXED);
}

inline u32 bits(float x) {
    return static_cast<u32>(raw(x));
}

inline u64 bits(double x) {
    return raw(x);
}

inline float of_bits(u32 x) {
    return of_raw<float>(x);
}

inline double of_bits(u64 x) {
    return of_raw<double>(x);
}

inline float square_root(float x) {
    return __builtin_sqrtf(x);
}

inline double square_root(double x) {
    return __builtin_sqrt(x);
}

inline u32 cluster_rank() {
    return host::machine->current->block->rank;
}

inline u32 cluster_size() {
    return host::machine->launch->cluster;
}

inline void cluster_barrier(CALLER) {
    host::meet_cluster(*host::machine, {"cluster_barrier", file, line});
}

template <class T> T cluster_get(u32 rank, u32 at, CALLER) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8);
    T x;
    memcpy(&x, host::shared_of_another(*host::machine, rank, at, sizeof(T), {"cluster_get", file, line}), sizeof(T));
    return x;
}

} // namespace device

#undef CALLER
