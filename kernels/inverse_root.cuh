// The inverse square root unit x / sqrt(alpha + x^2) and its derivatives, as docs/numerics.md defines them.
#pragma once
#include "nearest.cuh"

// 1 / sqrt(d), each rounded, for d made of float32 numbers. Where the root is next to a power of two the last bit may be
// another, too far from half an ulp of float32 to matter.
DEVICE double reciprocal_root(double d) {
#ifdef __CUDACC__
    // What a root and a division compile to, but for their branches to numbers out of the ordinary: those would have a
    // thread's elements wait for each other.
    double near;
    asm("rsqrt.approx.ftz.f64 %0, %1;" : "=d"(near) : "d"(d));
    const double miss = __fma_rn(d, -(near * near), 1.0);
    near = __fma_rn(__fma_rn(miss, 0.375, 0.5), near * miss, near);
    const double guess = d * near;
    const double root = __fma_rn(__fma_rn(-guess, guess, d), 0.5 * near, guess);
    asm("rcp.approx.ftz.f64 %0, %1;" : "=d"(near) : "d"(root));
    const double rest = __fma_rn(-root, near, 1.0);
    near = __fma_rn(near, __fma_rn(rest, rest, rest), near);
    const double r = __fma_rn(near, __fma_rn(-root, near, 1.0), near);
    return d == 0.0 ? infinity<double>() : d == infinity<double>() ? 0.0 : r;
#else
    return 1.0 / device::square_root(d);
#endif
}

// With d = alpha + x^2, not rounded: the nearest numbers to 1 / sqrt(d), alpha d^(-3/2) and x d^(-3/2).
template <class F> struct InverseRoots {
    F r, h, k;
};

DEVICE InverseRoots<float> inverse_roots(float alpha, float x) {
    const double a = alpha, wide = x;
    const double r = reciprocal_root(a + wide * wide);
    const double cube = (r * r) * r;
    return {static_cast<float>(r), static_cast<float>(a * cube), static_cast<float>(wide * cube)};
}

// a * (b.hi + b.lo), rounded once; b.lo does not count where it is not a number, as beside infinities.
DEVICE double times_two(double a, Two<double> b) {
    const Two<double> t = two_prod(a, b.hi);
    const double better = t.hi + (t.lo + a * b.lo);
    return is_finite(better) ? better : t.hi;
}

DEVICE InverseRoots<double> inverse_roots(double alpha, double x) {
    const Two<double> square = two_prod(x, x);
    const Two<double> sum = two_sum(alpha, square.hi);
    const double d = sum.hi, dl = sum.lo + square.lo;
    const double r = 1.0 / device::square_root(d);
    const Two<double> p = two_prod(r, r);
    const Two<double> q = two_prod(d, p.hi);
    const double e = 0.5 * (((1.0 - q.hi) - q.lo) - (d * p.lo + dl * p.hi));
    // r (1 + e), and its cube as p r (1 + p.lo / p + 3 e).
    Two<double> cube = two_prod(p.hi, r);
    cube.lo = cube.lo + (p.lo * r + 3.0 * e * cube.hi);
    return {corrected(r, e), times_two(alpha, cube), times_two(x, cube)};
}

// x and alpha where their squares are in range, and the exponent that was taken out of x.
template <class F> struct Squarable {
    F alpha, x;
    i32 e;
};

template <class F> DEVICE i32 exponent_or_none(F x) {
    return x == F(0) ? Limits<F>::NONE : exponent_of<F>(magnitude(x));
}

template <class F> DEVICE Squarable<F> squarable(F alpha, F x) {
    // Exponents whose squares are in range.
    constexpr i32 LOW = sizeof(F) == 4 ? -40 : -300, HIGH = sizeof(F) == 4 ? 25 : 300;
    const i32 of_x = exponent_or_none(x), of_alpha = exponent_or_none(alpha) >> 1;
    const i32 e = of_x > of_alpha ? of_x : of_alpha;
    if (LOW <= e && e <= HIGH) {
        return {alpha, x, 0};
    }
    return {scale(alpha, -2 * e), scale(x, -e), e};
}
