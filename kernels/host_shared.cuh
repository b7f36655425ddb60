#pragma once
// A block's shared memory, and beside every byte who touched it last: reads of what nobody wrote are found, and
// accesses of two threads, one of them writing, that no barrier separates.
#include "host_fibers.cuh"

namespace device::host {

// Epochs number the times between the barriers of a launch's blocks: a later one has a larger number.
struct Mark {
    u32 written, read;
    // When a thread of another block read it.
    u32 read_from_afar;
    // Threads of the block.
    u16 writer, reader;
};

// Several threads.
constexpr u16 MANY = 0xFFFF;

struct Shared {
    u8* bytes;
    Mark* marks;
    u32 size;
    // The epoch of now, of the block's beginning, and of the last barrier of the cluster.
    u32 epoch, beginning, together;
};

inline bool create(Shared& shared, u32 size) {
    shared = {};
    shared.size = size;
    // By themselves, so that the sanitizer sees what lies beyond.
    shared.bytes = static_cast<u8*>(malloc(size > 0 ? size : 1));
    shared.marks = static_cast<Mark*>(calloc(size > 0 ? size : 1, sizeof(Mark)));
    return shared.bytes != nullptr && shared.marks != nullptr;
}

inline void destroy(Shared& shared) {
    free(shared.bytes);
    free(shared.marks);
}

// For a new block: its bytes are NaN in any type.
inline void renew(Shared& shared, u32 epoch) {
    memset(shared.bytes, 0xFF, shared.size);
    shared.epoch = shared.beginning = shared.together = epoch;
}

// What is wrong with an access of `size` bytes; null if nothing.
inline const char* misplaced(const Shared& shared, u32 at, u32 size) {
    if (at % size != 0) {
        return "they are misaligned";
    }
    if (shared.size < size || at > shared.size - size) {
        return "they are beyond the shared memory of the launch";
    }
    return nullptr;
}

constexpr const char* RACE = "a race: another thread touches them, no barrier is in between, and one of the two writes";

// A thread of the block reads.
inline const char* on_read(Shared& shared, u32 at, u32 size, u32 thread) {
    if (const char* wrong = misplaced(shared, at, size)) {
        return wrong;
    }
    for (Mark* mark = shared.marks + at; mark < shared.marks + at + size; ++mark) {
        if (mark->written < shared.beginning) {
            return "they were never written";
        }
        if (mark->written == shared.epoch && mark->writer != thread) {
            return RACE;
        }
        mark->reader = mark->read == shared.epoch && mark->reader != thread ? MANY : static_cast<u16>(thread);
        mark->read = shared.epoch;
    }
    return nullptr;
}

// A thread of another block reads.
inline const char* on_read_from_afar(Shared& shared, u32 at, u32 size) {
    if (const char* wrong = misplaced(shared, at, size)) {
        return wrong;
    }
    for (Mark* mark = shared.marks + at; mark < shared.marks + at + size; ++mark) {
        if (mark->written < shared.beginning) {
            return "they were never written";
        }
        if (mark->written >= shared.together) {
            return RACE;
        }
        mark->read_from_afar = shared.epoch;
    }
    return nullptr;
}

inline const char* on_write(Shared& shared, u32 at, u32 size, u32 thread) {
    if (const char* wrong = misplaced(shared, at, size)) {
        return wrong;
    }
    for (Mark* mark = shared.marks + at; mark < shared.marks + at + size; ++mark) {
        const bool written = mark->written == shared.epoch && mark->writer != thread;
        const bool read = mark->read == shared.epoch && mark->reader != thread;
        if (written || read || mark->read_from_afar >= shared.together) {
            return RACE;
        }
        mark->written = shared.epoch;
        mark->writer = static_cast<u16>(thread);
    }
    return nullptr;
}

} // namespace device::host
