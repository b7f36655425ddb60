#pragma once
// What is done to elements in the one pass over memory besides normalizing them: a prologue makes of them what is
// normalized, an epilogue the output of what the norm gives. Kernels call these where they load and store elements; for a
// variant without such operations they are a load and a store.
#include "dropout.cuh"
#include "params.cuh"
#include "normal.cuh"
#include "rotary.cuh"
#include "statistics.cuh"

template <bool FIRST, class A, class B> struct Either {
    using Type = A;
};
template <class A, class B> struct Either<false, A, B> {
    using Type = B;
};

// The operand's elements, if it is there.
template <class V, class O>
DEVICE Stored<V, O> load_if_present(const Params<V>& p, const Place<V>& row, Index<V> col, Index<V> end) {
    if constexpr (O::PRESENT) {
        return load_stored<V, O>(p, row, col, end);
    } else {
        return {};
    }
}

// A normalized value, scaled and shifted.
template <class Weight, class Bias, bool OFFSET, class F> DEVICE F scaled_and_shifted_by(F x, F weight, F bias, F offset) {
    if constexpr (Weight::PRESENT) {
        x = x * (OFFSET ? weight + offset : weight);
    }
    if constexpr (Bias::PRESENT) {
        x = x + bias;
    }
    return x;
}

// The norm of a branch, or of a residual, as the norm of a variant: its elements are those of an operand.
template <class V, class Of> struct InnerNorm : V {
    using Elements = Of;
    static constexpr Kind KIND = V::INNER_KIND;
    static constexpr bool OUTSIDE = V::INNER_OUTSIDE;
    static constexpr bool PREFIX = V::INNER_PREFIX;
    static constexpr bool IS_INNER = true;
};

