/* normkit: the normalization family of neural networks, forward and backward.
 *
 * Made by cbindgen from the crate normkit-capi; do not edit.
 *
 * A call needs three things: a norm (a method and its options, made once), a context (the CPU and its threads, or a GPU's stream), and
 * tensors, which are the caller's: memory, dtype, shape and strides. Nothing is copied, and nothing but outputs is written.
 *
 * Numbers. Arithmetic is in float32 for F16, BF16 and F32, and in float64 for F64, with one rounding to the result's dtype. Weights,
 * biases, alpha, masks and residuals may have a dtype of their own: any but F64, and F64 beside an input of F64. The same call gives the
 * same bits, whatever the threads, the strides and the rest of the batch are.
 *
 * Shapes. Rows are the elements that share statistics. An input may have no rows. Tensors may have any strides; what is written must
 * name each of its elements once.
 *
 * Errors. A call returns a status; other than NORMKIT_STATUS_OK, normkit_last_error_message() says which argument was wrong, what was
 * expected and what was found. NULL, unknown numbers for enums, a wrong struct_size and negative sizes are such errors. What no library
 * can see is the caller's duty: that other pointers point to what the comments say, that arrays are as long as is said, that
 * handles have not been freed, and that nobody else writes a tensor's memory during a call, nor uses that of an output.
 *
 * Threads. Every function may be called from any thread. Norms and contexts may be used by any number of threads at the same time, except
 * for freeing them. The message of the last error is each thread's own.
 *
 * Structs that begin with struct_size: the init functions fill in defaults, and the structs of arguments are set to zero; then set
 * struct_size to sizeof, so that a later library knows which fields there are.
 *
 * Versions. A library works with programs that were made for the same NORMKIT_ABI_VERSION; until normkit's version is 1.0, that is
 * also the soname's business: libnormkit.so.0.MINOR.
 */

#ifndef NORMKIT_H
#define NORMKIT_H

#include <stddef.h>
#include <stdint.h>

/**
 * The dim of a weight_norm with one norm for the whole tensor.
 */
#define NORMKIT_WHOLE -1

/**
 * The most axes that a tensor can have.
 */
#define NORMKIT_MAX_NDIM 64

/**
 * The number of this interface. Programs made for one number work with every library of that number.
 */
#define NORMKIT_ABI_VERSION 1

/**
 * What a call returns. normkit_last_error_message() says more.
 */
enum normkit_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * All is well.
     */
    NORMKIT_STATUS_OK = 0,
    /**
     * An argument has the wrong value, shape, dtype or place in memory. Nothing was written.
     */
    NORMKIT_STATUS_INVALID_ARGUMENT = 1,
    /**
     * The backend has no arithmetic for the dtype. Nothing was written.
     */
    NORMKIT_STATUS_UNSUPPORTED_DTYPE = 2,
    /**
     * The problem exceeds a limit of the device. Nothing was written.
     */
    NORMKIT_STATUS_LIMIT = 3,
    /**
     * No device of this kind can be used here.
     */
    NORMKIT_STATUS_NO_DEVICE = 4,
    /**
     * The device was lost. A new context works.
     */
    NORMKIT_STATUS_DEVICE_LOST = 5,
    /**
     * An allocation failed.
     */
    NORMKIT_STATUS_OUT_OF_MEMORY = 6,
    /**
     * A kernel did not compile, or the driver refused a launch.
     */
    NORMKIT_STATUS_BACKEND = 7,
    /**
     * A bug in normkit, which ended the call. What it was to write is undefined; the handles can still be used.
     */
    NORMKIT_STATUS_INTERNAL = 8,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum normkit_status normkit_status;
#else
typedef int32_t normkit_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Where eps is added.
 */
enum normkit_eps_position
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * sqrt(mean square + eps)
     */
    NORMKIT_EPS_POSITION_INSIDE = 0,
    /**
     * sqrt(mean square) + eps
     */
    NORMKIT_EPS_POSITION_OUTSIDE = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum normkit_eps_position normkit_eps_position;
#else
typedef int32_t normkit_eps_position;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Where rms_norm rounds. All arithmetic is in float32, of F64 in float64.
 */
