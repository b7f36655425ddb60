/* Bad input, one thing at a time: a status, a message that names the argument, and nothing written. */

#include "support.h"

static const int64_t SHAPE[] = {2, 4}, LAST[] = {4}, LONGER[] = {5}, NEGATIVE[] = {2, -4}, ROWS[] = {2, 4};
static float DATA[8] = {1, 2, 3, 4, 5, 6, 7, 9}, OUTPUT[8], WEIGHT[4] = {1, 1, 1, 1}, STATISTICS[8];
static double DOUBLES[8];

static void check_refused(int32_t status, int line, const char *name) {
    const char *message = normkit_last_error_message();
    const size_t length = strlen(name);
    if (status != NORMKIT_STATUS_INVALID_ARGUMENT || strncmp(message, name, length) != 0 || message[length] != ':') {
        fprintf(stderr, "line %d: %s, \"%s\", which should be about %s\n", line, normkit_status_name(status), message, name);
        exit(1);
    }
    for (int i = 0; i < 8; i++) CHECK(OUTPUT[i] == 0 && STATISTICS[i] == 0);
}
#define REFUSED(name, call) check_refused((call), __LINE__, name)

static normkit_layer_norm_options layer_norm_options(void) {
    normkit_layer_norm_options options;
    OK(normkit_layer_norm_options_init(&options, sizeof options));
    options.normalized_shape = LAST;
    options.normalized_ndim = 1;
    return options;
}

