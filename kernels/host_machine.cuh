#pragma once
// One worker of the host driver: it runs blocks one after the other, those of a cluster together, and every thread of
// them on a fiber. A thread runs until it must wait; then the next one goes on, or begins: on another fiber, or on
// the same one if the thread before it has ended, so that threads that never meet take no switch. Where no thread can
// go on, they wait for each other in vain.
#include "host_shared.cuh"
#include <stdarg.h>

namespace device::host {

// The order in which threads and blocks run.
enum Schedule : u32 {
    ASCENDING = 0,
    DESCENDING = 1,
    // Drawn from the seed; threads also take turns before they touch shared memory and before they meet.
    RANDOM = 2,
};

// How the caller wants a launch to be run.
struct Run {
    u32 schedule, seed;
    // Threads of the operating system.
    u32 workers;
    // Where a fault is described, and how many bytes there are.
    char* message;
    u64 capacity;
};

struct Launch {
    const char *entry, *body;
    void (*kernel)(const void*);
    const void* params;
    u64 grid;
    u32 block, shared, cluster;
    // The threads of a block that the kernel was made for.
    u32 bound;
    const Run* run;
    // What the workers share: the groups of blocks that have begun, and whether there was a fault.
    u64 begun;
    u32 failed;
};

// What a thread calls, and where in the source.
struct Site {
    const char* what;
    const char* file;
    u32 line;
};

enum class State : u8 { Fresh, Running, Ready, AtBarrier, AtCluster, InWarp, Ended };

constexpr u32 WARP = 32;

struct Block;

// A thread of the grid.
struct Thread {
    u32 number;
    Block* block;
    State state;
    Fiber* fiber;
    // Where it waits, for which lanes, and what it brings; then what it takes.
    Site site;
    u32 lanes, source;
    u64 value;
};

struct Block {
    u64 number;
    u32 rank;
    Thread* threads;
    Shared shared;
    // Threads at the barrier, where it is, and whether one brought true; what the last barrier said.
    u32 arrived;
    Site site;
    bool any, any_said;
    // Threads that have ended.
    u32 ended;
    // Of each warp, the lanes that wait for others.
    u32 waiting[WARP];
};

struct Machine {
    Launch* launch;
    // Where the worker itself waits, and fibers that wait for a thread.
    Fiber home;
    Fiber* idle;
    // A group: the blocks of a cluster, and their threads.
    Block* blocks;
    Thread* threads;
    u32 count;
    // Threads that may go on, in a ring.
    Thread** ready;
    u32 first, length;
    // Threads that have ended, and those at the cluster's barrier.
    u32 ended, together;
    Thread* current;
    u32 epoch;
    u64 random;
    bool failed;
};

static thread_local Machine* machine;

inline u32 draw(Machine& m, u32 below) {
    m.random ^= m.random << 13;
    m.random ^= m.random >> 7;
    m.random ^= m.random << 17;
    return static_cast<u32>((m.random >> 32) * below >> 32);
}

inline u32 ring(const Machine& m, u32 at) {
    return at >= m.count ? at - m.count : at;
}

inline void make_ready(Machine& m, Thread* thread, State state = State::Ready) {
    thread->state = state;
    m.ready[ring(m, m.first + m.length)] = thread;
    m.length += 1;
}

// The thread that goes on; null if none can.
inline Thread* next_thread(Machine& m) {
    if (m.length == 0) {
        return nullptr;
    }
    Thread*& first = m.ready[m.first];
    Thread* thread = first;
    if (m.launch->run->schedule == RANDOM) {
        Thread*& drawn = m.ready[ring(m, m.first + draw(m, m.length))];
        thread = drawn;
        drawn = first;
    }
    m.first = ring(m, m.first + 1);
    m.length -= 1;
    return thread;
}

// Describes a fault of a thread, unless another came first, and gives the group up: its fibers stop where they are.
[[noreturn]] __attribute__((noinline, cold, format(printf, 4, 5))) inline void
fail(Machine& m, const Thread& thread, const Site& site, const char* format, ...) {
    Launch& launch = *m.launch;
    if (__atomic_exchange_n(&launch.failed, 1u, __ATOMIC_RELAXED) == 0) {
        char what[256];
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(what, sizeof(what), format, arguments);
        va_end(arguments);
        snprintf(launch.run->message, launch.run->capacity, "%s (%s), block %llu, thread %u, %s at %s:%u: %s",
                 launch.entry, launch.body, thread.block->number, thread.number, site.what, site.file, site.line, what);
    }
    m.failed = true;
    // The fiber of a thread that has ended stops in the middle, too.
    m.current->state = State::Running;
    go(*m.current->fiber, m.home);
    __builtin_unreachable();
}

// Where no call of the kernel is to blame.
constexpr Site KERNEL_ITSELF = {"the kernel", __FILE__, __LINE__};

// Leaves a fiber for that of a thread that begins or goes on.
inline void resume(Machine& m, Fiber& self, Thread* thread) {
    if (thread->state == State::Fresh) {
        Fiber* fiber = m.idle;
        if (fiber != nullptr) {
            m.idle = fiber->next;
        } else {
            fiber = take_fiber(&m, &m.home);
        }
        if (fiber == nullptr) {
            fail(m, *thread, KERNEL_ITSELF, "there is no memory for another fiber");
        }
        thread->fiber = fiber;
    }
    thread->state = State::Running;
    m.current = thread;
    go(self, *thread->fiber);
}

// Says why the threads that are left wait in vain.
[[noreturn]] inline void fail_stuck(Machine& m);

// The current thread waits until it is made ready.
inline void wait(Machine& m) {
    Thread* self = m.current;
    Thread* next = next_thread(m);
    if (next == nullptr) {
        fail_stuck(m);
    }
    if (next == self) {
        self->state = State::Running;
    } else {
        resume(m, *self->fiber, next);
    }
}

// Others may go first.
inline void take_turns(Machine& m) {
    if (m.launch->run->schedule == RANDOM && m.length > 0) {
        make_ready(m, m.current);
        wait(m);
    }
}

} // namespace device::host