// The hidden value, which is what is normalized.
template <class V> struct Prologue {
    using F = typename V::F;
    using I = Index<V>;
    using Input = typename V::input;
    using Other = typename V::before;
    // Without the other operand, the input is the hidden value.
    static constexpr bool IS_MADE = Other::PRESENT;
    static constexpr bool HAS_GRADIENT = V::grad_input::PRESENT || V::grad_before::PRESENT;
    // The input is shifted and scaled before a residual is added to it.
    using Shift = typename V::branch_bias;
    using Factor = typename V::branch_scale;
    // The weight and the bias of a norm that it has instead.
    using Weight = typename V::inner_weight;
    using Bias = typename V::inner_bias;
    static constexpr bool IS_RESIDUAL = V::BEFORE == Before::Residual || V::BEFORE == Before::ScaledResidual;
    // How threads keep it: as it is stored, if it is.
    using Kept = typename Either<IS_MADE, Numbers<V>, Stored<V, Input>>::Type;

    // Of an element and that of the other operand.
    DEVICE static F hidden(const Params<V>& p, F x, F other) {
        if constexpr (V::BEFORE == Before::Gate) {
            return x * silu(other);
        } else if constexpr (V::BEFORE == Before::ScaledResidual) {
            return x * p.s.input_scale + other * p.s.residual_scale;
        } else {
            return x + other;
        }
    }

    // The same, and zeros in the place of those whose bits are not in `kept`.
    DEVICE static Numbers<V> only(Numbers<V> x, u32 kept) {
        if constexpr (V::element::PRESENT) {
            UNROLL for (int k = 0; k < V::WIDTH; ++k) {
                x.at[k] = (kept >> k & 1) != 0 ? x.at[k] : F(0);
            }
        }
        return x;
    }

    // What shifts and scales columns of the input, or of what a norm of its own makes of it.
    struct Branch {
        Numbers<V> bias = {}, scale = {};
    };

    DEVICE static Branch branch(const Params<V>& p, const Place<V>& row, I col, I end) {
        Branch own;
        if constexpr (Shift::PRESENT) {
            own.bias = load_quad<V, Shift>(p, row, col, end);
        }
        if constexpr (Factor::PRESENT) {
            own.scale = load_quad<V, Factor>(p, row, col, end);
        }
        if constexpr (Bias::PRESENT) {
            own.bias = load_quad<V, Bias>(p, row, col, end);
        }
        if constexpr (Weight::PRESENT) {
            own.scale = load_quad<V, Weight>(p, row, col, end);
        }
        return own;
    }

    // What the scale multiplies.
    DEVICE static Numbers<V> shifted(const Stored<V, Input>& input, const Branch& own, u32 kept) {
        Numbers<V> x = widened<V>(input);
        if constexpr (Shift::PRESENT) {
            UNROLL for (int k = 0; k < V::WIDTH; ++k) {
                x.at[k] = x.at[k] + own.bias.at[k];
            }
        }
        return only(x, kept);
    }

    DEVICE static Numbers<V> scaled(Numbers<V> x, const Branch& own) {
        if constexpr (Factor::PRESENT) {
            UNROLL for (int k = 0; k < V::WIDTH; ++k) {
                x.at[k] = x.at[k] * own.scale.at[k];
            }
        }
        return x;
    }

    // Of the other operand's elements and those of the input, or what they have become.
    DEVICE static Numbers<V> joined(const Params<V>& p, Numbers<V> x, const Numbers<V>& other) {
        UNROLL for (int k = 0; k < V::WIDTH; ++k) {
            x.at[k] = hidden(p, x.at[k], other.at[k]);
        }
        return x;
    }

    // What its norm makes of an element of a branch whose row has these statistics.
    DEVICE static F of_inner(const Params<V>& p, const Statistics<F>& s, F x, F weight, F bias) {
        F e = normalized<V::INNER_KIND == Kind::Moments>(s, x);
        if constexpr (V::INNER_ROUND) {
            e = device::widen_to<F>(device::narrow<typename Input::T>(e));
        }
        return scaled_and_shifted_by<Weight, Bias, V::INNER_OFFSET>(e, weight, bias, p.s.inner_offset);
    }

    // What the same norm makes of an element of a residual, whose weight is its share of the sum.
    DEVICE static F of_residual(const Params<V>& p, const Place<V>& row, F x, F share) {
        if constexpr (V::HAS_MIX) {
            return normalized<V::INNER_KIND == Kind::Moments>(row.residual, x) * share;
        } else {
            return x;
        }
    }

    // The residual's elements of the columns from `col` on, normalized if they are.
    DEVICE static Numbers<V> residual(const Params<V>& p, const Place<V>& row, I col, I end) {
        Numbers<V> x = load_quad<V, Other>(p, row, col, end);
        if constexpr (V::HAS_MIX) {
            const Numbers<V> share = load_quad<V, typename V::mix_weight>(p, row, col, end);
            UNROLL for (int k = 0; k < V::WIDTH; ++k) {
                x.at[k] = of_residual(p, row, x.at[k], share.at[k]);
            }
        }
        return x;
    }

    // What is normalized of a branch's elements `x` of the columns from `col` on.
    DEVICE static Numbers<V> with_inner(const Params<V>& p, const Place<V>& row, I col, I end, Numbers<V> x) {
        const Branch own = branch(p, row, col, end);
        UNROLL for (int k = 0; k < V::WIDTH; ++k) {
            x.at[k] = of_inner(p, row.inner, x.at[k], own.scale.at[k], own.bias.at[k]);
        }
        return joined(p, x, residual(p, row, col, end));
    }

    // Of elements that were loaded.
    DEVICE static Kept made(const Params<V>& p, const Stored<V, Input>& input, const Stored<V, Other>& before,
                            const Branch& own, u32 kept) {
        if constexpr (IS_MADE) {
            return joined(p, scaled(shifted(input, own, kept), own), widened<V>(before));
        } else {
            return input;
        }
    }

    // The gradient of what the scale gives, `d` being that of the hidden value.
    DEVICE static Numbers<V> inside(const Params<V>& p, Numbers<V> d, u32 kept) {
        if constexpr (V::BEFORE == Before::ScaledResidual) {
            UNROLL for (int k = 0; k < V::WIDTH; ++k) {
                d.at[k] = d.at[k] * p.s.input_scale;
            }
            d = only(d, kept);
        }
        return d;
    }

    // The gradient of the hidden value: the norm's, and the one it has of its own.
    DEVICE static Numbers<V> with_own(Numbers<V> d, const Stored<V, typename V::grad_hidden>& own) {
        if constexpr (V::grad_hidden::PRESENT) {
            const Numbers<V> beside = widened<V>(own);
            UNROLL for (int k = 0; k < V::WIDTH; ++k) {
                d.at[k] = d.at[k] + beside.at[k];
            }
        }
        return d;
    }

    // Of the columns from `col` on; zeros from column `end` on.
    DEVICE static Kept load(const Params<V>& p, const Place<V>& row, I col, I end) {
        if constexpr (V::HAS_INNER) {
            return with_inner(p, row, col, end, load_quad<V, Input>(p, row, col, end));
        } else if constexpr (IS_MADE) {
            return made(p, load_stored<V, Input>(p, row, col, end), load_stored<V, Other>(p, row, col, end),
                        branch(p, row, col, end), kept_columns(p, row, col));
        } else {
            return load_stored<V, Input>(p, row, col, end);
        }
    }

    DEVICE static Numbers<V> numbers(const Params<V>& p, const Place<V>& row, I col, I end) {
        return widened<V>(load(p, row, col, end));
    }

    template <class O> DEVICE static F one_of(const Params<V>& p, const Place<V>& row, I col) {
        if constexpr (O::PRESENT) {
            return device::widen_to<F>(device::load<typename O::T, 1>(element<V, O>(p, row, col)).at[0]);
        } else {
            return F(0);
        }
    }

    // Of one column.
    DEVICE static F one(const Params<V>& p, const Place<V>& row, I col) {
        F x = one_of<Input>(p, row, col);
        if constexpr (V::HAS_INNER) {
            x = of_inner(p, row.inner, x, one_of<Weight>(p, row, col), one_of<Bias>(p, row, col));
            const F other = one_of<Other>(p, row, col);
            return hidden(p, x, of_residual(p, row, other, one_of<typename V::mix_weight>(p, row, col)));
        } else if constexpr (IS_MADE) {
            if constexpr (Shift::PRESENT) {
                x = x + one_of<Shift>(p, row, col);
            }
            x = (kept_columns(p, row, col) & 1) != 0 ? x : F(0);
            if constexpr (Factor::PRESENT) {
                x = x * one_of<Factor>(p, row, col);
            }
            return hidden(p, x, one_of<Other>(p, row, col));
        } else {
            return x;
        }
    }

    // Writes the gradients of the input and of the other operand, `d` being the norm's of the hidden value, which has one of
    // its own.
    DEVICE static void store_gradients(const Params<V>& p, const Place<V>& row, I col, I end, Numbers<V> d,
                                       const Stored<V, typename V::grad_hidden>& own) {
        d = with_own(d, own);
        Numbers<V> of_other = d;
        if constexpr (IS_RESIDUAL) {
            if constexpr (V::BEFORE == Before::ScaledResidual) {
                UNROLL for (int k = 0; k < V::WIDTH; ++k) {
                    of_other.at[k] = d.at[k] * p.s.residual_scale;
                }
            }
            d = scaled(inside(p, d, kept_columns(p, row, col)), branch(p, row, col, end));
        } else if constexpr (V::BEFORE == Before::Gate) {
            // Read again: what they made does not say what they were.
            const Numbers<V> x = load_quad<V, Input>(p, row, col, end), z = load_quad<V, Other>(p, row, col, end);
            UNROLL for (int k = 0; k < V::WIDTH; ++k) {
                const ValueAndSlope<F> s = silu_and_slope(z.at[k]);
                of_other.at[k] = (d.at[k] * x.at[k]) * s.slope;
                d.at[k] = d.at[k] * s.value;
            }
        }
        if constexpr (V::grad_input::PRESENT) {
            store_quad<V, typename V::grad_input>(p, row, col, end, d);
        }
        if constexpr (V::grad_before::PRESENT) {
            store_quad<V, typename V::grad_before>(p, row, col, end, of_other);
        }
    }
};