enum normkit_cast
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Once, at the end.
     */
    NORMKIT_CAST_FP32 = 0,
    /**
     * The normalized value is rounded to the input's dtype before the weight multiplies it, as in Llama models.
     */
    NORMKIT_CAST_LLAMA = 1,
    /**
     * Once, and the weight is a difference from one, as in Gemma models: a weight_offset of 1.
     */
    NORMKIT_CAST_GEMMA = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum normkit_cast normkit_cast;
#else
typedef int32_t normkit_cast;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How qk_norm normalizes a head x.
 */
enum normkit_qk_norm_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * x / max(|x|, eps); eps is 1e-12 by default.
     */
    NORMKIT_QK_NORM_KIND_L2 = 0,
    /**
     * x / sqrt(mean(x^2) + eps); eps is 1e-6 by default.
     */
    NORMKIT_QK_NORM_KIND_RMS = 1,
    /**
     * (x - mean(x)) / sqrt(var(x) + eps); eps is 1e-6 by default.
     */
    NORMKIT_QK_NORM_KIND_LAYER = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum normkit_qk_norm_kind normkit_qk_norm_kind;
#else
typedef int32_t normkit_qk_norm_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What is done before a norm: which hidden value h it normalizes.
 */
enum normkit_prologue
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * h = input
     */
    NORMKIT_PROLOGUE_NONE = 0,
    /**
     * h = input_scale * input + residual_scale * before
     */
    NORMKIT_PROLOGUE_RESIDUAL = 1,
    /**
     * h = input * silu(before), silu(z) = z / (1 + exp(-z))
     */
    NORMKIT_PROLOGUE_GATE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum normkit_prologue normkit_prologue;
#else
typedef int32_t normkit_prologue;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What becomes of the normalized, scaled and shifted value v.
 */
enum normkit_epilogue
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * output = v
     */
    NORMKIT_EPILOGUE_NONE = 0,
    /**
     * output = max(v, 0)
     */
    NORMKIT_EPILOGUE_RELU = 1,
    /**
     * output = v / (1 + exp(-v))
     */
    NORMKIT_EPILOGUE_SILU = 2,
    /**
     * output = v Phi(v), Phi being the normal distribution
     */
    NORMKIT_EPILOGUE_GELU = 3,
    /**
     * output = v / (1 + exp(-2 u)), u = sqrt(2 / pi) (v + 0.044715 v^3)
     */
    NORMKIT_EPILOGUE_GELU_TANH = 4,
    /**
     * output = v + after
     */
    NORMKIT_EPILOGUE_RESIDUAL = 5,
    /**
     * output = v * silu(after)
     */
    NORMKIT_EPILOGUE_GATE = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum normkit_epilogue normkit_epilogue;
#else
typedef int32_t normkit_epilogue;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Element types.
 */
enum normkit_dtype
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * IEEE 754 binary16. Arithmetic is in float32.
     */
    NORMKIT_DTYPE_F16 = 1,
    /**
     * bfloat16, the upper half of a float. Arithmetic is in float32.
     */
    NORMKIT_DTYPE_BF16 = 2,
    /**
     * float.
     */
    NORMKIT_DTYPE_F32 = 3,
    /**
     * double.
     */
    NORMKIT_DTYPE_F64 = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum normkit_dtype normkit_dtype;
#else
typedef int32_t normkit_dtype;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Where calls run, and the scratch memory that they need: the CPU and its threads, or a GPU and one of its streams.
 *
 * Any number of threads may use one context at the same time. On a GPU their work is enqueued on its one stream; for work
 * side by side, make a context for each stream.
 */
typedef struct normkit_context normkit_context;

/**
 * A method and its options. It has no tensors and never changes: any number of threads may use one at the same time.
 */
typedef struct normkit_norm normkit_norm;

/**
 * A tensor: memory that the caller owns, and how it is laid out. Element (i, j, ...) lies at
 * data + i * strides[0] + j * strides[1] + ..., counted in elements.
 *
 * Calls read the struct and its arrays and keep nothing of them. A tensor in memory of the host is used by a context of the CPU,
 * one in memory of a GPU by a context of that GPU.
 */
