/* Every method's values and gradients against plain computations in double. */

#include "problem.h"

enum rows { TRAILING, CHANNELS, GROUPS, ALONG };
enum statistic { MOMENTS, MEAN_SQUARE, LENGTH };

/* What a plain norm does. */
typedef struct how {
    enum rows rows;
    enum statistic statistic;
    size_t cols;   /* TRAILING: of a row; GROUPS: how many groups; ALONG: the axis. */
    double eps;
    int outside;
    double partial;
    double p;
    double weight_offset;
    int32_t prologue, epilogue;
    double input_scale, residual_scale;
} how;

static size_t axis_index(const array *x, size_t index, int axis) {
    for (int last = x->ndim - 1; last > axis; last--) index /= (size_t)x->shape[last];
    return index % (size_t)x->shape[axis];
}

static size_t row_of(const problem *p, size_t index) {
    const how *o = p->options;
    const array *x = &p->operands[INPUT];
    switch (o->rows) {
    case TRAILING: return index / o->cols;
    case CHANNELS: return axis_index(x, index, 1);
    case GROUPS: {
        size_t of_group = (size_t)x->shape[1] / o->cols;
        return axis_index(x, index, 0) * o->cols + axis_index(x, index, 1) / of_group;
    }
    default: { /* The index without that axis. */
        size_t row = 0;
        for (int axis = 0; axis < x->ndim; axis++) {
            if (axis != (int)o->cols) row = row * (size_t)x->shape[axis] + axis_index(x, index, axis);
        }
        return row;
    }
    }
}

static size_t weight_of(const problem *p, size_t index) {
    const how *o = p->options;
    if (o->rows == TRAILING) return index % o->cols % count(&p->operands[WEIGHT]);
    return axis_index(&p->operands[INPUT], index, 1);
}

static double silu(double z) { return z / (1 + exp(-z)); }

static double epilogue(int32_t kind, double v, double after) {
    switch (kind) {
    case NORMKIT_EPILOGUE_RELU: return fmax(v, 0);
    case NORMKIT_EPILOGUE_SILU: return silu(v);
    case NORMKIT_EPILOGUE_GELU: return v * 0.5 * erfc(-v / sqrt(2));
    case NORMKIT_EPILOGUE_GELU_TANH:
        return v / (1 + exp(-2 * sqrt(2 / 3.14159265358979323846) * (v + 0.044715 * v * v * v)));
    case NORMKIT_EPILOGUE_RESIDUAL: return v + after;
    case NORMKIT_EPILOGUE_GATE: return v * silu(after);
    default: return v;
    }
}

static void plain_norm(const problem *p, double *output) {
    const how *o = p->options;
    const array *x = &p->operands[INPUT];
    size_t n = count(x);
    double *h = malloc(n * sizeof *h);
    CHECK(h != NULL);
    for (size_t i = 0; i < n; i++) {
        const double before = p->operands[BEFORE].values ? p->operands[BEFORE].values[i] : 0;
        h[i] = x->values[i];
        if (o->prologue == NORMKIT_PROLOGUE_RESIDUAL) h[i] = o->input_scale * h[i] + o->residual_scale * before;
        if (o->prologue == NORMKIT_PROLOGUE_GATE) h[i] *= silu(before);
    }
    for (size_t i = 0; i < n; i++) {
        double sum = 0, squares = 0, powers = 0, seen = 0, elements = 0;
        const size_t row = row_of(p, i);
        for (size_t j = 0; j < n; j++) elements += row_of(p, j) == row;
        const double used = o->partial > 0 ? floor(elements * o->partial) : elements;
        for (size_t j = 0; j < n && seen < used; j++) {
            if (row_of(p, j) != row) continue;
            seen++;
            sum += h[j];
            squares += h[j] * h[j];
            powers += pow(fabs(h[j]), o->p);
        }
        double mean = o->statistic == MOMENTS ? sum / used : 0, variance = 0, divisor;
        if (p->running[0].values != NULL) {
            mean = p->running[0].values[weight_of(p, i)];
            variance = p->running[1].values[weight_of(p, i)];
        } else if (o->statistic == MOMENTS) {
            for (size_t j = 0; j < n; j++) {
                if (row_of(p, j) == row) variance += (h[j] - mean) * (h[j] - mean) / used;
            }
        } else {
            variance = squares / used;
        }
        divisor = o->outside ? sqrt(variance) + o->eps : sqrt(variance + o->eps);
        if (o->statistic == LENGTH) divisor = fmax(pow(powers, 1 / o->p), o->eps);
        double v = (h[i] - mean) / divisor;
        if (p->operands[WEIGHT].values) v *= p->operands[WEIGHT].values[weight_of(p, i)] + o->weight_offset;
        if (p->operands[BIAS].values) v += p->operands[BIAS].values[weight_of(p, i)];
        output[i] = epilogue(o->epilogue, v, p->operands[AFTER].values ? p->operands[AFTER].values[i] : 0);
    }
    free(h);
}

