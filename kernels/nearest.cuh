// Results rounded once: for float32 from float64, for float64 from the plain result and its residual, which is computed
// in two numbers. Operation by operation what src/backend/cpu/real.rs does.
#pragma once
#include "math.cuh"

// The nearest number to 1 / x, which a division is.
template <class F> DEVICE F nearest_recip(F x) {
    return F(1) / x;
}

// The same for d in [1/2, 1] or NaN.
DEVICE float nearest_recip_of_half_to_one(float d) {
#ifdef __CUDACC__
    // What a division compiles to, but for its branch to other numbers: that would have a thread's elements wait for each
    // other.
    float near;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(near) : "f"(d));
    return __fmaf_rn(near, __fmaf_rn(-d, near, 1.0f), near);
#else
    return nearest_recip(d);
#endif
}

DEVICE double nearest_recip_of_half_to_one(double d) {
    return nearest_recip(d);
}

// The nearest number to 1 / sqrt(sum / count + eps).
DEVICE float rsqrt_inside(float sum, float count, float eps) {
    const double v = static_cast<double>(sum) / static_cast<double>(count);
    return static_cast<float>(1.0 / device::square_root(v + static_cast<double>(eps)));
}

// r * (1 + e) for a tiny relative error e; r where the error is not a number, as beside infinities.
DEVICE double corrected(double r, double e) {
    const double better = r + r * e;
    return is_finite(better) ? better : r;
}

// a / b as a number and its error.
DEVICE Two<double> quotient_parts(double a, double b) {
    const double q = a / b;
    const Two<double> p = two_prod(q, b);
    const double low = ((a - p.hi) - p.lo) / b;
    return {q, is_finite(low) ? low : 0.0};
}

DEVICE double rsqrt_inside(double sum, double count, double eps) {
    const Two<double> v = quotient_parts(sum, count);
    const Two<double> s = two_sum(v.hi, eps);
    const double d = s.hi, dl = s.lo + v.lo;
    const double r = 1.0 / device::square_root(d);
    const Two<double> p = two_prod(r, r);
    const Two<double> q = two_prod(d, p.hi);
    return corrected(r, 0.5 * (((1.0 - q.hi) - q.lo) - (d * p.lo + dl * p.hi)));
}

// The nearest numbers to 1 / (q + eps) and to q = sqrt(sum / count).
template <class F> struct RootAndReciprocal {
    F reciprocal, root;
};

DEVICE RootAndReciprocal<float> rsqrt_outside(float sum, float count, float eps) {
    const double q = device::square_root(static_cast<double>(sum) / static_cast<double>(count));
    return {static_cast<float>(1.0 / (q + static_cast<double>(eps))), static_cast<float>(q)};
}

DEVICE RootAndReciprocal<double> rsqrt_outside(double sum, double count, double eps) {
    const Two<double> v = quotient_parts(sum, count);
    const double q = device::square_root(v.hi);
    const Two<double> p = two_prod(q, q);
    const double ql = q > 0.0 && is_finite(q) ? (((v.hi - p.hi) - p.lo) + v.lo) / (2.0 * q) : 0.0;
    const Two<double> s = two_sum(q, eps);
    const double sl = s.lo + ql;
    const double r = 1.0 / s.hi;
    const Two<double> t = two_prod(r, s.hi);
    return {corrected(r, ((1.0 - t.hi) - t.lo) - r * sl), q + ql};
}