typedef struct normkit_tensor {
    /**
     * The element with index zero, at a multiple of the element's size. NULL only where there is no element.
     */
    void *data;
    /**
     * One of normkit_dtype.
     */
    int32_t dtype;
    /**
     * How many axes: 0 to NORMKIT_MAX_NDIM.
     */
    int32_t ndim;
    /**
     * ndim sizes, none negative. May be NULL where ndim is 0.
     */
    const int64_t *shape;
    /**
     * ndim strides, in elements; they may be zero (of a tensor that is read) or negative. NULL: row-major without gaps.
     */
    const int64_t *strides;
} normkit_tensor;

/**
 * The tensors of a forward pass. Those that are not needed are NULL; set all to zero before you fill it in.
 */
typedef struct normkit_forward_arguments {
    /**
     * sizeof(normkit_forward_arguments)
     */
    size_t struct_size;
    /**
     * Read: what is normalized, any strides.
     */
    const struct normkit_tensor *input;
    /**
     * Read: multiplies the normalized value. This and the next four may have a dtype of their own: F64 beside an input of F64 only.
     */
    const struct normkit_tensor *weight;
    /**
     * Read: added to it.
     */
    const struct normkit_tensor *bias;
    /**
     * Read: dyt's, one element.
     */
    const struct normkit_tensor *alpha;
    /**
     * Read: elements where it is 0 take no part, and their output and gradient are 0. Broadcasts to the input's shape.
     */
    const struct normkit_tensor *mask;
    /**
     * Read: the other operand of the fusion's prologue; the input's shape.
     */
    const struct normkit_tensor *before;
    /**
     * Read: the other operand of the fusion's epilogue; the input's shape and a dtype as for the weight.
     */
    const struct normkit_tensor *after;
    /**
     * Written: the input's shape and dtype. May be exactly the input, before or after; no other overlap is allowed.
     */
    const struct normkit_tensor *output;
    /**
     * Written: what was normalized, with a prologue; the input's shape, and the dtype of a residual, else the input's. May be exactly
     * the input or before. Optional.
     */
    const struct normkit_tensor *hidden;
    /**
     * Written: what a backward pass needs; see normkit_statistics_shape. Optional.
     */
    const struct normkit_tensor *statistics;
    /**
     * batch_norm's, [C]: read where not training, else updated. In training both or none.
     */
    const struct normkit_tensor *running_mean;
    /**
     * batch_norm's, [C]: read where not training, else updated.
     */
    const struct normkit_tensor *running_var;
    /**
     * The share of the batch in new running statistics, 0 to 1; not looked at without them.
     */
    double momentum;
} normkit_forward_arguments;

/**
 * The tensors of a backward pass. Those that are not needed are NULL; set all to zero before you fill it in.
 */
typedef struct normkit_backward_arguments {
    /**
     * sizeof(normkit_backward_arguments)
     */
    size_t struct_size;
    /**
     * Read: the gradient of the output; the input's shape and dtype.
     */
    const struct normkit_tensor *grad_output;
    /**
     * Read: the gradient of the hidden value, where that was used, too; its shape and dtype. Optional.
     */
    const struct normkit_tensor *grad_hidden;
    /**
     * Read: the forward pass's input. With the prologue RESIDUAL, it may be the hidden value, before being NULL.
     */
    const struct normkit_tensor *input;
    /**
     * Read: what the forward pass saved. Required, except of dyt, and of a batch_norm that is not training.
     */
    const struct normkit_tensor *statistics;
    /**
     * Read: as in the forward pass.
     */
    const struct normkit_tensor *weight;
    /**
     * Read: as in the forward pass.
     */
    const struct normkit_tensor *bias;
    /**
     * Read: as in the forward pass.
     */
    const struct normkit_tensor *alpha;
    /**
     * Read: as in the forward pass.
     */
    const struct normkit_tensor *mask;
    /**
     * Read: as in the forward pass; NULL where the input is the hidden value.
     */
    const struct normkit_tensor *before;
    /**
     * Read: as in the forward pass; of the epilogue RESIDUAL it may be NULL.
     */
    const struct normkit_tensor *after;
    /**
     * Read: batch_norm's where it is not training, else NULL.
     */
    const struct normkit_tensor *running_mean;
    /**
     * Read: as running_mean.
     */
    const struct normkit_tensor *running_var;
    /**
     * Written: the gradient of the input; its shape and dtype. May be exactly grad_output. This and the next five are computed where
     * they are not NULL; each needs the tensor whose gradient it is, and has its shape and dtype.
     */
    const struct normkit_tensor *grad_input;
    /**
     * Written: the gradient of the weight.
     */
    const struct normkit_tensor *grad_weight;
    /**
     * Written: the gradient of the bias.
     */
    const struct normkit_tensor *grad_bias;
    /**
     * Written: the gradient of alpha.
     */
    const struct normkit_tensor *grad_alpha;
    /**
     * Written: the gradient of before. May be exactly grad_hidden. Where the hidden value stands for input and before, it has the shape and
     * dtype of that.
     */
    const struct normkit_tensor *grad_before;
    /**
     * Written: the gradient of after.
     */
    const struct normkit_tensor *grad_after;
} normkit_backward_arguments;

