#pragma once
// How the threads of the host driver meet, and what keeps them from it.
#include "host_machine.cuh"

namespace device::host {

inline bool same(const char* a, const char* b) {
    return a == b || strcmp(a, b) == 0;
}

inline bool same(const Site& a, const Site& b) {
    return a.line == b.line && same(a.what, b.what) && same(a.file, b.file);
}

// A block's threads go on, in a new epoch of its shared memory.
inline void release(Machine& m, Block& block, State waiting) {
    const bool backwards = m.launch->run->schedule == DESCENDING;
    const u32 size = m.launch->block;
    for (u32 i = 0; i < size; ++i) {
        Thread* thread = block.threads + (backwards ? size - 1 - i : i);
        if (thread->state == waiting) {
            make_ready(m, thread);
        }
    }
    block.shared.epoch = ++m.epoch;
}

// All threads of the block; whether one brought true.
inline bool meet(Machine& m, bool x, const Site& site) {
    take_turns(m);
    Thread& self = *m.current;
    Block& block = *self.block;
    self.site = site;
    if (block.arrived == 0) {
        block.site = site;
        block.any = false;
    } else if (!same(block.site, site)) {
        fail(m, self, site, "other threads of the block wait at another, %s at %s:%u", block.site.what, block.site.file,
             block.site.line);
    }
    block.any |= x;
    block.arrived += 1;
    if (block.arrived < m.launch->block) {
        self.state = State::AtBarrier;
        wait(m);
    } else {
        block.arrived = 0;
        block.any_said = block.any;
        release(m, block, State::AtBarrier);
    }
    return block.any_said;
}

inline void meet_cluster(Machine& m, const Site& site) {
    take_turns(m);
    m.current->site = site;
    m.together += 1;
    if (m.together < m.count) {
        m.current->state = State::AtCluster;
        wait(m);
        return;
    }
    m.together = 0;
    for (u32 rank = 0; rank < m.launch->cluster; ++rank) {
        Block& block = m.blocks[rank];
        release(m, block, State::AtCluster);
        block.shared.together = block.shared.epoch;
    }
}

// The source of a thread that asks whether anyone brought true.
constexpr u32 ANYONE = ~0u;

// The last lane that the others waited for hands out what each asked for.
inline void hand_out(Machine& m, Thread* warp, u32 lanes, const Site& site) {
    u64 values[WARP] = {}, any = 0;
    for (u32 i = 0; i < WARP; ++i) {
        if ((lanes >> i & 1) == 0) {
            continue;
        }
        const Thread& other = warp[i];
        if (other.lanes != lanes) {
            fail(m, *m.current, site, "mask %08x, and that of lane %u is %08x", lanes, i, other.lanes);
        }
        if (!same(other.site, site)) {
            fail(m, *m.current, site, "lane %u waits at another, %s at %s:%u", i, other.site.what, other.site.file,
                 other.site.line);
        }
        values[i] = other.value;
        any |= other.value;
    }
    const bool backwards = m.launch->run->schedule == DESCENDING;
    for (u32 k = 0; k < WARP; ++k) {
        const u32 i = backwards ? WARP - 1 - k : k;
        if ((lanes >> i & 1) == 0) {
            continue;
        }
        Thread& other = warp[i];
        other.value = other.source == ANYONE ? any : values[other.source];
        if (&other != m.current) {
            make_ready(m, &other);
        }
    }
}

// The lanes of a mask: what the lane `source` brought.
inline u64 exchange(Machine& m, u32 lanes, u64 value, u32 source, const Site& site) {
    take_turns(m);
    Thread& self = *m.current;
    const u32 warp = self.number / WARP, lane = self.number % WARP;
    const u32 size = m.launch->block - warp * WARP;
    const u32 absent = size < WARP ? lanes >> size << size : 0;
    if ((lanes >> lane & 1) == 0) {
        fail(m, self, site, "the mask %08x lacks the caller, lane %u", lanes, lane);
    }
    if (absent != 0) {
        fail(m, self, site, "the mask %08x names lane %d, which the block does not have", lanes, __builtin_ctz(absent));
    }
    if (source != ANYONE && (source >= WARP || (lanes >> source & 1) == 0)) {
        fail(m, self, site, "lane %u reads from lane %u, which the mask %08x lacks", lane, source, lanes);
    }
    self.site = site;
    self.lanes = lanes;
    self.source = source;
    self.value = value;
    u32& waiting = self.block->waiting[warp];
    waiting |= 1u << lane;
    if ((waiting & lanes) != lanes) {
        self.state = State::InWarp;
        wait(m);
    } else {
        hand_out(m, self.block->threads + warp * WARP, lanes, site);
        waiting &= ~lanes;
    }
    return self.value;
}

// The current thread's bytes of its block's shared memory, for reading and for writing.
inline const u8* shared_to_read(Machine& m, u32 at, u32 size, const Site& site) {
    take_turns(m);
    Thread& self = *m.current;
    if (const char* wrong = on_read(self.block->shared, at, size, self.number)) {
        fail(m, self, site, "%u bytes at %u: %s", size, at, wrong);
    }
    return self.block->shared.bytes + at;
}

inline u8* shared_to_write(Machine& m, u32 at, u32 size, const Site& site) {
    take_turns(m);
    Thread& self = *m.current;
    if (const char* wrong = on_write(self.block->shared, at, size, self.number)) {
        fail(m, self, site, "%u bytes at %u: %s", size, at, wrong);
    }
    return self.block->shared.bytes + at;
}

// Those of another block of the cluster.
inline const u8* shared_of_another(Machine& m, u32 rank, u32 at, u32 size, const Site& site) {
    if (rank >= m.launch->cluster) {
        fail(m, *m.current, site, "rank %u of a cluster of %u", rank, m.launch->cluster);
    }
    Block& block = m.blocks[rank];
    if (&block == m.current->block) {
        return shared_to_read(m, at, size, site);
    }
    take_turns(m);
    Thread& self = *m.current;
    if (block.ended == m.launch->block) {
        fail(m, self, site, "block %llu, whose shared memory it reads, has ended", block.number);
    }
    if (const char* wrong = on_read_from_afar(block.shared, at, size)) {
        fail(m, self, site, "%u bytes at %u of rank %u: %s", size, at, rank, wrong);
    }
    return block.shared.bytes + at;
}

inline const char* instead(const Thread& thread) {
    switch (thread.state) {
    case State::Ended:
        return "has ended";
    case State::AtBarrier:
        return "waits at a barrier";
    case State::AtCluster:
        return "waits at the cluster's barrier";
    default:
        return "waits for other lanes";
    }
}

// A lane that a thread waits for and that waits for others, or for nobody any more.
inline void explain_lanes(Machine& m, const Thread& thread) {
    const Thread* warp = thread.block->threads + thread.number / WARP * WARP;
    for (u32 i = 0; i < WARP; ++i) {
        if ((thread.lanes >> i & 1) == 0) {
            continue;
        }
        const Thread& other = warp[i];
        if (other.state != State::InWarp || other.lanes != thread.lanes) {
            fail(m, thread, thread.site, "mask %08x: lane %u never comes, it %s", thread.lanes, i, instead(other));
        }
    }
}

inline void explain_barrier(Machine& m, const Thread& thread) {
    for (u32 i = 0; i < m.count; ++i) {
        const Thread& other = m.threads[i];
        const bool concerns = thread.state == State::AtCluster || other.block == thread.block;
        if (concerns && other.state != thread.state) {
            fail(m, thread, thread.site, "thread %u of block %llu never comes, it %s", other.number,
                 other.block->number, instead(other));
        }
    }
}

inline void fail_stuck(Machine& m) {
    // Lanes before barriers: whoever waits at a barrier may wait for a thread that waits for a lane.
    for (u32 i = 0; i < m.count; ++i) {
        if (m.threads[i].state == State::InWarp) {
            explain_lanes(m, m.threads[i]);
        }
    }
    for (u32 i = 0; i < m.count; ++i) {
        if (m.threads[i].state != State::Ended) {
            explain_barrier(m, m.threads[i]);
        }
    }
    fail(m, *m.current, KERNEL_ITSELF, "the threads wait for each other in vain");
}

} // namespace device::host
