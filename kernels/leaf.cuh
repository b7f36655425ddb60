#pragma once
#include "math.cuh"
#include "pairwise.cuh"
#include "params.cuh"
// A leaf of a row shared by a team of THREADS threads, and its sums in the order of `plan::tree`. Thread t of the team
// owns, of every LANES columns, the runs of WIDTH columns t, t + THREADS, ...: QUADS of them. A team is
// - part of a warp, whose threads meet in shuffles;
// - several warps that meet in shared memory, LEAVES teams taking the leaves of a row side by side, and CLUSTER blocks with
//   such teams the leaves of a very long one;
// - or, COLUMN, the threads of a block that have the same row of ROWS_ACROSS neighbouring ones.

constexpr u32 LEAF = 4096;
// Elements of a leaf whose mean is the first guess of the leaf's.
constexpr u32 FIRST = 32;

struct Add {
    template <class T> DEVICE T operator()(T a, T b) const { return a + b; }
};
struct Most {
    template <class T> DEVICE T operator()(T a, T b) const { return a > b ? a : b; }
};
struct Or {
    template <class T> DEVICE T operator()(T a, T b) const { return a | b; }
};

template <class F> struct Pair {
    F a, b;
};

// Bytes of shared memory that folds take: what else a block shares comes after them.
template <class V> DEVICE constexpr u32 shared_of_folds() {
    return 2 * block_threads<V>() * 2 * u32(V::WIDTH) * u32(sizeof(typename V::F));
}