/**
 * What surrounds a norm, in the same pass over memory.
 */
typedef struct normkit_fusion_options {
    /**
     * sizeof(normkit_fusion_options)
     */
    size_t struct_size;
    /**
     * One of normkit_prologue; NONE.
     */
    int32_t prologue;
    /**
     * One of normkit_epilogue; NONE.
     */
    int32_t epilogue;
    /**
     * Multiplies the input of a residual before the norm; 1.
     */
    double input_scale;
    /**
     * Multiplies the residual before the norm; 1. DeepNorm: alpha.
     */
    double residual_scale;
    /**
     * Elements of the input are left out of the sum with a residual before the norm with this probability, from 0 up and below 1,
     * the others being divided by one minus it; 0. Element e, in row-major order, is kept where word e % 4 of Philox 4x32-10 at
     * the counter (e / 4, dropout_offset) under the key dropout_seed is at least dropout_probability * 2^32. A backward pass is to
     * have the same numbers.
     */
    double dropout_probability;
    /**
     * Philox's key; 0.
     */
    uint64_t dropout_seed;
    /**
     * The upper half of its counter; 0.
     */
    uint64_t dropout_offset;
} normkit_fusion_options;

/**
 * Options of layer_norm.
 */
typedef struct normkit_layer_norm_options {
    /**
     * sizeof(normkit_layer_norm_options)
     */
    size_t struct_size;
    /**
     * normalized_ndim sizes: the input's last axes.
     */
    const int64_t *normalized_shape;
    /**
     * At least 1.
     */
    int32_t normalized_ndim;
    /**
     * Not 0: weight and bias may have as many axes as the input, of which those of size 1 repeat, one of each sample or token; 0.
     */
    int32_t broadcast_parameters;
    /**
     * Not negative; 1e-5.
     */
    double eps;
    /**
     * Added to the weight before it multiplies; 0.
     */
    double weight_offset;
    /**
     * What surrounds the norm, or NULL; NULL.
     */
    const struct normkit_fusion_options *fusion;
} normkit_layer_norm_options;

/**
 * Options of rms_norm.
 */
typedef struct normkit_rms_norm_options {
    /**
     * sizeof(normkit_rms_norm_options)
     */
    size_t struct_size;
    /**
     * normalized_ndim sizes: the input's last axes.
     */
    const int64_t *normalized_shape;
    /**
     * At least 1.
     */
    int32_t normalized_ndim;
    /**
     * Not 0: weight and bias may have as many axes as the input, of which those of size 1 repeat, one of each sample or token; 0.
     */
    int32_t broadcast_parameters;
    /**
     * Not negative. NaN, which is the default, stands for the machine epsilon of the input's dtype, as in PyTorch.
     */
    double eps;
    /**
     * The mean square is that of the first floor(partial * cols) columns; above 0, at most 1; 1.
     */
    double partial;
    /**
     * Added to the weight before it multiplies; 0.
     */
    double weight_offset;
    /**
     * One of normkit_eps_position; INSIDE.
     */
    int32_t eps_position;
    /**
     * One of normkit_cast; FP32.
     */
    int32_t cast;
    /**
     * What surrounds the norm, or NULL; NULL.
     */
    const struct normkit_fusion_options *fusion;
} normkit_rms_norm_options;

/**
 * Options of dyt.
 */
typedef struct normkit_dyt_options {
    /**
     * sizeof(normkit_dyt_options)
     */
    size_t struct_size;
    /**
     * normalized_ndim sizes, the input's last axes: the shape of weight and bias.
     */
    const int64_t *normalized_shape;
    /**
     * At least 1, or 0 beside num_channels.
     */
    int32_t normalized_ndim;
    /**
     * Always 0.
     */
    int32_t reserved;
    /**
     * Above 0, for images [N, num_channels, ...]: weight and bias, [num_channels], vary along axis 1; 0.
     */
    int64_t num_channels;
} normkit_dyt_options;