static void plain_dyt(const problem *p, double *output) {
    const how *o = p->options;
    for (size_t i = 0; i < count(&p->operands[INPUT]); i++) {
        const size_t at = o->rows == TRAILING ? i % o->cols : axis_index(&p->operands[INPUT], i, 1);
        output[i] = p->operands[WEIGHT].values[at] * tanh(p->operands[ALPHA].values[0] * p->operands[INPUT].values[i])
                    + p->operands[BIAS].values[at];
    }
}

static const int64_t SHAPE[] = {2, 3, 10}, IMAGE[] = {3, 4, 5}, ONE[] = {1};

/* An input, and weight and bias of `size` numbers where it is not 0. */
static problem make_problem(const char *name, const how *options, const int64_t shape[3], int64_t size) {
    problem p = {.name = name, .plain = plain_norm, .options = options};
    p.operands[INPUT] = make_array(1, 3, shape);
    if (size > 0) {
        p.operands[WEIGHT] = make_array(2, 1, &size);
        p.operands[BIAS] = make_array(3, 1, &size);
    }
    return p;
}

static void check_layer_norm(const normkit_context *context) {
    static const how plainly = {.rows = TRAILING, .cols = 10, .eps = 1e-5};
    normkit_layer_norm_options options;
    OK(normkit_layer_norm_options_init(&options, sizeof options));
    options.normalized_shape = SHAPE + 2;
    options.normalized_ndim = 1;
    normkit_norm *norm;
    OK(normkit_layer_norm_new(&options, &norm));
    problem p = make_problem("layer_norm", &plainly, SHAPE, 10);
    p.norm = norm;
    check_problem(&p, context);

    /* Two axes, no parameters. */
    static const how both = {.rows = TRAILING, .cols = 30, .eps = 0.25};
    options.normalized_shape = SHAPE + 1;
    options.normalized_ndim = 2;
    options.eps = 0.25;
    OK(normkit_layer_norm_new(&options, &norm));
    p = make_problem("layer_norm of two axes", &both, SHAPE, 0);
    p.norm = norm;
    check_problem(&p, context);

    /* All that can surround a norm. */
    static how surrounded = {.rows = TRAILING, .cols = 10, .eps = 0.5, .weight_offset = 1, .input_scale = 0.5, .residual_scale = 2};
    normkit_fusion_options fusion;
    OK(normkit_fusion_options_init(&fusion, sizeof fusion));
    CHECK(fusion.input_scale == 1 && fusion.residual_scale == 1);
    fusion.input_scale = 0.5;
    fusion.residual_scale = 2;
    options.normalized_shape = SHAPE + 2;
    options.normalized_ndim = 1;
    options.eps = 0.5;
    options.weight_offset = 1;
    options.fusion = &fusion;
    for (int32_t prologue = NORMKIT_PROLOGUE_NONE; prologue <= NORMKIT_PROLOGUE_GATE; prologue++) {
        for (int32_t after = NORMKIT_EPILOGUE_NONE; after <= NORMKIT_EPILOGUE_GATE; after++) {
            if (prologue != NORMKIT_PROLOGUE_RESIDUAL && after != NORMKIT_EPILOGUE_NONE && after != NORMKIT_EPILOGUE_GATE) continue;
            surrounded.prologue = fusion.prologue = prologue;
            surrounded.epilogue = fusion.epilogue = after;
            OK(normkit_layer_norm_new(&options, &norm));
            char name[64];
            snprintf(name, sizeof name, "layer_norm with prologue %d, epilogue %d", (int)prologue, (int)after);
            p = make_problem(name, &surrounded, SHAPE, 10);
            p.norm = norm;
            if (prologue != NORMKIT_PROLOGUE_NONE) p.operands[BEFORE] = make_array(4, 3, SHAPE);
            if (after >= NORMKIT_EPILOGUE_RESIDUAL) p.operands[AFTER] = make_array(5, 3, SHAPE);
            check_problem(&p, context);
        }
    }
}

