/* A method on numbers, beside a plain computation of the same: values, gradients of every operand, every layout and dtype. */
#ifndef PROBLEM_H
#define PROBLEM_H

#include "support.h"

enum { INPUT, WEIGHT, BIAS, ALPHA, BEFORE, AFTER, OPERANDS };

typedef struct problem {
    const char *name;
    const normkit_norm *norm;
    array operands[OPERANDS];
    /* The output, from the operands' values. */
    void (*plain)(const struct problem *, double *output);
    /* What plain wants to know beside them. */
    const void *options;
    /* Of batch norms. */
    array running[2];
    int forward_only;
} problem;

/* The gradient of sum(output * weights) with regard to one operand, by central differences of the plain computation. */
static inline void differences(problem *p, int operand, const double *weights, double *gradient) {
    size_t n = count(&p->operands[INPUT]);
    double *up = malloc(n * sizeof *up), *down = malloc(n * sizeof *down);
    CHECK(up != NULL && down != NULL);
    array *a = &p->operands[operand];
    for (size_t i = 0; i < count(a); i++) {
        const double kept = a->values[i], step = 1e-5;
        a->values[i] = kept + step;
        p->plain(p, up);
        a->values[i] = kept - step;
        p->plain(p, down);
        a->values[i] = kept;
        gradient[i] = 0;
        for (size_t j = 0; j < n; j++) gradient[i] += weights[j] * (up[j] - down[j]) / (2 * step);
    }
    free(up);
    free(down);
}

static inline double bound_of(int32_t dtype) {
    return dtype == NORMKIT_DTYPE_F64 ? 1e-8 : dtype == NORMKIT_DTYPE_F32 ? 2e-6 : 1.0 / 128;
}