/**
 * Options of batch_norm.
 */
typedef struct normkit_batch_norm_options {
    /**
     * sizeof(normkit_batch_norm_options)
     */
    size_t struct_size;
    /**
     * The channels: the size of the input's axis 1.
     */
    int64_t num_features;
    /**
     * Not negative; 1e-5.
     */
    double eps;
    /**
     * Not 0: statistics of the batch; 0: the running ones; 1.
     */
    int32_t training;
    /**
     * Always 0.
     */
    int32_t reserved;
} normkit_batch_norm_options;

/**
 * Options of group_norm.
 */
typedef struct normkit_group_norm_options {
    /**
     * sizeof(normkit_group_norm_options)
     */
    size_t struct_size;
    /**
     * A divisor of num_channels.
     */
    int64_t num_groups;
    /**
     * The size of the input's axis 1.
     */
    int64_t num_channels;
    /**
     * Not negative; 1e-5.
     */
    double eps;
    /**
     * What surrounds the norm, or NULL; NULL.
     */
    const struct normkit_fusion_options *fusion;
} normkit_group_norm_options;

/**
 * Options of instance_norm.
 */
typedef struct normkit_instance_norm_options {
    /**
     * sizeof(normkit_instance_norm_options)
     */
    size_t struct_size;
    /**
     * The channels: the size of the input's axis 1.
     */
    int64_t num_features;
    /**
     * Not negative; 1e-5.
     */
    double eps;
    /**
     * What surrounds the norm, or NULL; NULL.
     */
    const struct normkit_fusion_options *fusion;
} normkit_instance_norm_options;

/**
 * Options of qk_norm.
 */
typedef struct normkit_qk_norm_options {
    /**
     * sizeof(normkit_qk_norm_options)
     */
    size_t struct_size;
    /**
     * One of normkit_qk_norm_kind; RMS.
     */
    int32_t kind;
    /**
     * Always 0.
     */
    int32_t reserved;
    /**
     * Not negative. NaN, which is the default, stands for the kind's own.
     */
    double eps;
} normkit_qk_norm_options;

/**
 * Options of weight_norm.
 */
typedef struct normkit_weight_norm_options {
    /**
     * sizeof(normkit_weight_norm_options)
     */
    size_t struct_size;
    /**
     * The axis whose indices have a norm each, from 0 up, or NORMKIT_WHOLE; 0.
     */
    int64_t dim;
} normkit_weight_norm_options;

/**
 * Options of normalize.
 */
typedef struct normkit_normalize_options {
    /**
     * sizeof(normkit_normalize_options)
     */
    size_t struct_size;
    /**
     * The axis that the vectors lie along; negative numbers count from the last; 1.
     */
    int64_t dim;
    /**
     * 1 to 100, or infinity; 2.
     */
    double p;
    /**
     * Not negative; 1e-12.
     */
    double eps;
} normkit_normalize_options;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Writes the shape and the dtype of the statistics of an input: shape[0] = rows and shape[1] = 4, or zeros where the method saves none
 * (dyt, and a batch_norm that is not training); F64 for an input of F64, else F32. The statistics are a row-major tensor, the caller's.
 * Of the input only dtype, ndim and shape are looked at.
 *
 * Errors: NULL; an input that the method cannot have.
 */
normkit_status normkit_statistics_shape(const struct normkit_norm *norm,
                                        const struct normkit_tensor *input,
                                        int64_t *shape,
                                        int32_t *dtype);

/**
 * The forward pass: writes output, and hidden and statistics where they are not NULL. On the CPU it has finished when the call
 * returns; on a GPU it is enqueued.
 *
 * Errors, of which those of arguments name the field: NULL where a tensor is needed or a tensor where none is of use, a shape or
 * dtype that does not fit, memory that overlaps otherwise than allowed, momentum outside 0 to 1. Nothing was written then.
 *
 * Threads: any number of calls may share norm and context. What they write must be apart from what the others read and write.
 */
