/* A context of the CUDA kernels, run by the host driver: the CPU's bits. And a GPU that there is not. */

#include "support.h"

static const int64_t SHAPE[] = {5, 40}, LAST[] = {40}, ROWS[] = {5, 4};

static void run(const normkit_norm *norm, const normkit_context *context, stored *y, stored *grad_x, stored *grad_weight) {
    array a = make_array(1, 2, SHAPE), b = make_array(2, 1, LAST), c = make_array(3, 2, SHAPE);
    stored x = store_array(&a, NORMKIT_DTYPE_F32, 1), weight = store_array(&b, NORMKIT_DTYPE_F32, 0);
    stored g = store_array(&c, NORMKIT_DTYPE_F32, 0), statistics = make_stored(2, ROWS, NORMKIT_DTYPE_F32, 0);
    *y = make_stored(2, SHAPE, NORMKIT_DTYPE_F32, 0);
    *grad_x = make_stored(2, SHAPE, NORMKIT_DTYPE_F32, 0);
    *grad_weight = make_stored(1, LAST, NORMKIT_DTYPE_F32, 0);
    normkit_forward_arguments forward = {.struct_size = sizeof forward, .input = tensor(&x), .weight = tensor(&weight),
                                         .output = tensor(y), .statistics = tensor(&statistics)};
    OK(normkit_forward(norm, context, &forward));
    normkit_backward_arguments backward = {
        .struct_size = sizeof backward,
        .grad_output = tensor(&g),
        .input = tensor(&x),
        .statistics = tensor(&statistics),
        .weight = tensor(&weight),
        .grad_input = tensor(grad_x),
        .grad_weight = tensor(grad_weight),
    };
    OK(normkit_backward(norm, context, &backward));
    OK(normkit_context_synchronize(context));
    double *values[] = {a.values, b.values, c.values};
    char *memory[] = {x.memory, weight.memory, g.memory, statistics.memory};
    for (int i = 0; i < 3; i++) free(values[i]);
    for (int i = 0; i < 4; i++) free(memory[i]);
}

int main(void) {
    normkit_context *cpu, *host, *sibling, *none;
    OK(normkit_context_new_cpu(1, &cpu));
    OK(normkit_context_new_cuda_host(&host));
    OK(normkit_context_new_on_stream(host, NULL, &sibling));
    CHECK(normkit_context_new_cuda(4711, NULL, &none) != NORMKIT_STATUS_OK && none == NULL);
    normkit_layer_norm_options options;
    OK(normkit_layer_norm_options_init(&options, sizeof options));
    options.normalized_shape = LAST;
    options.normalized_ndim = 1;
    normkit_norm *norm;
    OK(normkit_layer_norm_new(&options, &norm));
    normkit_context *contexts[] = {cpu, host, sibling};
    stored results[3][3];
    for (int i = 0; i < 3; i++) run(norm, contexts[i], &results[i][0], &results[i][1], &results[i][2]);
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) {
            CHECK(memcmp(results[i][j].memory, results[0][j].memory, results[0][j].n * 4) == 0);
        }
    }
    for (int i = 0; i < 9; i++) free(results[i / 3][i % 3].memory);
    for (int i = 0; i < 3; i++) normkit_context_free(contexts[i]);
    normkit_norm_free(norm);
    return 0;
}
