#pragma once
// The machine that kernels run on: threads that meet, memory they share, element types. `device_cuda.cuh` is a GPU,
// and `device_host.cuh` the host driver, on which every thread is a fiber of a CPU. Kernels touch shared memory and
// tensors by these functions only, so that the host driver can check every access.
//
//   thread() threads() block()          this thread in its block, the block's threads, the block in the grid
//   barrier() barrier_any(x)            all threads of the block meet; whether x is true in any of them
//   keep_order()                        tensors are read before or after it, not across; all threads of the warp come
//   shuffle_xor(lanes, x, distance)     x of the lane whose number differs in the bits of `distance`
//   shuffle(lanes, x, source)           x of lane `source`
//   any(lanes, x)                       whether x is true in any lane
//   shared_get<T>(at) shared_set(at, x) the block's shared memory; `at` in bytes, a multiple of T's size
//   load<T, N>(p) store<T, N>(p, x)     N elements of a tensor at once, aligned to all of them (up to 16 bytes)
//   raise(p)                            writes 1 to a number of a tensor, as other threads may do at the same time
//   widen(x) widen_to<F>(x) narrow<T>(x)
//   bits(x) of_bits(x) square_root(x)
//   cluster_rank() cluster_size()       this block among those that run together, and their number
//   cluster_barrier()                   all threads of the cluster meet
//   cluster_get<T>(rank, at)            the shared memory of another block of the cluster
//
// Threads that meet come to the same call. `lanes` is a mask of lanes of the warp, the same in all of them; it names
// the caller and every lane that is read from, and all lanes that it names come. T has 4 or 8 bytes in shuffles and
// in cluster_get. Shared memory is read after it was written, and after a barrier if another thread wrote it. No
// block ends while another may still read its shared memory.

namespace device {

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i32 = int;
using i64 = long long;

// Elements of two bytes, as memory holds them.
struct f16 {
    u16 bits;
};
struct bf16 {
    u16 bits;
};
// Codes of one byte.
struct i8 {
    u8 bits;
};
struct f8e4m3 {
    u8 bits;
};
struct f8e5m2 {
    u8 bits;
};

// Elements that are read or written at once.
template <class T, int N> struct alignas(sizeof(T) * N) Pack {
    T at[N];
};

} // namespace device

#ifdef __CUDACC__
#include "device_cuda.cuh"
#else
#include "device_host.cuh"
#endif
#include "convert.cuh"
