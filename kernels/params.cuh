#pragma once
#include "device.cuh"
// What a launch is told, and how a variant's operands are reached.

using device::f16, device::bf16, device::i8, device::f8e4m3, device::f8e5m2;
using i32 = device::i32;
using i64 = device::i64;
using u32 = device::u32;
using u64 = device::u64;

// What is summed over a row.
enum class Kind { Moments, MeanSquare, Norm2, Norm1, Largest, IntegerPower, Power };

// What is normalized: the input, or what a prologue makes of it, which takes another operand, `before`.
enum class Before { None, Residual, ScaledResidual, Gate };
// What an epilogue makes of what the norm gives; those that take another operand call it `after`.
enum class After { None, Relu, Silu, Gelu, GeluTanh, Residual, Gate, RotaryHalves, RotaryNeighbours };

// What of the results that become codes shares a scale; None where they stay floats.
enum class Scaling { None, Static, Row, Block };

// How the WIDTH elements that a thread works on at a time are reached.
enum class Access {
    // At once: they lie side by side, aligned to all of them.
    Vector,
    // They are one element.
    Splat,
    // One by one, wherever the strides say.
    Element,
};

// An operand of a variant: its number in `Params`, how its elements are stored, and how they are reached.
template <int SLOT_, class T_, Access ACCESS_> struct Operand {
    static constexpr bool PRESENT = true;
    static constexpr int SLOT = SLOT_;
    static constexpr Access ACCESS = ACCESS_;
    using T = T_;
};

// One that a variant does not have.
struct Absent {
    static constexpr bool PRESENT = false;
    static constexpr int SLOT = 0;
    static constexpr Access ACCESS = Access::Element;
    using T = float;
};

// A multiple of eight bytes, as what follows it is.
template <class F> struct Scalars {
    // This launch computes `rows` rows from `first_row` on.
    i64 first_row, rows, cols;
    // Columns that the statistic sees, and in how many leaves a row of a split launch is cut.
    i64 prefix, leaves;
    // Parameters' sums: rows of a chunk, chunks, and columns of a row of partial sums.
    i64 chunk_rows, chunks, partial_cols;
    // Where the sums of leaves begin among the partial sums.
    i64 leaf_base;
    // Rows that a thread takes one after the other.
    i64 turns;
    // Pairs of columns that a rotary embedding rotates, and the columns of a head.
    i64 pairs, head;
    // Rows of its tables that positions choose from, and how far they are apart in the tables of cosines and of sines.
    i64 table_rows, cos_step, sin_step;
    // Columns that share a scale of codes.
    i64 block;
    // Columns that the statistic of a branch's norm sees.
    i64 inner_prefix;
    // The scale exponent that eps asks for.
    i32 eps_exponent;
    // Which of the parameters that are summed this launch finishes.
    u32 parameter;
    // Dropout's key, the upper half of its counter, and the least word of an element that is kept.
    u32 drop_key[2], drop_upper[2], drop_threshold;
    // The scale exponent that the eps of a branch's norm asks for.
    i32 inner_eps_exponent;
    // One over the elements of a row's last leaf.
    F inv_last;
    // eps, and the divisor's reciprocal where the statistic is zero.
    F eps, eps_rstd;
    F weight_offset;
    // The power of a p-norm, one over it, and one less, each as two numbers.
    F power, power_low, inv_power, inv_power_low, slope_power, slope_power_low;
    // The weight of a new sample in a running estimate, and of what was there.
    F factor, rest;
    // What a prologue multiplies the input and the residual by.
    F input_scale, residual_scale;
    // The scale of codes, or the largest magnitude that makes one larger; the code of that; and the least scale.
    F code_scale, code_bound, code_largest, code_least;
    // Of the norm of a branch: eps, the divisor's reciprocal where the statistic is zero, the weight's offset.
    F inner_eps, inner_eps_rstd, inner_offset;
    // The least magnitude that is set apart from codes.
    F code_outlier;
};

