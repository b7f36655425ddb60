/* One norm and one context in several threads: each gets the bits that one alone gets, and its own messages. */

#include "support.h"

#include <pthread.h>

enum { THREADS = 4, ROUNDS = 40 };
static const int64_t SHAPE[] = {64, 96}, LAST[] = {96};

typedef struct work {
    const normkit_norm *norm;
    const normkit_context *context;
    int id;
    stored x, weight, y, statistics, grad_input, grad_weight;
} work;

static void run(work *w) {
    const normkit_tensor *x = tensor(&w->x), *weight = tensor(&w->weight), *statistics = tensor(&w->statistics);
    normkit_forward_arguments forward = {
        .struct_size = sizeof forward, .input = x, .weight = weight, .output = tensor(&w->y), .statistics = statistics};
    OK(normkit_forward(w->norm, w->context, &forward));
    normkit_backward_arguments backward = {
        .struct_size = sizeof backward,
        .grad_output = tensor(&w->y),
        .input = x,
        .statistics = statistics,
        .weight = weight,
        .grad_input = tensor(&w->grad_input),
        .grad_weight = tensor(&w->grad_weight),
    };
    OK(normkit_backward(w->norm, w->context, &backward));
}

static void *run_often(void *argument) {
    work *w = argument;
    CHECK(normkit_last_error_message()[0] == 0);
    for (int round = 0; round < ROUNDS; round++) {
        run(w);
        normkit_context *none;
        CHECK(normkit_context_new_cpu(-1 - w->id, &none) == NORMKIT_STATUS_INVALID_ARGUMENT);
        char expected[32];
        snprintf(expected, sizeof expected, "found %d", -1 - w->id);
        CHECK(strstr(normkit_last_error_message(), expected) != NULL);
    }
    return NULL;
}

static work make_work(const normkit_norm *norm, const normkit_context *context, int id) {
    const int64_t rows[] = {64, 4};
    array x = make_array(1, 2, SHAPE), weight = make_array(2, 1, LAST);
    work w = {
        .norm = norm,
        .context = context,
        .id = id,
        .x = store_array(&x, NORMKIT_DTYPE_F32, 0),
        .weight = store_array(&weight, NORMKIT_DTYPE_F32, 0),
        .y = make_stored(2, SHAPE, NORMKIT_DTYPE_F32, 0),
        .statistics = make_stored(2, rows, NORMKIT_DTYPE_F32, 0),
        .grad_input = make_stored(2, SHAPE, NORMKIT_DTYPE_F32, 0),
        .grad_weight = make_stored(1, LAST, NORMKIT_DTYPE_F32, 0),
    };
    free(x.values);
    free(weight.values);
    return w;
}

static void free_work(work *w) {
    stored *all[] = {&w->x, &w->weight, &w->y, &w->statistics, &w->grad_input, &w->grad_weight};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]->memory);
}

int main(void) {
    normkit_layer_norm_options options;
    OK(normkit_layer_norm_options_init(&options, sizeof options));
    options.normalized_shape = LAST;
    options.normalized_ndim = 1;
    normkit_norm *norm;
    OK(normkit_layer_norm_new(&options, &norm));
    /* Contexts of the calling thread, of a pool of their own, and of the process's. */
    const int32_t pools[] = {1, 2, 0};
    normkit_context *alone;
    OK(normkit_context_new_cpu(1, &alone));
    work expected = make_work(norm, alone, 0);
    run(&expected);
    for (size_t p = 0; p < 3; p++) {
        normkit_context *context;
        OK(normkit_context_new_cpu(pools[p], &context));
        pthread_t threads[THREADS];
        work works[THREADS];
        for (int i = 0; i < THREADS; i++) {
            works[i] = make_work(norm, context, i);
            CHECK(pthread_create(&threads[i], NULL, run_often, &works[i]) == 0);
        }
        for (int i = 0; i < THREADS; i++) {
            CHECK(pthread_join(threads[i], NULL) == 0);
            CHECK(memcmp(works[i].y.memory, expected.y.memory, works[i].y.n * 4) == 0);
            CHECK(memcmp(works[i].grad_input.memory, expected.grad_input.memory, works[i].y.n * 4) == 0);
            CHECK(memcmp(works[i].grad_weight.memory, expected.grad_weight.memory, 96 * 4) == 0);
            free_work(&works[i]);
        }
        normkit_context_free(context);
    }
    free_work(&expected);
    normkit_context_free(alone);
    normkit_norm_free(norm);
    return 0;
}
