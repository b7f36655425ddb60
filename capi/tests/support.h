/* What the tests in C share: checks, arrays of any dtype and layout, and gradients by differences. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include <math.h>
#include <normkit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s does not hold; the last error: %s\n", __FILE__, __LINE__, #condition, \
                    normkit_last_error_message());                                                           \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)
#define OK(call) CHECK((call) == NORMKIT_STATUS_OK)

enum { MAX_NDIM = 4 };

/* Numbers with a shape, as the plain computations see them. Without values it is an operand that is not there. */
typedef struct array {
    int ndim;
    int64_t shape[MAX_NDIM];
    double *values;
} array;

static inline size_t count(const array *a) {
    size_t n = 1;
    for (int axis = 0; axis < a->ndim; axis++) n *= (size_t)a->shape[axis];
    return n;
}

/* Numbers between -2 and 2 that look random. */
static inline double noise(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(int32_t)(*state >> 32) / 1073741824.0;
}

static inline array make_array(uint64_t seed, int ndim, const int64_t *shape) {
    array a = {.ndim = ndim};
    for (int axis = 0; axis < ndim; axis++) a.shape[axis] = shape[axis];
    a.values = malloc((count(&a) + 1) * sizeof *a.values);
    CHECK(a.values != NULL);
    for (size_t i = 0; i < count(&a); i++) {
        /* Exact in every dtype, so that all compute on the same numbers. */
        a.values[i] = round(noise(&seed) * 32) / 32;
    }
    return a;
}

/* A tensor and the memory that it lies in. */
typedef struct stored {
    normkit_tensor tensor;
    int64_t shape[MAX_NDIM];
    int64_t strides[MAX_NDIM];
    char *memory;
    size_t n;
    size_t size;
} stored;

static inline size_t size_of(int32_t dtype) {
    return dtype == NORMKIT_DTYPE_F64 ? 8 : dtype == NORMKIT_DTYPE_F32 ? 4 : 2;
}

static inline char *place(const stored *s, size_t index) {
    int64_t offset = 0;
    for (int axis = s->tensor.ndim - 1; axis >= 0; axis--) {
        offset += (int64_t)(index % (size_t)s->shape[axis]) * s->strides[axis];
        index /= (size_t)s->shape[axis];
    }
    return (char *)s->tensor.data + offset * (int64_t)s->size;
}

static inline double load(const stored *s, size_t index) {
    const char *at = place(s, index);
    double wide;
    float narrow;
    uint16_t half;
    switch (s->tensor.dtype) {
    case NORMKIT_DTYPE_F64: memcpy(&wide, at, 8); return wide;
    case NORMKIT_DTYPE_F32: memcpy(&narrow, at, 4); return narrow;
    default: { /* bfloat16: the upper half of a float. */
        memcpy(&half, at, 2);
        uint32_t bits = (uint32_t)half << 16;
        memcpy(&narrow, &bits, 4);
        return narrow;
    }
    }
}

static inline void store(const stored *s, size_t index, double value) {
    char *at = place(s, index);
    float narrow = (float)value;
    uint32_t bits;
    switch (s->tensor.dtype) {
    case NORMKIT_DTYPE_F64: memcpy(at, &value, 8); break;
    case NORMKIT_DTYPE_F32: memcpy(at, &narrow, 4); break;
    default: {
        memcpy(&bits, &narrow, 4);
        uint16_t half = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
        memcpy(at, &half, 2);
    }
    }
}

/* Memory for numbers of a shape: without gaps, or with gaps and the first axis backwards. */
static inline stored make_stored(int ndim, const int64_t *shape, int32_t dtype, int spread) {
    stored s = {.size = size_of(dtype), .n = 1};
    int64_t stride = spread ? 3 : 1;
    for (int axis = ndim - 1; axis >= 0; axis--) {
        s.shape[axis] = shape[axis];
        s.strides[axis] = stride;
        stride *= shape[axis];
        s.n *= (size_t)shape[axis];
    }
    /* No byte more than the elements reach, for memcheck to see who goes beyond. */
    size_t elements = s.n == 0 ? 1 : spread ? (size_t)stride - 2 : (size_t)stride;
    s.memory = calloc(elements, s.size);
    CHECK(s.memory != NULL);
    char *first = s.memory;
    if (spread && ndim > 0 && s.n > 0) {
        first += (shape[0] - 1) * s.strides[0] * (int64_t)s.size;
        s.strides[0] = -s.strides[0];
    }
    s.tensor = (normkit_tensor){.data = first, .dtype = dtype, .ndim = ndim};
    return s;
}

/* The tensor, once the struct that holds its shape lies where it stays. */
static inline const normkit_tensor *tensor(stored *s) {
    s->tensor.shape = s->shape;
    s->tensor.strides = s->strides;
    return &s->tensor;
}

static inline stored store_array(const array *a, int32_t dtype, int spread) {
    stored s = make_stored(a->ndim, a->shape, dtype, spread);
    for (size_t i = 0; i < s.n; i++) store(&s, i, a->values[i]);
    return s;
}

/* A result is the plain one, but for some share of the largest number near it. */
static inline void check_near(const char *what, const stored *found, const double *expected, double bound) {
    double largest = 1e-3;
    for (size_t i = 0; i < found->n; i++) largest = fmax(largest, fabs(expected[i]));
    for (size_t i = 0; i < found->n; i++) {
        double value = load(found, i);
        if (!(fabs(value - expected[i]) <= bound * largest)) {
            fprintf(stderr, "%s: element %zu is %.17g, which should be %.17g\n", what, i, value, expected[i]);
            exit(1);
        }
    }
}

#endif