// The output and its gradient.
template <class V> struct Epilogue {
    using F = typename V::F;
    using Other = typename V::after;
    using OfOther = typename V::grad_after;
    static constexpr bool IS_ACTIVATION = V::AFTER == After::Relu || V::AFTER == After::Silu || V::AFTER == After::Gelu ||
                                          V::AFTER == After::GeluTanh;
    // The output's gradient is not that of what the norm gives.
    static constexpr bool CHANGES_GRADIENT = IS_ACTIVATION || V::AFTER == After::Gate || Rotary<V>::IS_THERE;
    // A backward pass needs what the norm gave, and that of elements that a mask leaves out, too.
    static constexpr bool NEEDS_VALUE = IS_ACTIVATION || (OfOther::PRESENT && V::AFTER == After::Gate);

    // Of what the norm gives, and the other operand's element.
    DEVICE static F output(F v, F other) {
        if constexpr (V::AFTER == After::Relu) {
            return v <= F(0) ? F(0) : v;
        } else if constexpr (V::AFTER == After::Silu) {
            return silu(v);
        } else if constexpr (V::AFTER == After::Gelu) {
            return gelu(v);
        } else if constexpr (V::AFTER == After::GeluTanh) {
            return gelu_tanh(v);
        } else if constexpr (V::AFTER == After::Residual) {
            return other + v;
        } else if constexpr (V::AFTER == After::Gate) {
            return v * silu(other);
        } else {
            return v;
        }
    }

    // Gradients of what the norm gave, and of the other operand.
    struct Gradients {
        F of_value, of_other;
    };

    DEVICE static Gradients gradients(F g, F v, F other) {
        if constexpr (V::AFTER == After::Relu) {
            return {v <= F(0) ? F(0) : g, F(0)};
        } else if constexpr (V::AFTER == After::Silu) {
            return {g * silu_and_slope(v).slope, F(0)};
        } else if constexpr (V::AFTER == After::Gelu) {
            return {g * gelu_slope(v), F(0)};
        } else if constexpr (V::AFTER == After::GeluTanh) {
            return {g * gelu_tanh_slope(v), F(0)};
        } else if constexpr (V::AFTER == After::Gate) {
            const ValueAndSlope<F> s = silu_and_slope(other);
            return {g * s.value, (g * v) * s.slope};
        } else {
            return {g, g};
        }
    }
};

// What the norm gives of a normalized value.
template <class V> DEVICE typename V::F scaled_and_shifted(const Params<V>& p, typename V::F x, typename V::F weight,
                                                           typename V::F bias) {
    return scaled_and_shifted_by<typename V::weight, typename V::bias, V::OFFSET>(x, weight, bias, p.s.weight_offset);
}
