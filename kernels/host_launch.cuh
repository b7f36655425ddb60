#pragma once
// A launch of the host driver: its blocks, spread over threads of the operating system.
#include "host_meet.cuh"

namespace device::host {

// A thread has ended.
inline void end(Machine& m, Thread* thread) {
    Block& block = *thread->block;
    thread->state = State::Ended;
    block.ended += 1;
    m.ended += 1;
    if (overflowed(*thread->fiber)) {
        fail(m, *thread, KERNEL_ITSELF, "the stack of %zu bytes has overflowed", STACK);
    }
}

inline void work(Fiber& self) {
    arrive(self);
    for (;;) {
        Machine& m = *self.machine;
        Thread* thread = m.current;
        m.launch->kernel(m.launch->params);
        end(m, thread);
        Thread* next = next_thread(m);
        if (next != nullptr && next->state == State::Fresh) {
            next->fiber = &self;
            next->state = State::Running;
            m.current = next;
            continue;
        }
        if (next == nullptr && m.ended < m.count) {
            fail_stuck(m);
        }
        self.next = m.idle;
        m.idle = &self;
        if (next != nullptr) {
            resume(m, self, next);
        } else {
            go(self, m.home);
        }
    }
}

// Runs a group of blocks, `number` being the first's.
inline void run_group(Machine& m, u64 number) {
    const Launch& launch = *m.launch;
    // The same for a group whoever runs it.
    m.random = (launch.run->seed + number * 0x9E3779B97F4A7C15u) * 0xBF58476D1CE4E5B9u;
    m.random ^= m.random >> 31;
    m.random |= 1;
    m.first = m.length = m.ended = m.together = 0;
    m.epoch += 1;
    for (u32 rank = 0; rank < launch.cluster; ++rank) {
        Block& block = m.blocks[rank];
        block.number = number + rank;
        block.arrived = block.ended = 0;
        memset(block.waiting, 0, sizeof(block.waiting));
        renew(block.shared, m.epoch);
    }
    for (u32 i = 0; i < m.count; ++i) {
        Thread* thread = m.threads + (launch.run->schedule == DESCENDING ? m.count - 1 - i : i);
        make_ready(m, thread, State::Fresh);
    }
    resume(m, m.home, next_thread(m));
    if (m.failed) {
        // Fibers that stopped in the middle of a thread begin anew.
        for (Thread* t = m.threads; t < m.threads + m.count; ++t) {
            if (t->state != State::Fresh && t->state != State::Ended) {
                t->fiber->begun = false;
                t->fiber->next = m.idle;
                m.idle = t->fiber;
            }
        }
    }
}

inline u64 common_divisor(u64 a, u64 b) {
    return b == 0 ? a : common_divisor(b, a % b);
}

// The group that comes i-th of n.
inline u64 group_at(const Run& run, u64 i, u64 n) {
    if (run.schedule == RANDOM) {
        u64 step = n / 2 + run.seed % n;
        while (common_divisor(step, n) != 1) {
            step += 1;
        }
        return (i * step + run.seed) % n;
    }
    return run.schedule == DESCENDING ? n - 1 - i : i;
}

inline void* run_worker(void* argument) {
    Launch& launch = *static_cast<Launch*>(argument);
    Machine m = {};
    m.launch = &launch;
    m.count = launch.block * launch.cluster;
    m.blocks = static_cast<Block*>(calloc(launch.cluster, sizeof(Block)));
    m.threads = static_cast<Thread*>(calloc(m.count, sizeof(Thread)));
    m.ready = static_cast<Thread**>(calloc(m.count, sizeof(Thread*)));
    m.idle = take_fiber(&m, &m.home);
    bool complete = m.idle != nullptr && m.blocks != nullptr && m.threads != nullptr && m.ready != nullptr;
    for (u32 rank = 0; complete && rank < launch.cluster; ++rank) {
        Block& block = m.blocks[rank];
        block.rank = rank;
        block.threads = m.threads + rank * launch.block;
        for (u32 i = 0; i < launch.block; ++i) {
            block.threads[i].number = i;
            block.threads[i].block = &block;
        }
        complete = create(block.shared, launch.shared);
    }
    machine = &m;
    const u64 groups = launch.grid / launch.cluster;
    while (complete && __atomic_load_n(&launch.failed, __ATOMIC_RELAXED) == 0) {
        const u64 i = __atomic_fetch_add(&launch.begun, 1u, __ATOMIC_RELAXED);
        if (i >= groups) {
            break;
        }
        run_group(m, group_at(*launch.run, i, groups) * launch.cluster);
    }
    machine = nullptr;
    give_back(m.idle);
    for (u32 rank = 0; m.blocks != nullptr && rank < launch.cluster; ++rank) {
        destroy(m.blocks[rank].shared);
    }
    free(m.ready);
    free(m.threads);
    free(m.blocks);
    return complete ? argument : nullptr;
}

// What no GPU would launch; null if nothing.
inline const char* impossible(const Launch& l) {
    if (l.block == 0 || l.block > 1024 || l.block > l.bound) {
        return "a block has 1 to 1024 threads, and at most those that the kernel was made for";
    }
    if (l.grid == 0 || l.grid > 0x7FFFFFFF) {
        return "a grid has 1 to 2^31 - 1 blocks";
    }
    if (l.cluster == 0 || l.cluster > 16 || l.grid % l.cluster != 0) {
        return "a cluster has 1 to 16 blocks, and a grid whole clusters";
    }
    if (l.shared > 227 << 10) {
        return "a block has at most 227 KiB of shared memory";
    }
    return nullptr;
}

// Threads of the operating system: no more than are worth being started, nor than there are stacks for.
inline u32 workers_of(const Launch& l) {
    const u64 threads = l.grid * l.block;
    const u64 most[] = {l.run->workers, 64, l.grid / l.cluster, threads / 4096, 32768 / (l.block * l.cluster)};
    u64 workers = most[0];
    for (u64 limit : most) {
        workers = limit < workers ? limit : workers;
    }
    return workers > 1 ? static_cast<u32>(workers) : 1;
}

inline int launch(Launch& l) {
    if (const char* wrong = impossible(l)) {
        snprintf(l.run->message, l.run->capacity, "%s (%s), %llu blocks of %u threads and %u bytes, clusters of %u: %s",
                 l.entry, l.body, l.grid, l.block, l.shared, l.cluster, wrong);
        return 1;
    }
    const u32 workers = workers_of(l);
    pthread_t others[64];
    u32 started = 0;
    while (started + 1 < workers && pthread_create(&others[started], nullptr, run_worker, &l) == 0) {
        started += 1;
    }
    bool complete = run_worker(&l) != nullptr;
    while (started > 0) {
        void* result;
        started -= 1;
        pthread_join(others[started], &result);
        complete = complete && result != nullptr;
    }
    if (!complete && l.failed == 0) {
        l.failed = 1;
        snprintf(l.run->message, l.run->capacity, "%s (%s): there is no memory to run it", l.entry, l.body);
    }
    return l.failed != 0 ? 1 : 0;
}

} // namespace device::host
