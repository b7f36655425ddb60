#pragma once
// What would hang, race or crash on a GPU: the host driver must report each. `which` says the fault.
#include "device.cuh"

using device::f16;
using device::u32, device::u64;

// What a launch is told: two tensors of a float32 for each thread, `count` times two.
template <class V> struct Params {
    u64 input, output, count;
    u32 which;
};

template <class V> constexpr u32 block_threads() {
    return V::THREADS;
}

struct Faulty {
    static constexpr u32 THREADS = 64;
};

// Bytes of shared memory of a block.
constexpr u32 SHARED = 2688;

constexpr u32 ALL_LANES = 0xFFFFFFFF;

DEVICE float* element(u64 tensor, u64 i) {
    return reinterpret_cast<float*>(tensor) + i;
}

DEVICE float get(u64 tensor, u64 i) {
    return device::load<float, 1>(element(tensor, i)).at[0];
}

DEVICE void put(u64 tensor, u64 i, float x) {
    device::store<float, 1>(element(tensor, i), {{x}});
}

// Faults of threads that meet.
template <class V> DEVICE void meet_wrongly(u32 which) {
    const u32 thread = device::thread(), lane = thread % 32;
    switch (which) {
    case 1: // a barrier in divergent flow
        if (thread < 48) {
            device::barrier();
        }
        break;
    case 2: // barriers at two places
        if (thread < 32) {
            device::barrier();
        } else {
            device::barrier();
        }
        break;
    case 3: // a thread has returned
        if (thread == 40) {
            return;
        }
        device::barrier();
        break;
    case 4: // a mask without the caller
        device::shuffle_xor(0x0000FFFF, lane, 1);
        break;
    case 5: // a lane that has returned
        if (lane == 9) {
            return;
        }
        device::shuffle_xor(ALL_LANES, lane, 1);
        break;
    case 6: // a lane that waits at a barrier
        if (thread == 3) {
            device::barrier();
        }
        device::any(ALL_LANES, lane == 1);
        break;
    case 7: // masks that differ
        device::shuffle(lane == 5 ? 0x000000FF : ALL_LANES, lane, 5);
        break;
    case 8: // a lane outside the mask
        device::shuffle_xor(0xFFu << lane / 8 * 8, lane, 8);
        break;
    case 9: // shuffles at two places
        if (lane < 16) {
            device::shuffle_xor(ALL_LANES, lane, 1);
        } else {
            device::shuffle_xor(ALL_LANES, lane, 1);
        }
        break;
    case 10: // the cluster's barrier, and not all of the cluster
        if (device::block() % 2 == 0) {
            device::cluster_barrier();
        }
        break;
    default:
        break;
    }
}

// Faults of memory.
template <class V> DEVICE void access_wrongly(const Params<V>& p) {
    const u32 thread = device::thread();
    const u64 i = device::block() * device::threads() + thread;
    switch (p.which) {
    case 11: // shared memory that was never written
        device::shared_set(4 * thread, 1.0f);
        device::barrier();
        put(p.output, i, device::shared_get<float>(4 * thread + 4));
        break;
    case 12: // beyond it
        device::shared_set(SHARED - 2 * 63 + 2 * thread, f16{0});
        break;
    case 13: // misaligned
        device::shared_set(8 * thread + 4, 1.0);
        break;
    case 14: // a barrier is missing between a write and a read
        device::shared_set(4 * thread, 1.0f);
        device::barrier();
        put(p.output, i, device::shared_get<float>(4 * (thread ^ 1)));
        device::shared_set(4 * thread, 2.0f);
        break;
    case 15: // and between two writes
        device::shared_set(4 * (thread / 2), 1.0f);
        break;
    case 16: // a misaligned vector
        put(p.output, i, device::load<float, 4>(element(p.input, i / 8 * 4 + 1)).at[0]);
        break;
    case 17: // and one that is written
        device::store<float, 2>(element(p.output, i / 4 * 2 + 1), {{1.0f, 2.0f}});
        break;
    case 18: // another block's shared memory, which that block may have left
        device::shared_set(4 * thread, 1.0f);
        device::cluster_barrier();
        put(p.output, i, device::cluster_get<float>((device::cluster_rank() + 1) % device::cluster_size(), 4 * thread));
        break;
    case 19: // which that block may still write
        device::shared_set(4 * thread, 1.0f);
        device::cluster_barrier();
        device::shared_set(4 * thread, 2.0f);
        put(p.output, i, device::cluster_get<float>((device::cluster_rank() + 1) % device::cluster_size(), 4 * thread));
        device::cluster_barrier();
        break;
    case 20: // null
        put(0, 0, 1.0f);
        break;
    case 21: // out of bounds, which the sanitizer finds: a read and a write
        put(p.output, i, get(p.input, i + (i + 1 == 2 * p.count ? 1 : 0)));
        break;
    case 22:
        put(p.output, i + (i + 1 == 2 * p.count ? 1 : 0), 1.0f);
        break;
    case 23: // a result that depends on the order of the threads, which launches in several orders find
        put(p.output, 0, get(p.output, 0) * 0.5f + float(i));
        break;
    default:
        break;
    }
}

template <class V> DEVICE void one_fault(const Params<V>& p) {
    if (p.which <= 10) {
        meet_wrongly<V>(p.which);
    } else {
        access_wrongly(p);
    }
}

KERNEL(faults, one_fault, Faulty)