normkit_status normkit_forward(const struct normkit_norm *norm,
                               const struct normkit_context *context,
                               const struct normkit_forward_arguments *arguments);

/**
 * The backward pass: writes those of the gradients that are not NULL. The others are not computed; without any, only the arguments are
 * checked. On the CPU it has finished when the call returns; on a GPU it is enqueued.
 *
 * Errors are as in normkit_forward; also statistics that are missing, and the gradient of a tensor that is not there.
 *
 * Threads: as normkit_forward.
 */
normkit_status normkit_backward(const struct normkit_norm *norm,
                                const struct normkit_context *context,
                                const struct normkit_backward_arguments *arguments);

/**
 * Makes a context of the CPU. Its calls have finished when they return. threads: how many threads they run on; 1 is the calling
 * thread alone, 0 is as many as the machine has, which all such contexts of the process share. Results do not depend on it.
 *
 * A process that was forked has none of its parent's threads: there, make a context anew, unless threads was 0.
 *
 * On errors *context is NULL: threads negative, or more than the system gives.
 */
normkit_status normkit_context_new_cpu(int32_t threads,
                                       struct normkit_context **context);

/**
 * Makes a context of the GPU with this number, by CUDA, in the GPU's primary context, which the CUDA runtime uses, too. stream is a
 * CUstream (or cudaStream_t) of that GPU, or NULL for the legacy default stream; it must live as long as the context.
 *
 * Calls enqueue their work on the stream and return; operands must stay where they are until it has run. Kernels are compiled on
 * first use, by NVRTC, and kept on disk. A first context of a GPU costs more than another stream for it: see
 * normkit_context_new_on_stream.
 *
 * On errors *context is NULL: NORMKIT_STATUS_NO_DEVICE where there is no driver, no such GPU or no NVRTC.
 */
normkit_status normkit_context_new_cuda(int32_t ordinal,
                                        void *stream,
                                        struct normkit_context **context);

/**
 * Makes a context of the GPU of another context, for another of its streams. Kernels that the other has compiled are shared.
 *
 * On errors *context is NULL: other is NULL or a context of the CPU, or the stream is another GPU's.
 */
normkit_status normkit_context_new_on_stream(const struct normkit_context *other,
                                             void *stream,
                                             struct normkit_context **context);

/**
 * Makes a context that runs the CUDA kernels on the CPU, on memory of the host: to test programs for GPUs on machines without one.
 * It is slow, and needs a C++ compiler when it runs, c++ or the one that the environment variable CXX names.
 *
 * On errors *context is NULL: NORMKIT_STATUS_NO_DEVICE where there is no compiler.
 */
normkit_status normkit_context_new_cuda_host(struct normkit_context **context);

/**
 * Waits until everything that was enqueued on the context's device has run. On the CPU that is at once.
 */
normkit_status normkit_context_synchronize(const struct normkit_context *context);

/**
 * Frees a context; NULL is nothing. No call may be using it. On a GPU it waits for work that uses its scratch memory.
 */
void normkit_context_free(struct normkit_context *context);

/**
 * Layer normalization over the last axes, whose sizes are normalized_shape (Ba et al. 2016).
 *
 *     mean   = sum(x) / cols                             over a row: the last axes
 *     rstd   = 1 / sqrt(sum((x - mean)^2) / cols + eps)
 *     x_hat  = (x - mean) * rstd
 *     output = x_hat * (weight + weight_offset) + bias
 *
 * weight, bias (normalized_shape; or NULL) and mask are optional. Gradients, with g the gradient of the output and
 * h = g * (weight + weight_offset):
 *
 *     grad_input  = rstd * (h - mean(h) - x_hat * mean(h * x_hat))
 *     grad_weight = sum over rows of g * x_hat
 *     grad_bias   = sum over rows of g
 *
 * With fusion, x is the hidden value and the output what the epilogue makes of the one above: add_layer_norm is the prologue RESIDUAL.
 *
 * On errors *norm is NULL, here and in the other constructors.
 */
normkit_status normkit_layer_norm_new(const struct normkit_layer_norm_options *options,
                                      struct normkit_norm **norm);