/* One option of a norm is wrong. The norm is NULL then, whatever it was. */
#define BAD_OPTION(method, name, setup, wrong)                                          \
    do {                                                                                \
        normkit_##method##_options options;                                             \
        OK(normkit_##method##_options_init(&options, sizeof options));                  \
        setup;                                                                          \
        normkit_norm *norm;                                                             \
        OK(normkit_##method##_new(&options, &norm));                                    \
        normkit_norm_free(norm);                                                        \
        wrong;                                                                          \
        norm = (normkit_norm *)&options;                                                \
        REFUSED(name, normkit_##method##_new(&options, &norm));                         \
        CHECK(norm == NULL);                                                            \
    } while (0)

static void check_options(void) {
    normkit_norm *norm = NULL;
    normkit_layer_norm_options layer = layer_norm_options();
    REFUSED("options", normkit_layer_norm_new(NULL, &norm));
    REFUSED("norm", normkit_layer_norm_new(&layer, NULL));
    REFUSED("options", normkit_layer_norm_options_init(NULL, sizeof layer));
    REFUSED("struct_size", normkit_layer_norm_options_init(&layer, sizeof layer - 8));
    REFUSED("struct_size", normkit_fusion_options_init((normkit_fusion_options *)&layer, 0));

#define SHAPED (options.normalized_shape = LAST, options.normalized_ndim = 1)
    BAD_OPTION(layer_norm, "options.struct_size", SHAPED, options.struct_size = 0);
    BAD_OPTION(layer_norm, "options.struct_size", SHAPED, options.struct_size += 8);
    BAD_OPTION(layer_norm, "normalized_shape", SHAPED, options.normalized_shape = NULL);
    BAD_OPTION(layer_norm, "normalized_shape", SHAPED, options.normalized_shape = NEGATIVE; options.normalized_ndim = 2);
    BAD_OPTION(layer_norm, "normalized_ndim", SHAPED, options.normalized_ndim = 0);
    BAD_OPTION(layer_norm, "normalized_ndim", SHAPED, options.normalized_ndim = -1);
    BAD_OPTION(layer_norm, "normalized_ndim", SHAPED, options.normalized_ndim = INT32_MAX);
    BAD_OPTION(layer_norm, "eps", SHAPED, options.eps = -1);
    BAD_OPTION(layer_norm, "eps", SHAPED, options.eps = NAN);
    BAD_OPTION(layer_norm, "weight_offset", SHAPED, options.weight_offset = INFINITY);
    BAD_OPTION(rms_norm, "eps", SHAPED, options.eps = -1);
    BAD_OPTION(rms_norm, "partial", SHAPED, options.partial = 0);
    BAD_OPTION(rms_norm, "partial", SHAPED, options.partial = NAN);
    BAD_OPTION(rms_norm, "eps_position", SHAPED, options.eps_position = 2);
    BAD_OPTION(rms_norm, "cast", SHAPED, options.cast = -1);
    BAD_OPTION(rms_norm, "weight_offset", SHAPED, options.cast = NORMKIT_CAST_GEMMA; options.weight_offset = 0.5);
    BAD_OPTION(dyt, "normalized_ndim", SHAPED, options.normalized_ndim = 0);
    BAD_OPTION(dyt, "normalized_ndim", SHAPED, options.num_channels = 4);
    BAD_OPTION(dyt, "num_channels", options.num_channels = 4, options.num_channels = -4);
    BAD_OPTION(dyt, "reserved", SHAPED, options.reserved = 1);
    BAD_OPTION(batch_norm, "num_features", options.num_features = 4, options.num_features = 0);
    BAD_OPTION(batch_norm, "num_features", options.num_features = 4, options.num_features = -1);
    BAD_OPTION(batch_norm, "eps", options.num_features = 4, options.eps = -1);
    BAD_OPTION(group_norm, "num_groups", (options.num_channels = 4, options.num_groups = 2), options.num_groups = 3);
    BAD_OPTION(group_norm, "num_groups", (options.num_channels = 4, options.num_groups = 2), options.num_groups = -1);
    BAD_OPTION(group_norm, "num_channels", (options.num_channels = 4, options.num_groups = 2), options.num_channels = 0);
    BAD_OPTION(instance_norm, "num_features", options.num_features = 4, options.num_features = 0);
    BAD_OPTION(qk_norm, "kind", options.kind = 0, options.kind = 3);
    BAD_OPTION(qk_norm, "eps", options.kind = 0, options.eps = -1);
    BAD_OPTION(weight_norm, "dim", options.dim = 1, options.dim = -2);
    BAD_OPTION(weight_norm, "dim", options.dim = 1, options.dim = INT64_MAX);
    BAD_OPTION(normalize, "dim", options.dim = -1, options.dim = INT64_MIN);
    BAD_OPTION(normalize, "p", options.p = 3, options.p = 0.5);
    BAD_OPTION(normalize, "p", options.p = 3, options.p = NAN);

    normkit_fusion_options fusion;
    OK(normkit_fusion_options_init(&fusion, sizeof fusion));
#define FUSED (SHAPED, options.fusion = &fusion)
    BAD_OPTION(rms_norm, "fusion.prologue", FUSED, fusion.prologue = 3);
    fusion.prologue = NORMKIT_PROLOGUE_NONE;
    BAD_OPTION(rms_norm, "fusion.epilogue", FUSED, fusion.epilogue = 7);
    fusion.epilogue = NORMKIT_EPILOGUE_NONE;
    BAD_OPTION(rms_norm, "fusion.dropout_probability", FUSED, fusion.dropout_probability = 0.5);
    fusion.prologue = NORMKIT_PROLOGUE_RESIDUAL;
    BAD_OPTION(rms_norm, "fusion.dropout_probability", FUSED, fusion.dropout_probability = 1);
    fusion.dropout_probability = 0;
    BAD_OPTION(rms_norm, "fusion.input_scale", FUSED, fusion.input_scale = NAN);
    fusion.input_scale = 1;
    BAD_OPTION(rms_norm, "fusion.struct_size", FUSED, fusion.struct_size--);
}

static normkit_context *CONTEXT;

static normkit_tensor floats(float *data, int32_t ndim, const int64_t *shape) {
    return (normkit_tensor){.data = data, .dtype = NORMKIT_DTYPE_F32, .ndim = ndim, .shape = shape};
}

/* One field of a tensor or of the arguments is wrong. */
static void check_forward(const normkit_norm *norm) {
    normkit_tensor input, output, weight, statistics;
    normkit_forward_arguments a;
#define FORWARD(name, wrong)                                                                             \
    do {                                                                                                 \
        input = floats(DATA, 2, SHAPE), output = floats(OUTPUT, 2, SHAPE), weight = floats(WEIGHT, 1, LAST); \
        statistics = floats(STATISTICS, 2, ROWS);                                                        \
        a = (normkit_forward_arguments){.struct_size = sizeof a, .input = &input, .output = &output,     \
                                        .weight = &weight, .statistics = &statistics};                   \
        wrong;                                                                                           \
        REFUSED(name, normkit_forward(norm, CONTEXT, &a));                                               \
    } while (0)
    REFUSED("arguments", normkit_forward(norm, CONTEXT, NULL));
    FORWARD("arguments.struct_size", a.struct_size = 8);
    FORWARD("arguments.struct_size", a.struct_size = SIZE_MAX);
    FORWARD("input", a.input = NULL);
    FORWARD("output", a.output = NULL);
    FORWARD("input.data", input.data = NULL);
    FORWARD("input.data", input.data = (char *)DATA + 1);
    FORWARD("input.dtype", input.dtype = 0);
    FORWARD("input.dtype", input.dtype = 5);
    FORWARD("input.dtype", input.dtype = INT32_MIN);
    FORWARD("input.ndim", input.ndim = -1);
    FORWARD("input.ndim", input.ndim = NORMKIT_MAX_NDIM + 1);
    FORWARD("input.ndim", input.ndim = INT32_MAX);
    FORWARD("input.shape", input.shape = NULL);
    FORWARD("input.shape", input.shape = NEGATIVE);
    const int64_t huge[] = {INT64_MAX, 4}, far[] = {INT64_MAX, 1}, low[] = {INT64_MIN, 1};
    FORWARD("input", input.shape = huge);
    FORWARD("input", input.strides = far);
    FORWARD("input", input.strides = low);
    FORWARD("input", input.shape = LONGER; input.ndim = 1);
    FORWARD("output.data", output.data = NULL);
    FORWARD("output", output.shape = LONGER; output.ndim = 1);
    FORWARD("output", output.dtype = NORMKIT_DTYPE_F64; output.data = DOUBLES);
    const int64_t zeros[] = {0, 1}, shifted[] = {1, 4};
    FORWARD("output", output.strides = zeros);
    FORWARD("output", input.shape = shifted; output.shape = shifted; output.data = DATA + 1; a.statistics = NULL);
    FORWARD("weight", weight.shape = LONGER; weight.data = DATA);
    FORWARD("weight", weight.dtype = NORMKIT_DTYPE_F64; weight.data = DOUBLES);
    FORWARD("bias", weight.shape = LONGER; weight.data = DATA; a.bias = &weight; a.weight = NULL);
    FORWARD("alpha", a.alpha = &weight);
    FORWARD("mask", weight.shape = LONGER; weight.data = DATA; a.mask = &weight; a.weight = NULL);
    FORWARD("before", a.before = &input);
    FORWARD("after", a.after = &input);
    FORWARD("hidden", a.hidden = &statistics; a.statistics = NULL);
    FORWARD("running_mean", a.running_mean = &weight);
    FORWARD("running_var", a.running_var = &weight);
    FORWARD("statistics", statistics.shape = LAST; statistics.ndim = 1);
    FORWARD("statistics", statistics.dtype = NORMKIT_DTYPE_F64; statistics.data = DOUBLES);
}

static void check_backward(const normkit_norm *norm) {
    normkit_tensor input, grad_output, grad, weight, grad_weight, statistics;
    normkit_backward_arguments a;
    static float saved[8];
#define BACKWARD(name, wrong)                                                                                \
    do {                                                                                                     \
        input = grad_output = floats(DATA, 2, SHAPE), grad = floats(OUTPUT, 2, SHAPE);                       \
        weight = floats(WEIGHT, 1, LAST), grad_weight = floats(STATISTICS, 1, LAST), statistics = floats(saved, 2, ROWS); \
        a = (normkit_backward_arguments){.struct_size = sizeof a, .input = &input, .grad_output = &grad_output, \
                                         .statistics = &statistics, .weight = &weight, .grad_input = &grad,  \
                                         .grad_weight = &grad_weight};                                       \
        wrong;                                                                                               \
        REFUSED(name, normkit_backward(norm, CONTEXT, &a));                                                  \
    } while (0)
    REFUSED("arguments", normkit_backward(norm, CONTEXT, NULL));
    BACKWARD("arguments.struct_size", a.struct_size--);
    BACKWARD("input", a.input = NULL);
    BACKWARD("grad_output", a.grad_output = NULL);
    BACKWARD("grad_output.dtype", grad_output.dtype = -1);
    BACKWARD("grad_output", grad_output.dtype = NORMKIT_DTYPE_F64; grad_output.data = DOUBLES);
    BACKWARD("statistics", a.statistics = NULL);
    BACKWARD("statistics.data", statistics.data = NULL);
    BACKWARD("grad_input.data", grad.data = NULL);
    BACKWARD("grad_weight", a.weight = NULL);
    BACKWARD("grad_weight", grad_weight.shape = SHAPE; grad_weight.ndim = 2);
    BACKWARD("grad_bias", a.grad_bias = &grad_weight; a.grad_weight = NULL);
    BACKWARD("grad_alpha", a.grad_alpha = &grad_weight; a.grad_weight = NULL);
    BACKWARD("grad_before", a.grad_before = &grad; a.grad_input = NULL);
    BACKWARD("grad_after", a.grad_after = &grad; a.grad_input = NULL);
    BACKWARD("grad_hidden", a.grad_hidden = &grad_output);
    BACKWARD("grad_weight", grad_weight.data = OUTPUT);
    BACKWARD("running_mean", a.running_mean = &weight);
}

/* What methods with more operands ask for. */
static void check_operands(void) {
    normkit_tensor input = floats(DATA, 2, SHAPE), output = floats(OUTPUT, 2, SHAPE), four = floats(WEIGHT, 1, LAST);
    normkit_tensor statistics = floats(STATISTICS, 2, ROWS);
    normkit_forward_arguments a = {.struct_size = sizeof a, .input = &input, .output = &output};
    normkit_backward_arguments b = {.struct_size = sizeof b, .input = &input, .grad_output = &input, .grad_input = &output};
    normkit_norm *norm;

    normkit_dyt_options dyt;
    OK(normkit_dyt_options_init(&dyt, sizeof dyt));
    dyt.normalized_shape = LAST;
    dyt.normalized_ndim = 1;
    OK(normkit_dyt_new(&dyt, &norm));
    REFUSED("alpha", normkit_forward(norm, CONTEXT, &a));
    a.alpha = &four;
    REFUSED("alpha", normkit_forward(norm, CONTEXT, &a));
    four.ndim = 0;
    a.mask = &input;
    REFUSED("mask", normkit_forward(norm, CONTEXT, &a));
    a.mask = NULL;
    a.statistics = &statistics;
    REFUSED("statistics", normkit_forward(norm, CONTEXT, &a));
    int64_t shape[2] = {9, 9};
    int32_t dtype;
    OK(normkit_statistics_shape(norm, &input, shape, &dtype));
    CHECK(shape[0] == 0 && shape[1] == 0);
    REFUSED("norm", normkit_statistics_shape(NULL, &input, shape, &dtype));
    REFUSED("input", normkit_statistics_shape(norm, NULL, shape, &dtype));
    REFUSED("shape", normkit_statistics_shape(norm, &input, NULL, &dtype));
    REFUSED("dtype", normkit_statistics_shape(norm, &input, shape, NULL));
    normkit_norm_free(norm);
    four.ndim = 1;
    a.alpha = a.statistics = NULL;

    normkit_batch_norm_options batch;
    OK(normkit_batch_norm_options_init(&batch, sizeof batch));
    batch.num_features = 4;
    OK(normkit_batch_norm_new(&batch, &norm));
    a.running_mean = &four;
    REFUSED("running_var", normkit_forward(norm, CONTEXT, &a));
    a.running_var = &four;
    REFUSED("running_var", normkit_forward(norm, CONTEXT, &a));
    b.running_mean = b.running_var = &four;
    b.statistics = &statistics;
    REFUSED("running_mean", normkit_backward(norm, CONTEXT, &b));
    normkit_norm_free(norm);
    batch.training = 0;
    OK(normkit_batch_norm_new(&batch, &norm));
    REFUSED("statistics", normkit_backward(norm, CONTEXT, &b));
    a.running_mean = a.running_var = NULL;
    REFUSED("running_mean", normkit_forward(norm, CONTEXT, &a));
    normkit_tensor wide = four;
    wide.dtype = NORMKIT_DTYPE_F64;
    wide.data = DOUBLES;
    a.running_mean = a.running_var = &wide;
    REFUSED("running_mean", normkit_forward(norm, CONTEXT, &a));
    normkit_norm_free(norm);
    /* More channels than there is memory for are refused before any is asked for. */
    batch.num_features = INT64_MAX / 64;
    OK(normkit_batch_norm_new(&batch, &norm));
    a.running_mean = a.running_var = &four;
    REFUSED("input", normkit_forward(norm, CONTEXT, &a));
    normkit_norm_free(norm);
    a.running_mean = a.running_var = NULL;

    normkit_fusion_options fusion;
    OK(normkit_fusion_options_init(&fusion, sizeof fusion));
    fusion.prologue = NORMKIT_PROLOGUE_RESIDUAL;
    fusion.epilogue = NORMKIT_EPILOGUE_GATE;
    normkit_layer_norm_options layer = layer_norm_options();
    layer.fusion = &fusion;
    OK(normkit_layer_norm_new(&layer, &norm));
    REFUSED("before", normkit_forward(norm, CONTEXT, &a));
    a.before = &input;
    REFUSED("after", normkit_forward(norm, CONTEXT, &a));
    a.after = &four;
    REFUSED("after", normkit_forward(norm, CONTEXT, &a));
    a.after = &input;
    a.before = &four;
    REFUSED("before", normkit_forward(norm, CONTEXT, &a));
    normkit_norm_free(norm);
}

/* Of the library's tests, not of its header. */
int32_t normkit_provoke_panic(void);

int main(void) {
    CHECK(normkit_last_error_message()[0] == 0);
    CHECK(normkit_abi_version() == NORMKIT_ABI_VERSION && strchr(normkit_version(), '.') != NULL);
    CHECK(strcmp(normkit_status_name(NORMKIT_STATUS_NO_DEVICE), "NORMKIT_STATUS_NO_DEVICE") == 0);
    CHECK(strcmp(normkit_status_name(-1), "unknown") == 0 && strcmp(normkit_status_name(99), "unknown") == 0);
    normkit_norm_free(NULL);
    normkit_context_free(NULL);
    REFUSED("context", normkit_context_new_cpu(0, NULL));
    CONTEXT = (normkit_context *)DATA;
    REFUSED("threads", normkit_context_new_cpu(-1, &CONTEXT));
    CHECK(CONTEXT == NULL);
    REFUSED("ordinal", normkit_context_new_cuda(-1, NULL, &CONTEXT));
    REFUSED("context", normkit_context_synchronize(NULL));
    REFUSED("other", normkit_context_new_on_stream(NULL, NULL, &CONTEXT));
    check_options();

    OK(normkit_context_new_cpu(1, &CONTEXT));
    normkit_context *other;
    REFUSED("context", normkit_context_new_on_stream(CONTEXT, NULL, &other));
    normkit_norm *norm;
    const normkit_layer_norm_options options = layer_norm_options();
    OK(normkit_layer_norm_new(&options, &norm));
    normkit_forward_arguments none = {.struct_size = sizeof none};
    REFUSED("norm", normkit_forward(NULL, CONTEXT, &none));
    REFUSED("context", normkit_forward(norm, NULL, &none));
    check_forward(norm);
    check_backward(norm);
    check_operands();

    /* A panic becomes a status, and the handles still work. */
    CHECK(normkit_provoke_panic() == NORMKIT_STATUS_INTERNAL);
    CHECK(strstr(normkit_last_error_message(), "provoked") != NULL);
    normkit_tensor input = floats(DATA, 2, SHAPE), output = floats(OUTPUT, 2, SHAPE);
    none.input = &input;
    none.output = &output;
    OK(normkit_forward(norm, CONTEXT, &none));
    CHECK(OUTPUT[7] > 1);
    normkit_norm_free(norm);
    normkit_context_free(CONTEXT);
    return 0;
}