static void check_rms_norm(const normkit_context *context) {
    static how plainly = {.rows = TRAILING, .statistic = MEAN_SQUARE, .cols = 10, .eps = 0.125};
    normkit_rms_norm_options options;
    OK(normkit_rms_norm_options_init(&options, sizeof options));
    options.normalized_shape = SHAPE + 2;
    options.normalized_ndim = 1;
    options.eps = 0.125;
    const struct {
        const char *name;
        int32_t eps_position, cast;
        double partial, weight_offset;
    } variants[] = {
        {"rms_norm", NORMKIT_EPS_POSITION_INSIDE, NORMKIT_CAST_FP32, 1, 0},
        {"rms_norm, eps outside", NORMKIT_EPS_POSITION_OUTSIDE, NORMKIT_CAST_FP32, 1, 0.5},
        {"rms_norm, partial", NORMKIT_EPS_POSITION_INSIDE, NORMKIT_CAST_FP32, 0.45, 0},
        {"rms_norm as in Llama", NORMKIT_EPS_POSITION_INSIDE, NORMKIT_CAST_LLAMA, 1, 0},
        {"rms_norm as in Gemma", NORMKIT_EPS_POSITION_INSIDE, NORMKIT_CAST_GEMMA, 1, 0},
    };
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        plainly.outside = options.eps_position = variants[i].eps_position;
        options.cast = variants[i].cast;
        plainly.partial = options.partial = variants[i].partial;
        plainly.weight_offset = options.weight_offset = variants[i].weight_offset;
        if (variants[i].cast == NORMKIT_CAST_GEMMA) plainly.weight_offset = 1;
        normkit_norm *norm;
        OK(normkit_rms_norm_new(&options, &norm));
        problem p = make_problem(variants[i].name, &plainly, SHAPE, 10);
        p.norm = norm;
        check_problem(&p, context);
    }
}

static void check_dyt(const normkit_context *context) {
    normkit_dyt_options options;
    OK(normkit_dyt_options_init(&options, sizeof options));
    options.normalized_shape = SHAPE + 2;
    options.normalized_ndim = 1;
    static const how plainly = {.rows = TRAILING, .cols = 10}, channels = {.rows = CHANNELS};
    for (int first = 0; first < 2; first++) {
        if (first) {
            options.normalized_ndim = 0;
            options.num_channels = 4;
        }
        normkit_norm *norm;
        OK(normkit_dyt_new(&options, &norm));
        problem p = first ? make_problem("dyt of channels", &channels, IMAGE, 4) : make_problem("dyt", &plainly, SHAPE, 10);
        p.norm = norm;
        p.plain = plain_dyt;
        p.operands[ALPHA] = make_array(9, 1, ONE);
        p.operands[ALPHA].values[0] = 0.5;
        check_problem(&p, context);
    }
}

