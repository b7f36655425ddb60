/* What calls do beside the values of each method: hidden values and their gradients, masks, running statistics, dropout, results in
 * place, and tensors without elements. */

#include "support.h"

static const int64_t SHAPE[] = {3, 8}, LAST[] = {8};

static normkit_norm *rms_norm(const normkit_fusion_options *fusion) {
    normkit_rms_norm_options options;
    OK(normkit_rms_norm_options_init(&options, sizeof options));
    options.normalized_shape = LAST;
    options.normalized_ndim = 1;
    options.eps = 1e-6;
    options.fusion = fusion;
    normkit_norm *norm;
    OK(normkit_rms_norm_new(&options, &norm));
    return norm;
}

static stored random_tensor(uint64_t seed, int ndim, const int64_t *shape, int32_t dtype) {
    array a = make_array(seed, ndim, shape);
    stored s = store_array(&a, dtype, 0);
    free(a.values);
    return s;
}

/* h = x + r in float32 beside a bfloat16 branch; the gradient of h is added to that of both. */
static void check_hidden(const normkit_context *context) {
    normkit_fusion_options fusion;
    OK(normkit_fusion_options_init(&fusion, sizeof fusion));
    fusion.prologue = NORMKIT_PROLOGUE_RESIDUAL;
    normkit_norm *norm = rms_norm(&fusion);
    stored x = random_tensor(1, 2, SHAPE, NORMKIT_DTYPE_BF16), r = random_tensor(2, 2, SHAPE, NORMKIT_DTYPE_F32);
    stored y = make_stored(2, SHAPE, NORMKIT_DTYPE_BF16, 0), h = make_stored(2, SHAPE, NORMKIT_DTYPE_F32, 0);
    int64_t rows[2];
    int32_t dtype;
    OK(normkit_statistics_shape(norm, tensor(&x), rows, &dtype));
    CHECK(rows[0] == 3 && rows[1] == 4 && dtype == NORMKIT_DTYPE_F32);
    stored statistics = make_stored(2, rows, dtype, 0);
    normkit_forward_arguments forward = {
        .struct_size = sizeof forward,
        .input = tensor(&x),
        .before = tensor(&r),
        .output = tensor(&y),
        .hidden = tensor(&h),
        .statistics = tensor(&statistics),
    };
    OK(normkit_forward(norm, context, &forward));
    for (size_t i = 0; i < x.n; i++) CHECK(load(&h, i) == load(&x, i) + load(&r, i));

    stored g = random_tensor(3, 2, SHAPE, NORMKIT_DTYPE_BF16), of_h = random_tensor(4, 2, SHAPE, NORMKIT_DTYPE_F32);
    stored without = make_stored(2, SHAPE, NORMKIT_DTYPE_F32, 0), with = make_stored(2, SHAPE, NORMKIT_DTYPE_F32, 0);
    normkit_backward_arguments backward = {
        .struct_size = sizeof backward,
        .grad_output = tensor(&g),
        .input = tensor(&x),
        .before = tensor(&r),
        .statistics = tensor(&statistics),
        .grad_before = tensor(&without),
    };
    OK(normkit_backward(norm, context, &backward));
    backward.grad_hidden = tensor(&of_h);
    backward.grad_before = tensor(&with);
    OK(normkit_backward(norm, context, &backward));
    for (size_t i = 0; i < x.n; i++) CHECK(fabs(load(&with, i) - load(&without, i) - load(&of_h, i)) < 1e-6);

    /* The hidden value stands for both: float32 beside float32 is exact. */
    stored wide = make_stored(2, SHAPE, NORMKIT_DTYPE_F32, 0), from_h = make_stored(2, SHAPE, NORMKIT_DTYPE_F32, 0);
    for (size_t i = 0; i < g.n; i++) store(&wide, i, load(&g, i));
    backward.grad_output = tensor(&wide);
    backward.input = tensor(&h);
    backward.before = NULL;
    backward.grad_before = tensor(&from_h);
    OK(normkit_backward(norm, context, &backward));
    for (size_t i = 0; i < x.n; i++) CHECK(load(&from_h, i) == load(&with, i));

    /* In place: the output over the input, the hidden value over the residual. */
    stored kept_y = y, kept_h = h;
    y = make_stored(2, SHAPE, NORMKIT_DTYPE_BF16, 0);
    for (size_t i = 0; i < x.n; i++) store(&y, i, load(&x, i));
    forward.input = forward.output = tensor(&y);
    forward.hidden = tensor(&r);
    OK(normkit_forward(norm, context, &forward));
    for (size_t i = 0; i < x.n; i++) CHECK(load(&y, i) == load(&kept_y, i) && load(&r, i) == load(&kept_h, i));
    stored *all[] = {&x, &r, &y, &kept_y, &kept_h, &statistics, &g, &of_h, &without, &with, &wide, &from_h};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]->memory);
    normkit_norm_free(norm);
}