/**
 * Root-mean-square normalization over the last axes, whose sizes are normalized_shape (Zhang, Sennrich 2019).
 *
 *     rstd   = 1 / sqrt(sum(x_i^2, i < k) / k + eps)     eps inside
 *     rstd   = 1 / (sqrt(sum(x_i^2, i < k) / k) + eps)   eps outside
 *     x_hat  = x * rstd
 *     output = x_hat * (weight + weight_offset) + bias
 *
 * k is floor(partial * cols). weight, bias (normalized_shape; or NULL) and mask are optional. Gradients, with g the gradient of the
 * output, h = g * (weight + weight_offset) and s the root mean square:
 *
 *     grad_input_i = rstd * (h_i - [i < k] * x_hat_i * q * sum(h * x_hat) / k)
 *     q            = 1 with eps inside, 1 / (rstd * s) with eps outside (0 where s = 0)
 *     grad_weight  = sum over rows of g * x_hat
 *     grad_bias    = sum over rows of g
 *
 * With fusion, x is the hidden value and the output what the epilogue makes of the one above: add_rms_norm is the prologue RESIDUAL.
 */
normkit_status normkit_rms_norm_new(const struct normkit_rms_norm_options *options,
                                    struct normkit_norm **norm);

/**
 * Dynamic tanh, a norm's stand-in without statistics (Zhu et al. 2025).
 *
 *     output = weight * tanh(alpha * x) + bias
 *
 * alpha is one element and must be there; weight and bias (normalized_shape, or [num_channels]; or NULL) are optional. Gradients, with
 * g the gradient of the output, h = g * weight and t = tanh(alpha * x):
 *
 *     grad_input  = h * alpha * (1 - t^2)
 *     grad_alpha  = sum(h * x * (1 - t^2))
 *     grad_weight = sum over rows of g * t
 *     grad_bias   = sum over rows of g
 */
normkit_status normkit_dyt_new(const struct normkit_dyt_options *options,
                               struct normkit_norm **norm);

/**
 * Batch normalization of inputs [N, C, ...] (Ioffe, Szegedy 2015): statistics of each channel over samples and positions.
 *
 *     output = (x - mean[c]) / sqrt(var[c] + eps) * weight[c] + bias[c]
 *
 * Training: mean and var are the batch's, var being the biased one, of two values or more, or none. Where running_mean and running_var are
 * there, a forward pass moves them: running = (1 - momentum) * running + momentum * new, with the unbiased variance. On a GPU that
 * needs some memory of the call's own, and so may wait.
 * Not training: mean and var are running_mean and running_var, constants, which forward and backward need; there are no statistics to
 * save.
 *
 * weight, bias ([C], or NULL) and mask are optional. Gradients, with g the gradient of the output, rstd = 1 / sqrt(var + eps) and
 * x_hat = (x - mean) * rstd:
 *
 *     grad_weight = sum(g * x_hat)
 *     grad_bias   = sum(g)
 *     grad_input  = weight * rstd * (g - mean(g) - x_hat * mean(g * x_hat))     in training, else weight * rstd * g
 */
normkit_status normkit_batch_norm_new(const struct normkit_batch_norm_options *options,
                                      struct normkit_norm **norm);

/**
 * Group normalization of inputs [N, C, ...] (Wu, He 2018): statistics over the C / num_groups channels of a group and all positions, per
 * sample. Formula and gradients are layer_norm's with such rows, but that weight and bias ([C], or as many axes as the input and broadcast
 * to it; or NULL) are of channels. mask is optional.
 */
normkit_status normkit_group_norm_new(const struct normkit_group_norm_options *options,
                                      struct normkit_norm **norm);

/**
 * Instance normalization of inputs [N, C, L, ...]: group_norm with as many groups as channels.
 */
normkit_status normkit_instance_norm_new(const struct normkit_instance_norm_options *options,
                                         struct normkit_norm **norm);

/**
 * Normalization of queries or keys before attention, [..., heads, head_dim], head by head: see normkit_qk_norm_kind. Called once for the
 * queries and once for the keys.
 *
 *     output = x_hat * weight + bias
 *
 * weight and bias ([head_dim], [heads, head_dim] or one element; or NULL) are optional: the learned scale of L2 is the queries' weight.
 * The gradients are those of normalize, rms_norm and layer_norm.
 */
normkit_status normkit_qk_norm_new(const struct normkit_qk_norm_options *options,
                                   struct normkit_norm **norm);

