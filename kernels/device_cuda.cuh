#pragma once
// The machine of device.cuh as a GPU has it: CUDA's own functions, and PTX for those that have no name without headers.

#define DEVICE __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("unroll 1")

// Kernel `entry`: `body` for a variant, and for several problems of one.
#define KERNEL(entry, body, V) ENTRY(entry, body, V, Params<V>, )
#define KERNEL_TOGETHER(entry, body, V) ENTRY(entry, body, V, Together<V>, .of_block())
#define ENTRY(entry, body, V, Told, PROBLEM)                                                                           \
    extern "C" __global__ void __launch_bounds__(block_threads<V>(), 1) entry(const __grid_constant__ Told told) {     \
        body<V>(told PROBLEM);                                                                                         \
    }

namespace device {

DEVICE u32 thread() {
    return threadIdx.x;
}

DEVICE u32 threads() {
    return blockDim.x;
}

DEVICE u64 block() {
    return blockIdx.x;
}

DEVICE void barrier() {
    __syncthreads();
}

DEVICE void keep_order() {
    __syncwarp();
}

DEVICE bool barrier_any(bool x) {
    return __syncthreads_or(x) != 0;
}

// The same bytes as another type. Taken by value: copied straight from memory, they would be read one by one.
template <class To, class From> DEVICE To cast(From x) {
    static_assert(sizeof(To) == sizeof(From));
    To y;
    memcpy(&y, &x, sizeof(To));
    return y;
}

struct Halves {
    u32 low, high;
};

template <class T> DEVICE T shuffle_xor(u32 lanes, T x, u32 distance) {
    if constexpr (sizeof(T) == 4) {
        return cast<T>(__shfl_xor_sync(lanes, cast<u32>(x), distance));
    } else {
        const Halves h = cast<Halves>(x);
        return cast<T>(Halves{__shfl_xor_sync(lanes, h.low, distance), __shfl_xor_sync(lanes, h.high, distance)});
    }
}

template <class T> DEVICE T shuffle(u32 lanes, T x, u32 source) {
    if constexpr (sizeof(T) == 4) {
        return cast<T>(__shfl_sync(lanes, cast<u32>(x), source));
    } else {
        const Halves h = cast<Halves>(x);
        return cast<T>(Halves{__shfl_sync(lanes, h.low, source), __shfl_sync(lanes, h.high, source)});
    }
}

DEVICE bool any(u32 lanes, bool x) {
    return __any_sync(lanes, x) != 0;
}

// What one instruction reads or writes. Accesses of memory go through these types, since the compiler does not always
// join those of the elements.
template <int BYTES> struct Word;
template <> struct Word<1> {
    using Type = u8;
};
template <> struct Word<2> {
    using Type = u16;
};
template <> struct Word<4> {
    using Type = u32;
};
template <> struct Word<8> {
    using Type = uint2;
};
template <> struct Word<16> {
    using Type = uint4;
};

template <class T> DEVICE T get(const void* at) {
    return cast<T>(*static_cast<const typename Word<sizeof(T)>::Type*>(at));
}

template <class T> DEVICE void set(void* at, const T& x) {
    *static_cast<typename Word<sizeof(T)>::Type*>(at) = cast<typename Word<sizeof(T)>::Type>(x);
}

extern __shared__ uint4 shared_memory[];

template <class T> DEVICE T shared_get(u32 at) {
    return get<T>(reinterpret_cast<const u8*>(shared_memory) + at);
}

template <class T> DEVICE void shared_set(u32 at, T x) {
    set(reinterpret_cast<u8*>(shared_memory) + at, x);
}

// Elements of one access.
template <class T, int N> DEVICE constexpr int at_once() {
    return N * int(sizeof(T)) <= 16 ? N : 16 / int(sizeof(T));
}

// Addresses come as integers: said to be global, they are spared the search for the kind of their memory.
template <class T, int N> DEVICE Pack<T, N> load(const T* p) {
    constexpr int PART = at_once<T, N>();
    __builtin_assume(__isGlobal(p));
    Pack<T, N> x;
    UNROLL for (int i = 0; i < N; i += PART) {
        const Pack<T, PART> part = get<Pack<T, PART>>(p + i);
        UNROLL for (int k = 0; k < PART; ++k) {
            x.at[i + k] = part.at[k];
        }
    }
    return x;
}

template <class T, int N> DEVICE void store(T* p, const Pack<T, N>& x) {
    constexpr int PART = at_once<T, N>();
    __builtin_assume(__isGlobal(p));
    UNROLL for (int i = 0; i < N; i += PART) {
        Pack<T, PART> part;
        UNROLL for (int k = 0; k < PART; ++k) {
            part.at[k] = x.at[i + k];
        }
        set(p + i, part);
    }
}

DEVICE void raise(i32* p) {
    __builtin_assume(__isGlobal(p));
    atomicOr(p, 1);
}

DEVICE u32 bits(float x) {
    return __float_as_uint(x);
}

DEVICE u64 bits(double x) {
    return cast<u64>(x);
}

DEVICE float of_bits(u32 x) {
    return __uint_as_float(x);
}

DEVICE double of_bits(u64 x) {
    return cast<double>(x);
}

DEVICE float square_root(float x) {
    return __fsqrt_rn(x);
}

DEVICE double square_root(double x) {
    return __dsqrt_rn(x);
}

#if __CUDA_ARCH__ >= 900
DEVICE u32 cluster_rank() {
    u32 rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

DEVICE u32 cluster_size() {
    u32 size;
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
    return size;
}

// Not `.aligned`: the compiler does not know that a warp's threads must come to these together.
DEVICE void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release;\n\tbarrier.cluster.wait.acquire;" ::: "memory");
}

template <class T> DEVICE T cluster_get(u32 rank, u32 at) {
    const u32 here = static_cast<u32>(__cvta_generic_to_shared(shared_memory)) + at;
    u32 there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
    if constexpr (sizeof(T) == 4) {
        u32 x;
        asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(x) : "r"(there) : "memory");
        return cast<T>(x);
    } else {
        u64 x;
        asm volatile("ld.shared::cluster.u64 %0, [%1];" : "=l"(x) : "r"(there) : "memory");
        return cast<T>(x);
    }
}
#else
// A block by itself.
DEVICE u32 cluster_rank() {
    return 0;
}

DEVICE u32 cluster_size() {
    return 1;
}

DEVICE void cluster_barrier() {
    barrier();
}

template <class T> DEVICE T cluster_get(u32, u32 at) {
    return shared_get<T>(at);
}
#endif

} // namespace device
