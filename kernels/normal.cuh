#pragma once
// The normal distribution and the exact GELU, as docs/numerics.md defines them.
#include "sigmoid.cuh"

// The |z| that counts at most; exp(z² / 2) times the share of what is below -z, a polynomial in 1 / (1 + 5/16 z).
DEVICE float most_for_normal(float) {
    return 16.0f;
}

DEVICE double most_for_normal(double) {
    return 40.0;
}

DEVICE float tail_series(float t) {
    return horner(t, -0.0007587924f, 0.13520992f, 0.06239751f, 0.3167805f, -0.3152837f, 0.53267837f, -0.28117874f,
                  0.050154891f);
}

DEVICE double tail_series(double t) {
    return horner(t, 3.913165665983069e-07, 0.12465784697934133, 0.12481947422899109, 0.11138063927017804,
                  0.09331930418504289, 0.04067117955037199, 0.036190092077958445, 0.05466483606552168, -0.3796376974750531,
                  0.9971138542455199, -1.8727446816522983, 2.4601945962075913, -2.2504909786496685, 1.4427500259545205,
                  -0.6421215032479486, 0.19054856028930425, -0.03411723084846393, 0.0028012915025244617);
}

// The share of what is below z, and exp(-z² / 2).
template <class F> struct Normal {
    F below, bell;
};

template <class F> DEVICE Normal<F> normal(F z) {
    using C = SigmoidConstants<F>;
    const F size = held(absolute(z), most_for_normal(z)), half_square = F(0.5) * (size * size);
    const Power<F> power = power_of(held(F(0.5) * half_square, C::MOST_HALF));
    const F bell = half_square > C::MOST ? F(0) : power.rest * power.two;
    const F tail = bell * tail_series(F(1) / (F(1) + F(0.3125) * size));
    return {z < F(0) ? tail : F(1) - tail, bell};
}

template <class F> DEVICE F gelu(F z) {
    return z * normal(z).below;
}

template <class F> DEVICE F gelu_slope(F z) {
    const Normal<F> n = normal(z);
    return n.below + (z * n.bell) * F(0.3989422804014327);
}