/**
 * Weight normalization (Salimans, Kingma 2016): a weight from its direction, the input v, and its lengths, the weight g.
 *
 *     n      = sqrt(sum(v^2))          over every axis but dim, or over the whole tensor
 *     output = g * v / n
 *
 * g is optional (1) and has the size of v along dim and 1 elsewhere, or just that size; of NORMKIT_WHOLE, one element. A v of zeros gives
 * zeros, and passes no gradient. Gradients, with G the gradient of the output and u = v / n:
 *
 *     grad_weight = sum(G * u)
 *     grad_input  = g / n * (G - u * sum(G * u))
 */
normkit_status normkit_weight_norm_new(const struct normkit_weight_norm_options *options,
                                       struct normkit_norm **norm);

/**
 * Division of the vectors along an axis by their p-norm.
 *
 *     n      = sum(|x|^p)^(1/p)         p = infinity: max(|x|)
 *     output = x / max(n, eps)
 *
 * There are no parameters. Gradient, with g that of the output, y the output and sums over the vector:
 *
 *     grad_input = (g - u * sum(g * y)) / n       where n > eps, else g / eps
 *     u          = sign(x) * |y|^(p-1)            p = infinity: sign(x) / ties where |x| = n, else 0
 */
normkit_status normkit_normalize_new(const struct normkit_normalize_options *options,
                                     struct normkit_norm **norm);

/**
 * Frees a norm; NULL is nothing. No call may be using it.
 */
void normkit_norm_free(struct normkit_norm *norm);

/**
 * Fills in the defaults, which the fields' comments end with. struct_size is sizeof(*options).
 */
normkit_status normkit_fusion_options_init(struct normkit_fusion_options *options, size_t struct_size);

/**
 * Fills in the defaults; normalized_shape is to be set. struct_size is sizeof(*options).
 */
normkit_status normkit_layer_norm_options_init(struct normkit_layer_norm_options *options,
                                               size_t struct_size);

/**
 * Fills in the defaults; normalized_shape is to be set. struct_size is sizeof(*options).
 */
normkit_status normkit_rms_norm_options_init(struct normkit_rms_norm_options *options, size_t struct_size);

/**
 * Fills in the defaults; normalized_shape or num_channels is to be set. struct_size is sizeof(*options).
 */
normkit_status normkit_dyt_options_init(struct normkit_dyt_options *options, size_t struct_size);

/**
 * Fills in the defaults; num_features is to be set. struct_size is sizeof(*options).
 */
normkit_status normkit_batch_norm_options_init(struct normkit_batch_norm_options *options,
                                               size_t struct_size);

/**
 * Fills in the defaults; num_groups and num_channels are to be set. struct_size is sizeof(*options).
 */
normkit_status normkit_group_norm_options_init(struct normkit_group_norm_options *options,
                                               size_t struct_size);

/**
 * Fills in the defaults; num_features is to be set. struct_size is sizeof(*options).
 */
normkit_status normkit_instance_norm_options_init(struct normkit_instance_norm_options *options,
                                                  size_t struct_size);

/**
 * Fills in the defaults. struct_size is sizeof(*options).
 */
normkit_status normkit_qk_norm_options_init(struct normkit_qk_norm_options *options, size_t struct_size);

/**
 * Fills in the defaults. struct_size is sizeof(*options).
 */
normkit_status normkit_weight_norm_options_init(struct normkit_weight_norm_options *options,
                                                size_t struct_size);

/**
 * Fills in the defaults. struct_size is sizeof(*options).
 */
normkit_status normkit_normalize_options_init(struct normkit_normalize_options *options, size_t struct_size);

/**
 * What went wrong in this thread's last call that failed: the argument, what was expected and what was found. Empty if
 * none did. UTF-8. The memory is the library's, and stays as it is until the thread's next call that fails, or its end.
 */
const char *normkit_last_error_message(void);

/**
 * The name of a status, as in "NORMKIT_STATUS_OK"; "unknown" for other numbers. Never NULL; not to be freed.
 */
const char *normkit_status_name(int32_t status);

/**
 * NORMKIT_ABI_VERSION as the library was made with. Where it differs from the header's, nothing else may be called.
 */
uint32_t normkit_abi_version(void);

/**
 * The library's version, as in "0.1.0". Never NULL; not to be freed.
 */
const char *normkit_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* NORMKIT_H */