// An axis of the index space, and every operand's stride along it, in elements.
template <int SLOTS> struct Axis {
    i64 size;
    i64 stride[SLOTS];
};

// Where the blocks of one of several problems begin.
template <bool IS_THERE> struct OfTogether {};
template <> struct OfTogether<true> {
    u64 first_block;
};

template <class V> struct Params : OfTogether<(V::PROBLEMS > 1)> {
    Scalars<typename V::F> s;
    // Addresses of the operands' elements of index zero.
    u64 at[V::SLOTS];
    // The axes that count rows and those that make one, slowest first.
    Axis<V::SLOTS> outer[V::OUTER];
    Axis<V::SLOTS> inner[V::INNER];
};

// The block among those of its problem.
template <class V> DEVICE u64 block_of(const Params<V>& p) {
    if constexpr (V::PROBLEMS > 1) {
        return device::block() - p.first_block;
    } else {
        return device::block();
    }
}

// What a launch of several problems is told, whose blocks follow one another.
template <class V> struct Together {
    Params<V> of[V::PROBLEMS];

    // That of this block, the last one that begins with it or before.
    DEVICE const Params<V>& of_block() const {
        u32 problem = 0;
        UNROLL for (int other = 1; other < V::PROBLEMS; ++other) {
            problem += of[other].first_block <= device::block() ? 1 : 0;
        }
        return of[problem];
    }
};

// Rows of a block that works column by column, side by side.
constexpr u32 ROWS_ACROSS = 32;

template <class V> DEVICE constexpr u32 block_threads() {
    return V::COLUMN ? ROWS_ACROSS * V::THREADS : V::THREADS * V::LEAVES * V::TEAMS;
}

// A column's number.
template <bool WIDE> struct IndexOf {
    using Type = u32;
};
template <> struct IndexOf<true> {
    using Type = u64;
};
template <class V> using Index = typename IndexOf<V::WIDE>::Type;

template <class F> struct Statistics;

// What is known of the row of a branch that has a norm of its own.
template <class V, bool IS_THERE> struct OfInner {};
template <class V> struct OfInner<V, true> {
    Statistics<typename V::F> inner;
};

// The same of the row of a residual.
template <class V, bool IS_THERE> struct OfMix {};
template <class V> struct OfMix<V, true> {
    Statistics<typename V::F> residual;
};

// Where the elements of a row begin, or those of a column in their row: an offset for each operand.
template <class V> struct Place : OfInner<V, V::HAS_INNER>, OfMix<V, V::HAS_MIX> {
    i64 at[V::SLOTS];
};

// 64 bits take a GPU several times as long to divide.
DEVICE u64 quotient(u64 x, u64 size) {
    if (((x | size) >> 32) == 0) {
        return u32(x) / u32(size);
    }
    return x / size;
}

DEVICE u32 quotient(u32 x, u32 size) {
    return x / size;
}

template <class V, int AXES, class I> DEVICE Place<V> place(const Axis<V::SLOTS> (&axes)[AXES], I index) {
    Place<V> place;
    UNROLL for (int slot = 0; slot < V::SLOTS; ++slot) {
        place.at[slot] = 0;
    }
    UNROLL for (int axis = AXES - 1; axis >= 0; --axis) {
        I slower = axis > 0 ? quotient(index, I(axes[axis].size)) : 0;
        I along = axis > 0 ? index - slower * I(axes[axis].size) : index;
        UNROLL for (int slot = 0; slot < V::SLOTS; ++slot) {
            place.at[slot] += i64(along) * axes[axis].stride[slot];
        }
        index = slower;
    }
    return place;
}

// Where row `row` of the problem begins.
template <class V> DEVICE Place<V> place_of_row(const Params<V>& p, u64 row) {
    return place<V>(p.outer, row);
}

