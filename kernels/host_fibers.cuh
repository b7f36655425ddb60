#pragma once
// Fibers: threads of control that hand the processor to each other by name. One holds a page or two of memory once it
// has run, so those of a launch are kept for the next.

// The C library's checks take a jump to another stack for a mistake.
#undef _FORTIFY_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED_FIBERS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED_FIBERS 1
#endif
#endif

#ifdef SANITIZED_FIBERS
extern "C" {
void __sanitizer_start_switch_fiber(void** fake, const void* stack, size_t size);
void __sanitizer_finish_switch_fiber(void* fake, const void** stack, size_t* size);
void __asan_unpoison_memory_region(const volatile void* at, size_t size);
}
#endif

namespace device::host {

struct Machine;

struct Fiber {
    // Where it begins. The sanitizer takes a long jump for the end of the frames it leaves, so there it also goes on
    // here.
    ucontext_t context;
#ifdef SANITIZED_FIBERS
    // The sanitizer's own stack of variables.
    void* fake;
#else
    jmp_buf at;
#endif
    // Whether it goes on somewhere.
    bool begun;
    // Its stack. A thread of the operating system has one of its own.
    char* stack;
    size_t size;
    // For whom it works, and the fiber that sends it to work.
    Machine* machine;
    Fiber* home;
    // In a list of fibers.
    Fiber* next;
};

// Frames of kernels are small; the sanitizer's are not.
#ifdef SANITIZED_FIBERS
constexpr size_t STACK = 512 << 10;
#else
constexpr size_t STACK = 128 << 10;
#endif

// What a fiber does: one task after the other. It never returns.
inline void work(Fiber& self);

// What the sanitizer must know before a switch and after it.
inline void leave([[maybe_unused]] Fiber& from, [[maybe_unused]] const Fiber& to) {
#ifdef SANITIZED_FIBERS
    __sanitizer_start_switch_fiber(&from.fake, to.stack, to.size);
#endif
}

inline void arrive([[maybe_unused]] Fiber& self) {
#ifdef SANITIZED_FIBERS
    const void* stack;
    size_t size;
    __sanitizer_finish_switch_fiber(self.fake, &stack, &size);
    // The first switch of all comes from home.
    if (self.home != nullptr && self.home->stack == nullptr) {
        self.home->stack = static_cast<char*>(const_cast<void*>(stack));
        self.home->size = size;
    }
#endif
}

// The first function of a fiber: makecontext passes integers only.
inline void begin(unsigned high, unsigned low) {
    work(*reinterpret_cast<Fiber*>(static_cast<u64>(high) << 32 | low));
}

// Has a fiber begin, whatever it was in the middle of.
inline void prepare(Fiber& fiber) {
    fiber.begun = true;
#ifdef SANITIZED_FIBERS
    // Frames may have been left behind.
    fiber.fake = nullptr;
    __asan_unpoison_memory_region(fiber.stack, fiber.size);
#endif
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = fiber.size;
    fiber.context.uc_link = nullptr;
    const u64 address = reinterpret_cast<u64>(&fiber);
    makecontext(&fiber.context, reinterpret_cast<void (*)()>(begin), 2, static_cast<unsigned>(address >> 32),
                static_cast<unsigned>(address));
}

// Goes on with `to`; returns when somebody goes on with `from`.
__attribute__((noinline)) inline void go(Fiber& from, Fiber& to) {
    from.begun = true;
#ifdef SANITIZED_FIBERS
    if (!to.begun) {
        prepare(to);
    }
    leave(from, to);
    volatile bool back = false;
    getcontext(&from.context);
    if (!back) {
        back = true;
        setcontext(&to.context);
    }
#else
    if (_setjmp(from.at) == 0) {
        if (to.begun) {
            _longjmp(to.at, 1);
        }
        prepare(to);
        setcontext(&to.context);
    }
#endif
    arrive(from);
}

// Fibers that wait for the next launch, and how many they are at most: a page or two each.
constexpr u32 KEPT = 1024;
struct Pool {
    pthread_mutex_t mutex;
    Fiber* first;
    u32 count;
    // Made so far.
    u32 made;
};
static Pool pool = {PTHREAD_MUTEX_INITIALIZER, nullptr, 0, 0};

// A fiber for a machine; null where there is no memory.
inline Fiber* take_fiber(Machine* machine, Fiber* home) {
    pthread_mutex_lock(&pool.mutex);
    Fiber* fiber = pool.first;
    const u32 number = pool.made;
    if (fiber != nullptr) {
        pool.first = fiber->next;
        pool.count -= 1;
    } else {
        pool.made += 1;
    }
    pthread_mutex_unlock(&pool.mutex);
    if (fiber == nullptr) {
        void* stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED) {
            return nullptr;
        }
        // A page of 2 MiB would be made of each.
        madvise(stack, STACK, MADV_NOHUGEPAGE);
        fiber = static_cast<Fiber*>(calloc(1, sizeof(Fiber)));
        if (fiber == nullptr) {
            munmap(stack, STACK);
            return nullptr;
        }
        fiber->stack = static_cast<char*>(stack);
        // Frames at the same place of every stack would fall on the same few sets of a cache.
        fiber->size = STACK - number % 61 * 1088;
    }
    fiber->machine = machine;
    fiber->home = home;
    fiber->next = nullptr;
    return fiber;
}

// Those of the list, back.
inline void give_back(Fiber* fiber) {
    while (fiber != nullptr) {
        Fiber* next = fiber->next;
        pthread_mutex_lock(&pool.mutex);
        const bool keep = pool.count < KEPT;
        if (keep) {
            fiber->next = pool.first;
            pool.first = fiber;
            pool.count += 1;
        }
        pthread_mutex_unlock(&pool.mutex);
        if (!keep) {
            munmap(fiber->stack, STACK);
            free(fiber);
        }
        fiber = next;
    }
}

// Whether a fiber has used all of its stack: its last words are zero unless something was written there.
inline bool overflowed(const Fiber& fiber) {
    const volatile u64* last = reinterpret_cast<const volatile u64*>(fiber.stack);
    return (last[0] | last[1] | last[2] | last[3]) != 0;
}

} // namespace device::host