/* Elements that dropout leaves out are not added to the residual; the same ones every time. */
static void check_dropout(const normkit_context *context) {
    normkit_fusion_options fusion;
    OK(normkit_fusion_options_init(&fusion, sizeof fusion));
    fusion.prologue = NORMKIT_PROLOGUE_RESIDUAL;
    fusion.dropout_probability = 0.5;
    fusion.dropout_seed = 7;
    normkit_norm *norm = rms_norm(&fusion);
    const int64_t many[] = {100, 8};
    stored x = random_tensor(1, 2, many, NORMKIT_DTYPE_F32), r = random_tensor(2, 2, many, NORMKIT_DTYPE_F32);
    stored y = make_stored(2, many, NORMKIT_DTYPE_F32, 0), h = make_stored(2, many, NORMKIT_DTYPE_F32, 0);
    normkit_forward_arguments forward = {
        .struct_size = sizeof forward,
        .input = tensor(&x),
        .before = tensor(&r),
        .output = tensor(&y),
        .hidden = tensor(&h),
    };
    OK(normkit_forward(norm, context, &forward));
    size_t kept = 0;
    for (size_t i = 0; i < x.n; i++) {
        const double t = load(&h, i) - load(&r, i);
        CHECK(t == 0 || t == 2 * load(&x, i));
        kept += t != 0;
    }
    CHECK(kept > 300 && kept < 500);
    stored *all[] = {&x, &r, &y, &h};
    for (size_t i = 0; i < 4; i++) free(all[i]->memory);
    normkit_norm_free(norm);
}

/* A row of which only some elements take part is the row of those. */
static void check_mask(const normkit_context *context) {
    normkit_norm *norm = rms_norm(NULL);
    stored x = random_tensor(1, 2, SHAPE, NORMKIT_DTYPE_F64), y = make_stored(2, SHAPE, NORMKIT_DTYPE_F64, 0);
    stored mask = make_stored(1, LAST, NORMKIT_DTYPE_F64, 0);
    for (size_t i = 0; i < mask.n; i++) store(&mask, i, i % 3 != 0);
    normkit_forward_arguments forward = {
        .struct_size = sizeof forward, .input = tensor(&x), .mask = tensor(&mask), .output = tensor(&y)};
    OK(normkit_forward(norm, context, &forward));
    for (size_t row = 0; row < 3; row++) {
        double squares = 0, used = 0;
        for (size_t i = 0; i < 8; i++) {
            if (i % 3 == 0) continue;
            squares += load(&x, 8 * row + i) * load(&x, 8 * row + i);
            used++;
        }
        for (size_t i = 0; i < 8; i++) {
            const double expected = i % 3 == 0 ? 0 : load(&x, 8 * row + i) / sqrt(squares / used + 1e-6);
            CHECK(fabs(load(&y, 8 * row + i) - expected) < 1e-12);
        }
    }
    free(x.memory);
    free(y.memory);
    free(mask.memory);
    normkit_norm_free(norm);
}