static inline void check_dtype(problem *p, const normkit_context *context, int32_t dtype, int spread,
                               const double *output, const array *grad_output, double *const gradients[OPERANDS]) {
    stored operand[OPERANDS], running[2], y, g;
    const normkit_tensor *given[OPERANDS] = {0}, *means[2] = {0};
    for (int i = 0; i < OPERANDS; i++) {
        if (p->operands[i].values == NULL) continue;
        operand[i] = store_array(&p->operands[i], dtype, spread);
        given[i] = tensor(&operand[i]);
    }
    for (int i = 0; i < 2; i++) {
        if (p->running[i].values == NULL) continue;
        running[i] = store_array(&p->running[i], dtype, 0);
        means[i] = tensor(&running[i]);
    }
    y = make_stored(p->operands[INPUT].ndim, p->operands[INPUT].shape, dtype, spread);
    g = store_array(grad_output, dtype, spread);

    int64_t shape[2];
    int32_t statistics_dtype;
    OK(normkit_statistics_shape(p->norm, given[INPUT], shape, &statistics_dtype));
    stored statistics = make_stored(2, shape, statistics_dtype, 0);
    const normkit_tensor *saved = shape[1] > 0 ? tensor(&statistics) : NULL;
    normkit_forward_arguments forward = {
        .struct_size = sizeof forward,
        .input = given[INPUT],
        .weight = given[WEIGHT],
        .bias = given[BIAS],
        .alpha = given[ALPHA],
        .before = given[BEFORE],
        .after = given[AFTER],
        .output = tensor(&y),
        .statistics = saved,
        .running_mean = means[0],
        .running_var = means[1],
    };
    OK(normkit_forward(p->norm, context, &forward));
    check_near(p->name, &y, output, bound_of(dtype));

    /* The same without statistics. */
    stored again = make_stored(p->operands[INPUT].ndim, p->operands[INPUT].shape, dtype, 0);
    forward.output = tensor(&again);
    forward.statistics = NULL;
    OK(normkit_forward(p->norm, context, &forward));
    for (size_t i = 0; i < y.n; i++) CHECK(load(&y, i) == load(&again, i));

    /* All gradients, and then each alone, which is to have the same bits. */
    stored all[OPERANDS], alone;
    normkit_backward_arguments backward = {
        .struct_size = sizeof backward,
        .grad_output = tensor(&g),
        .input = given[INPUT],
        .statistics = saved,
        .weight = given[WEIGHT],
        .bias = given[BIAS],
        .alpha = given[ALPHA],
        .before = given[BEFORE],
        .after = given[AFTER],
        .running_mean = means[0],
        .running_var = means[1],
    };
    const normkit_tensor **wanted[OPERANDS] = {
        &backward.grad_input, &backward.grad_weight, &backward.grad_bias,
        &backward.grad_alpha, &backward.grad_before, &backward.grad_after,
    };
    for (int i = 0; i < OPERANDS && !p->forward_only; i++) {
        if (given[i] == NULL) continue;
        all[i] = make_stored(p->operands[i].ndim, p->operands[i].shape, dtype, spread);
        *wanted[i] = tensor(&all[i]);
    }
    if (!p->forward_only) {
        OK(normkit_backward(p->norm, context, &backward));
        for (int i = 0; i < OPERANDS; i++) *wanted[i] = NULL;
        OK(normkit_backward(p->norm, context, &backward));
        for (int i = 0; i < OPERANDS; i++) {
            if (given[i] == NULL) continue;
            static const char *const names[] = {"input", "weight", "bias", "alpha", "before", "after"};
            char what[64];
            snprintf(what, sizeof what, "%s's gradient of %s", p->name, names[i]);
            /* Differences are good to some ten digits. */
            check_near(what, &all[i], gradients[i], fmax(bound_of(dtype), 1e-7) * (dtype == NORMKIT_DTYPE_BF16 ? 2 : 4));
            alone = make_stored(p->operands[i].ndim, p->operands[i].shape, dtype, 0);
            *wanted[i] = tensor(&alone);
            OK(normkit_backward(p->norm, context, &backward));
            *wanted[i] = NULL;
            for (size_t j = 0; j < alone.n; j++) CHECK(load(&alone, j) == load(&all[i], j));
            free(alone.memory);
            free(all[i].memory);
        }
    }
    for (int i = 0; i < OPERANDS; i++) {
        if (given[i] != NULL) free(operand[i].memory);
    }
    for (int i = 0; i < 2; i++) {
        if (means[i] != NULL) free(running[i].memory);
    }
    free(statistics.memory);
    free(y.memory);
    free(again.memory);
    free(g.memory);
}

/* Checks everything about a problem, and frees its norm and its arrays. */
static inline void check_problem(problem *p, const normkit_context *context) {
    size_t n = count(&p->operands[INPUT]);
    array grad_output = make_array(77, p->operands[INPUT].ndim, p->operands[INPUT].shape);
    double *output = malloc(n * sizeof *output), *gradients[OPERANDS] = {0};
    CHECK(output != NULL);
    p->plain(p, output);
    for (int i = 0; i < OPERANDS; i++) {
        if (p->operands[i].values == NULL) continue;
        gradients[i] = malloc(count(&p->operands[i]) * sizeof **gradients);
        CHECK(gradients[i] != NULL);
        differences(p, i, grad_output.values, gradients[i]);
    }
    const int32_t dtypes[] = {NORMKIT_DTYPE_F64, NORMKIT_DTYPE_F32, NORMKIT_DTYPE_BF16};
    for (int d = 0; d < 3; d++) {
        for (int spread = 0; spread < 2; spread++) {
            check_dtype(p, context, dtypes[d], spread, output, &grad_output, gradients);
        }
    }
    for (int i = 0; i < OPERANDS; i++) {
        free(gradients[i]);
        free(p->operands[i].values);
    }
    for (int i = 0; i < 2; i++) free(p->running[i].values);
    free(output);
    free(grad_output.values);
    normkit_norm_free((normkit_norm *)p->norm);
    printf("%s\n", p->name);
}

#endif