static void check_channels(const normkit_context *context) {
    normkit_norm *norm;
    static const how of_batch = {.rows = CHANNELS, .eps = 1e-5}, of_group = {.rows = GROUPS, .cols = 2, .eps = 1e-5};
    static const how of_instance = {.rows = GROUPS, .cols = 4, .eps = 1e-5};
    normkit_batch_norm_options batch;
    OK(normkit_batch_norm_options_init(&batch, sizeof batch));
    batch.num_features = 4;
    OK(normkit_batch_norm_new(&batch, &norm));
    problem p = make_problem("batch_norm", &of_batch, IMAGE, 4);
    p.norm = norm;
    check_problem(&p, context);

    batch.training = 0;
    OK(normkit_batch_norm_new(&batch, &norm));
    p = make_problem("batch_norm by running statistics", &of_batch, IMAGE, 4);
    p.norm = norm;
    p.running[0] = make_array(11, 1, IMAGE + 1);
    p.running[1] = make_array(12, 1, IMAGE + 1);
    for (int i = 0; i < 4; i++) p.running[1].values[i] = 1 + fabs(p.running[1].values[i]);
    check_problem(&p, context);

    normkit_group_norm_options group;
    OK(normkit_group_norm_options_init(&group, sizeof group));
    group.num_groups = 2;
    group.num_channels = 4;
    OK(normkit_group_norm_new(&group, &norm));
    p = make_problem("group_norm", &of_group, IMAGE, 4);
    p.norm = norm;
    check_problem(&p, context);

    normkit_instance_norm_options instance;
    OK(normkit_instance_norm_options_init(&instance, sizeof instance));
    instance.num_features = 4;
    OK(normkit_instance_norm_new(&instance, &norm));
    p = make_problem("instance_norm", &of_instance, IMAGE, 4);
    p.norm = norm;
    check_problem(&p, context);
}

static void check_vectors(const normkit_context *context) {
    normkit_norm *norm;
    static const how kinds[] = {
        {.rows = TRAILING, .statistic = LENGTH, .cols = 10, .p = 2, .eps = 1e-12},
        {.rows = TRAILING, .statistic = MEAN_SQUARE, .cols = 10, .eps = 1e-6},
        {.rows = TRAILING, .statistic = MOMENTS, .cols = 10, .eps = 1e-6},
    };
    normkit_qk_norm_options qk;
    OK(normkit_qk_norm_options_init(&qk, sizeof qk));
    CHECK(qk.kind == NORMKIT_QK_NORM_KIND_RMS);
    for (int32_t kind = NORMKIT_QK_NORM_KIND_L2; kind <= NORMKIT_QK_NORM_KIND_LAYER; kind++) {
        qk.kind = kind;
        OK(normkit_qk_norm_new(&qk, &norm));
        problem p = make_problem("qk_norm", &kinds[kind], SHAPE, kind == NORMKIT_QK_NORM_KIND_L2 ? 1 : 10);
        p.norm = norm;
        check_problem(&p, context);
    }

    /* The whole of it is a row of 60; its g is one number. */
    static const how whole = {.rows = TRAILING, .statistic = LENGTH, .cols = 60, .p = 2};
    normkit_weight_norm_options weight;
    OK(normkit_weight_norm_options_init(&weight, sizeof weight));
    weight.dim = NORMKIT_WHOLE;
    OK(normkit_weight_norm_new(&weight, &norm));
    problem p = make_problem("weight_norm of the whole", &whole, SHAPE, 0);
    p.operands[WEIGHT] = make_array(2, 1, ONE);
    p.norm = norm;
    check_problem(&p, context);

    /* Along the channels: as the rows of a batch norm. */
    static const how along = {.rows = CHANNELS, .statistic = LENGTH, .p = 2};
    weight.dim = 1;
    OK(normkit_weight_norm_new(&weight, &norm));
    p = make_problem("weight_norm", &along, IMAGE, 0);
    p.operands[WEIGHT] = make_array(2, 1, IMAGE + 1);
    p.norm = norm;
    check_problem(&p, context);

    normkit_normalize_options normalize;
    OK(normkit_normalize_options_init(&normalize, sizeof normalize));
    static how by_norm = {.rows = ALONG, .statistic = LENGTH, .eps = 1e-12};
    for (int power = 2; power < 4; power++) {
        by_norm.cols = power == 2 ? 1 : 2;
        normalize.dim = power == 2 ? 1 : -1;
        by_norm.p = normalize.p = power;
        OK(normkit_normalize_new(&normalize, &norm));
        p = make_problem("normalize", &by_norm, SHAPE, 0);
        p.norm = norm;
        check_problem(&p, context);
    }
}

int main(void) {
    CHECK(normkit_abi_version() == NORMKIT_ABI_VERSION);
    for (int threads = 0; threads < 2; threads++) {
        normkit_context *context;
        OK(normkit_context_new_cpu(threads, &context));
        check_layer_norm(context);
        check_rms_norm(context);
        check_dyt(context);
        check_channels(context);
        check_vectors(context);
        OK(normkit_context_synchronize(context));
        normkit_context_free(context);
    }
    return 0;
}