/* A training pass moves running statistics by the momentum, the variance being the unbiased one. */
static void check_running(const normkit_context *context) {
    normkit_batch_norm_options options;
    OK(normkit_batch_norm_options_init(&options, sizeof options));
    options.num_features = 8;
    normkit_norm *norm;
    OK(normkit_batch_norm_new(&options, &norm));
    stored x = random_tensor(1, 2, SHAPE, NORMKIT_DTYPE_F32), y = make_stored(2, SHAPE, NORMKIT_DTYPE_F32, 0);
    stored mean = random_tensor(2, 1, LAST, NORMKIT_DTYPE_F32), var = random_tensor(3, 1, LAST, NORMKIT_DTYPE_F32);
    stored old_mean = random_tensor(2, 1, LAST, NORMKIT_DTYPE_F32), old_var = random_tensor(3, 1, LAST, NORMKIT_DTYPE_F32);
    normkit_forward_arguments forward = {
        .struct_size = sizeof forward,
        .input = tensor(&x),
        .output = tensor(&y),
        .running_mean = tensor(&mean),
        .running_var = tensor(&var),
        .momentum = 0.25,
    };
    OK(normkit_forward(norm, context, &forward));
    for (size_t c = 0; c < 8; c++) {
        double m = 0, v = 0;
        for (size_t i = 0; i < 3; i++) m += load(&x, 8 * i + c) / 3;
        for (size_t i = 0; i < 3; i++) v += pow(load(&x, 8 * i + c) - m, 2);
        CHECK(fabs(load(&mean, c) - (0.75 * load(&old_mean, c) + 0.25 * m)) < 1e-6);
        CHECK(fabs(load(&var, c) - (0.75 * load(&old_var, c) + 0.25 * v / 2)) < 1e-6);
        for (size_t i = 0; i < 3; i++) {
            CHECK(fabs(load(&y, 8 * i + c) - (load(&x, 8 * i + c) - m) / sqrt(v / 3 + 1e-5)) < 1e-5);
        }
    }
    forward.momentum = INFINITY;
    CHECK(normkit_forward(norm, context, &forward) == NORMKIT_STATUS_INVALID_ARGUMENT);
    CHECK(strncmp(normkit_last_error_message(), "momentum: ", 10) == 0);
    stored *all[] = {&x, &y, &mean, &var, &old_mean, &old_var};
    for (size_t i = 0; i < 6; i++) free(all[i]->memory);
    normkit_norm_free(norm);
}

/* No rows: nothing is read, and the gradient of a weight is zero. */
static void check_empty(const normkit_context *context) {
    normkit_norm *norm = rms_norm(NULL);
    const int64_t none[] = {0, 8}, rows[] = {0, 4};
    const normkit_tensor x = {.dtype = NORMKIT_DTYPE_F32, .ndim = 2, .shape = none};
    const normkit_tensor statistics = {.dtype = NORMKIT_DTYPE_F32, .ndim = 2, .shape = rows};
    stored weight = random_tensor(1, 1, LAST, NORMKIT_DTYPE_F32), grad = random_tensor(2, 1, LAST, NORMKIT_DTYPE_F32);
    normkit_forward_arguments forward = {.struct_size = sizeof forward, .input = &x, .output = &x, .statistics = &statistics};
    OK(normkit_forward(norm, context, &forward));
    normkit_backward_arguments backward = {
        .struct_size = sizeof backward,
        .grad_output = &x,
        .input = &x,
        .statistics = &statistics,
        .weight = tensor(&weight),
        .grad_input = &x,
        .grad_weight = tensor(&grad),
    };
    OK(normkit_backward(norm, context, &backward));
    for (size_t i = 0; i < 8; i++) CHECK(load(&grad, i) == 0);
    free(weight.memory);
    free(grad.memory);
    normkit_norm_free(norm);
}

int main(void) {
    normkit_context *context;
    OK(normkit_context_new_cpu(1, &context));
    check_hidden(context);
    check_dropout(context);
    check_mask(context);
    check_running(context);
    check_empty(context);
    normkit_context_free(context);
    return 0;
}