template <class V> struct Leaf {
    using F = typename V::F;
    using I = Index<V>;
    static constexpr u32 THREADS = V::THREADS;
    static constexpr int WIDTH = V::WIDTH;
    static constexpr u32 LANES = V::LANES;
    static constexpr int QUADS = LANES / (THREADS * WIDTH);
    // The threads of a team are part of a warp, and need no barrier.
    static constexpr bool IN_WARP = !V::COLUMN && THREADS <= WARP;
    // Threads of a team that a shuffle reaches.
    static constexpr u32 NEAR = V::COLUMN ? 1 : THREADS < WARP ? THREADS : WARP;
    // Runs of a leaf that a thread keeps.
    static constexpr int HELD = V::STEPS * QUADS;
    // A block has so many threads, each with so many sums, that the elements of one run must be done with before those of the
    // next are asked for, and likewise the numbers of other threads: compilers would spill some.
    static constexpr bool IS_SCARCE = V::COLUMN && LANES > 128;
    // Teams have a leaf of a row each.
    static constexpr bool SPREAD = V::SPLIT || V::LEAVES > 1;
    static_assert(QUADS >= 1 && QUADS * THREADS * WIDTH == LANES);
    static_assert(!V::COLUMN || WIDTH == 1);

    const Params<V>& p;
    // This thread in its team, and its team in the block; COLUMN: its row in the block.
    u32 thread, team;
    // The lanes of the team's warp that belong to the team.
    u32 lanes;
    // Which half of the shared memory the next exchange takes: a thread may still read the other.
    u32 half = 0;
    // The row in the launch, and which of its leaves.
    u64 row;
    u64 leaf = 0;
    // Columns from `start` to `end`.
    I start = 0, end = 0;
    // Whether the row is there to be written: rows beyond the last repeat it, so that all threads meet every barrier.
    bool live = true;
    Place<V> place;

    DEVICE explicit Leaf(const Params<V>& params) : p(params) {
        u32 at = device::thread();
        if constexpr (V::COLUMN) {
            thread = at / ROWS_ACROSS;
            team = at % ROWS_ACROSS;
        } else {
            thread = at % THREADS;
            team = at / THREADS;
        }
        lanes = NEAR == WARP || V::COLUMN ? ALL_LANES : (ALL_LANES >> (WARP - NEAR)) << (at % WARP / NEAR * NEAR);
    }

    // Goes to this thread's row and leaf; whether there is anything to do.
    DEVICE bool enter() {
        u64 rows = u64(p.s.rows);
        if constexpr (V::COLUMN) {
            u64 across = (rows + ROWS_ACROSS - 1) / ROWS_ACROSS;
            u64 first = block_of(p);
            if constexpr (V::SPLIT) {
                leaf = first / across;
                first = first % across;
            }
            row = first * ROWS_ACROSS + team;
            live = row < rows;
            row = live ? row : rows - 1;
        } else if constexpr (V::LEAVES > 1) {
            row = block_of(p) / V::CLUSTER;
            leaf = V::LEAVES * device::cluster_rank() + team;
        } else {
            u64 task = block_of(p) * V::TEAMS + team;
            u64 leaves = V::SPLIT ? u64(p.s.leaves) : 1;
            live = task < rows * leaves;
            if (!live) {
                if constexpr (IN_WARP) {
                    return false;
                }
                task = rows * leaves - 1;
            }
            row = task;
            if constexpr (V::SPLIT) {
                row = task / leaves;
                leaf = task % leaves;
            }
        }
        place = place_of_row(p, u64(p.s.first_row) + row);
        enter_columns();
        return true;
    }

    // Goes to a row that the whole team has chosen.
    DEVICE void enter_row(u64 chosen) {
        row = chosen;
        place = place_of_row(p, u64(p.s.first_row) + row);
        enter_columns();
    }

    DEVICE void enter_columns() {
        I cols = I(p.s.cols);
        end = cols;
        if constexpr (SPREAD) {
            u64 from = leaf * LEAF;
            start = from < u64(cols) ? I(from) : cols;
            end = cols - start > I(LEAF) ? start + I(LEAF) : cols;
        }
    }

    // Whether this thread writes what belongs to the leaf, and to the row.
    DEVICE bool is_first() const { return thread == 0 && live; }
    DEVICE bool is_first_of_row() const { return is_first() && leaf == 0; }

    DEVICE I length() const { return end - start; }

    DEVICE I column(int step, int quad) const {
        return start + I(step) * I(LANES) + I(WIDTH) * (I(thread) + I(THREADS) * I(quad));
    }

    // Calls `body(i, column)` for every run of columns of this thread, `i` being constant where the leaf is kept. Some
    // are beyond the end.
    template <class Body> DEVICE void each(Body body) const {
        if constexpr (HELD > 0) {
            UNROLL for (int step = 0; step < V::STEPS; ++step) {
                UNROLL for (int quad = 0; quad < QUADS; ++quad) {
                    body(step * QUADS + quad, column(step, quad));
                }
            }
        } else {
            each_again(body);
        }
    }

    // The same where nothing is kept; `i` is the quad.
    template <class Body> DEVICE void each_again(Body body) const {
        int steps = int((length() + I(LANES) - 1) / I(LANES));
        for (int step = 0; step < steps; ++step) {
            UNROLL for (int quad = 0; quad < QUADS; ++quad) {
                if constexpr (IS_SCARCE) {
                    device::keep_order();
                }
                body(quad, column(step, quad));
            }
        }
    }

    // Calls `body(column)` for every run of columns of this thread, one after the other: where nothing is summed, and the
    // elements of all runs together would want more registers than the sums do.
    template <class Body> DEVICE void each_in_turn(Body body) const {
        int runs = int((length() + I(LANES) - 1) / I(LANES)) * QUADS;
        NO_UNROLL for (int run = 0; run < runs; ++run) {
            body(column(run / QUADS, run % QUADS));
        }
    }

    DEVICE bool is_inside(I col, int i) const { return col + I(i) < end; }

    // Of any thread of those that must take the same way.
    DEVICE bool any(bool x) const {
        if constexpr (IN_WARP) {
            // The team's threads know the same.
            return x;
        } else {
            return device::barrier_any(x);
        }
    }

    // Folds each of N numbers over the team's threads, in the tree's order; every thread gets the results.
    template <class T, int N, class Op> DEVICE void across(T (&x)[N], Op op) {
        if constexpr (THREADS > NEAR) {
            constexpr u32 BLOCK = block_threads<V>();
            constexpr int FAR = THREADS / NEAR;
            u32 base = half * (shared_of_folds<V>() / 2);
            half ^= 1;
            UNROLL for (int n = 0; n < N; ++n) {
                device::shared_set<T>(base + (u32(n) * BLOCK + device::thread()) * u32(sizeof(T)), x[n]);
            }
            device::barrier();
            // Every warp adds all warps' numbers, so that none waits for another's result.
            u32 first = V::COLUMN ? team : team * THREADS + thread % NEAR;
            constexpr u32 APART = V::COLUMN ? ROWS_ACROSS : NEAR;
            UNROLL for (int n = 0; n < N; ++n) {
                auto far = [&](u32 k) {
                    return device::shared_get<T>(base + (u32(n) * BLOCK + first + k * APART) * u32(sizeof(T)));
                };
                if constexpr (IS_SCARCE) {
                    x[n] = folded<FAR, 1>(0, op, far);
                } else {
                    T y[FAR];
                    UNROLL for (int k = 0; k < FAR; ++k) {
                        y[k] = far(u32(k));
                    }
                    halve<FAR, 1>(y, op);
                    x[n] = y[0];
                }
            }
        }
        UNROLL for (u32 distance = NEAR / 2; distance > 0; distance /= 2) {
            UNROLL for (int n = 0; n < N; ++n) {
                x[n] = op(x[n], device::shuffle_xor(lanes, x[n], distance));
            }
        }
    }

    // Folds FROM numbers to TO by halves.
    template <int FROM, int TO, class T, class Op> DEVICE static void halve(T* x, Op op) {
        if constexpr (FROM > TO) {
            constexpr int HALF = FROM / 2;
            UNROLL for (int i = 0; i < HALF; ++i) {
                x[i] = op(x[i], x[i + HALF]);
            }
            halve<HALF, TO>(x, op);
        }
    }

    // The numbers `get(first + DISTANCE * i)`, i < COUNT, folded to one in the order of `halve`, but each half before the
    // other is read: few of them take registers at a time.
    template <int COUNT, int DISTANCE, class Op, class Get> DEVICE static auto folded(u32 first, Op op, Get get) {
        if constexpr (COUNT == 1) {
            return get(first);
        } else {
            auto even = folded<COUNT / 2, 2 * DISTANCE>(first, op, get);
            auto odd = folded<COUNT / 2, 2 * DISTANCE>(first + DISTANCE, op, get);
            return op(even, odd);
        }
    }

    // One number of each thread, folded.
    template <class T, class Op> DEVICE T fold(T x, Op op) {
        T all[1] = {x};
        across(all, op);
        return all[0];
    }

    // Sums the numbers that `term(i, column, a, b)` gives for every run of columns, `each` saying how these are visited.
    template <bool KEPT, class Term> DEVICE Pair<F> sums_of(Term term) {
        F a[QUADS * WIDTH], b[QUADS * WIDTH];
        UNROLL for (int i = 0; i < QUADS * WIDTH; ++i) {
            a[i] = b[i] = F(0);
        }
        auto add = [&](int i, I col) {
            Numbers<V> x, y;
            term(i, col, x, y);
            UNROLL for (int k = 0; k < WIDTH; ++k) {
                a[i % QUADS * WIDTH + k] += x.at[k];
                b[i % QUADS * WIDTH + k] += y.at[k];
            }
        };
        if constexpr (KEPT) {
            each(add);
        } else {
            each_again(add);
        }
        halve<QUADS * WIDTH, WIDTH>(a, Add());
        halve<QUADS * WIDTH, WIDTH>(b, Add());
        F both[2 * WIDTH];
        UNROLL for (int k = 0; k < WIDTH; ++k) {
            both[k] = a[k];
            both[WIDTH + k] = b[k];
        }
        across(both, Add());
        halve<WIDTH, 1>(both, Add());
        halve<WIDTH, 1>(both + WIDTH, Add());
        return {both[0], both[WIDTH]};
    }

    // Of a leaf that may be kept, and of one that is read again.
    template <class Term> DEVICE Pair<F> sums(Term term) { return sums_of<true>(term); }
    template <class Term> DEVICE Pair<F> sums_again(Term term) { return sums_of<false>(term); }

    // What the teams of a block know of the leaves of their row, merged in the tree's order; every thread gets it. `none` is
    // what nothing is known of.
    template <int N, class Merge>
    DEVICE Quad<F, N> across_leaves(const Quad<F, N>& own, const Quad<F, N>& none, Merge merge) {
        auto at = [](int k, u32 of) { return shared_of_folds<V>() + (u32(V::LEAVES * k) + of) * u32(sizeof(F)); };
        if (thread == 0) {
            UNROLL for (int k = 0; k < N; ++k) {
                device::shared_set<F>(at(k, team), own.at[k]);
            }
        }
        device::barrier();
        // Every warp merges all of them.
        u32 lane = device::thread() % WARP;
        Quad<F, N> x = none;
        if (lane < V::LEAVES) {
            UNROLL for (int k = 0; k < N; ++k) {
                x.at[k] = device::shared_get<F>(at(k, lane));
            }
        }
        x = from_lane(merged_lanes<V::LEAVES>(x, merge), 0);
        if constexpr (V::CLUSTER > 1) {
            // The blocks of a cluster have runs of the leaves in their order.
            if (device::thread() == 0) {
                UNROLL for (int k = 0; k < N; ++k) {
                    device::shared_set<F>(at(N, u32(k)), x.at[k]);
                }
            }
            device::cluster_barrier();
            x = none;
            if (lane < V::CLUSTER) {
                UNROLL for (int k = 0; k < N; ++k) {
                    x.at[k] = device::cluster_get<F>(lane, at(N, u32(k)));
                }
            }
            x = from_lane(merged_lanes<V::CLUSTER>(x, merge), 0);
            // No block ends while another reads its numbers.
            device::cluster_barrier();
        }
        return x;
    }

    // The mean of the leaf's first elements `get(column)`, as many as the largest power of two up to FIRST that there are.
    template <class Get> DEVICE F first_mean(Get get) {
        // Threads that have a copy of these elements: all warps of a team do the same.
        constexpr u32 SHARE = V::COLUMN ? (THREADS < FIRST ? THREADS : FIRST) : NEAR;
        constexpr int EACH = FIRST / SHARE;
        u32 count = FIRST;
        while (count > 1 && I(count) > length()) {
            count /= 2;
        }
        F x[EACH];
        UNROLL for (int k = 0; k < EACH; ++k) {
            u32 i = thread % SHARE + SHARE * u32(k);
            x[k] = i < count && I(i) < length() ? get(start + I(i)) : F(0);
        }
        halve<EACH, 1>(x, Add());
        F sum = x[0];
        if constexpr (V::COLUMN) {
            sum = fold(thread < SHARE ? sum : F(0), Add());
        } else {
            UNROLL for (u32 distance = NEAR / 2; distance > 0; distance /= 2) {
                sum += device::shuffle_xor(lanes, sum, distance);
            }
        }
        return sum * (F(1) / F(count));
    }
};
