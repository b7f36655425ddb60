// What a backward pass sums of a row or a part of it.
#pragma once
#include "math.cuh"
#include "numbers.cuh"

// Numbers of a row's sums, in the order of their members.
constexpr int SUMS_SIZE = 6;

template <class F> struct RowSums {
    F count, s1, s2, ties;
    // Powers of two taken out of grad_output and of the weight.
    i32 g_exponent, w_exponent;
};

template <class F> DEVICE Quad<F, SUMS_SIZE> to_numbers(const RowSums<F>& s) {
    return {{s.count, s.s1, s.s2, s.ties, F(s.g_exponent), F(s.w_exponent)}};
}

template <class F> DEVICE RowSums<F> to_sums(const Quad<F, SUMS_SIZE>& x) {
    return {x.at[0], x.at[1], x.at[2], x.at[3], to_exponent(x.at[4]), to_exponent(x.at[5])};
}

// Sums over no element.
template <class F> DEVICE RowSums<F> no_sums() {
    return {F(0), F(0), F(0), F(0), Limits<F>::NONE, 0};
}

// The power of two that the sums are to be multiplied by.
template <class F> DEVICE i32 exponent_of_sums(const RowSums<F>& s) {
    return s.g_exponent == Limits<F>::NONE ? 0 : s.g_exponent + s.w_exponent;
}

// Over the elements of both.
template <class F> DEVICE RowSums<F> merge_sums(RowSums<F> a, RowSums<F> b) {
    const F count = a.count + b.count, ties = a.ties + b.ties;
    if (a.g_exponent != Limits<F>::NONE && b.g_exponent != Limits<F>::NONE) {
        const i32 by = (b.g_exponent + b.w_exponent) - (a.g_exponent + a.w_exponent);
        if (by > 0) {
            a.s1 = scale(a.s1, -by);
            a.s2 = scale(a.s2, -by);
            a.g_exponent = b.g_exponent;
            a.w_exponent = b.w_exponent;
        } else if (by < 0) {
            b.s1 = scale(b.s1, by);
            b.s2 = scale(b.s2, by);
        }
        a.s1 = a.s1 + b.s1;
        a.s2 = a.s2 + b.s2;
    } else if (b.g_exponent != Limits<F>::NONE) {
        a = b;
    }
    a.count = count;
    a.ties = ties;
    return a;
}