template <class V, class O> DEVICE typename O::T* element(const Params<V>& p, const Place<V>& row, Index<V> col) {
    i64 offset = row.at[O::SLOT] + place<V>(p.inner, col).at[O::SLOT];
    return reinterpret_cast<typename O::T*>(p.at[O::SLOT]) + offset;
}

// Numbers of type N of a thread's WIDTH columns.
template <class N, int WIDTH> struct Quad {
    N at[WIDTH];
};
template <class V> using Numbers = Quad<typename V::F, V::WIDTH>;
template <class V, class O> using Stored = device::Pack<typename O::T, V::WIDTH>;

// The operand's elements of the columns from `col` on, as they are stored; zeros from column `end` on.
template <class V, class O>
DEVICE Stored<V, O> load_stored(const Params<V>& p, const Place<V>& row, Index<V> col, Index<V> end) {
    Stored<V, O> x = {};
    if (col >= end) {
        return x;
    }
    if constexpr (O::ACCESS == Access::Vector) {
        return device::load<typename O::T, V::WIDTH>(element<V, O>(p, row, col));
    } else if constexpr (O::ACCESS == Access::Splat) {
        typename O::T one = device::load<typename O::T, 1>(element<V, O>(p, row, col)).at[0];
        UNROLL for (int i = 0; i < V::WIDTH; ++i) {
            x.at[i] = one;
        }
    } else {
        UNROLL for (int i = 0; i < V::WIDTH; ++i) {
            if (col + Index<V>(i) < end) {
                x.at[i] = device::load<typename O::T, 1>(element<V, O>(p, row, col + Index<V>(i))).at[0];
            }
        }
    }
    return x;
}

template <class V, class T> DEVICE Numbers<V> widened(const device::Pack<T, V::WIDTH>& x) {
    Numbers<V> y;
    UNROLL for (int i = 0; i < V::WIDTH; ++i) {
        y.at[i] = device::widen_to<typename V::F>(x.at[i]);
    }
    return y;
}

// Numbers that are no elements of a tensor.
template <class V> DEVICE Numbers<V> widened(const Numbers<V>& x) {
    return x;
}

template <class V, class O>
DEVICE Numbers<V> load_quad(const Params<V>& p, const Place<V>& row, Index<V> col, Index<V> end) {
    return widened<V>(load_stored<V, O>(p, row, col, end));
}

// Writes the operand's elements of the columns from `col` on that come before column `end`.
template <class V, class O>
DEVICE void store_quad(const Params<V>& p, const Place<V>& row, Index<V> col, Index<V> end, const Numbers<V>& y) {
    using T = typename O::T;
    if constexpr (O::ACCESS == Access::Vector) {
        if (col < end) {
            Stored<V, O> x;
            UNROLL for (int i = 0; i < V::WIDTH; ++i) {
                x.at[i] = device::narrow<T>(y.at[i]);
            }
            device::store<T, V::WIDTH>(element<V, O>(p, row, col), x);
        }
    } else {
        UNROLL for (int i = 0; i < V::WIDTH; ++i) {
            if (col + Index<V>(i) < end) {
                device::store<T, 1>(element<V, O>(p, row, col + Index<V>(i)), {{device::narrow<T>(y.at[i])}});
            }
        }
    }
}

// The k-th of the operand's numbers of a row.
template <class V, class O> DEVICE typename V::F number(const Params<V>& p, const Place<V>& row, i64 k) {
    using T = typename O::T;
    const T* at = reinterpret_cast<const T*>(p.at[O::SLOT]) + row.at[O::SLOT] + k;
    return device::widen_to<typename V::F>(device::load<T, 1>(at).at[0]);
}

template <class V, class O>
DEVICE void set_number(const Params<V>& p, const Place<V>& row, i64 k, typename V::F value) {
    using T = typename O::T;
    T* at = reinterpret_cast<T*>(p.at[O::SLOT]) + row.at[O::SLOT] + k;
    device::store<T, 1>(at, {{device::narrow<T>(value)}});
}
