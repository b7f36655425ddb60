// A residual connection and the RMSNorm after it, trained by gradient descent to reproduce another one's outputs. The few
// classes at the top are all that C++ needs to own handles and to turn statuses into exceptions.

#include <normkit.h>

#include <cmath>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <vector>

namespace nk {

inline void check(normkit_status status) {
    if (status != NORMKIT_STATUS_OK) throw std::runtime_error(normkit_last_error_message());
}

struct Free {
    void operator()(normkit_context *context) const { normkit_context_free(context); }
    void operator()(normkit_norm *norm) const { normkit_norm_free(norm); }
};
using Context = std::unique_ptr<normkit_context, Free>;
using Norm = std::unique_ptr<normkit_norm, Free>;

inline Context cpu(int threads = 0) {
    normkit_context *context = nullptr;
    check(normkit_context_new_cpu(threads, &context));
    return Context(context);
}

// h = input + before, output = h / rms(h) * weight.
inline Norm add_rms_norm(int64_t columns, double eps) {
    normkit_fusion_options fusion;
    check(normkit_fusion_options_init(&fusion, sizeof fusion));
    fusion.prologue = NORMKIT_PROLOGUE_RESIDUAL;
    normkit_rms_norm_options options;
    check(normkit_rms_norm_options_init(&options, sizeof options));
    options.normalized_shape = &columns;
    options.normalized_ndim = 1;
    options.eps = eps;
    options.fusion = &fusion;
    normkit_norm *norm = nullptr;
    check(normkit_rms_norm_new(&options, &norm));
    return Norm(norm);
}

// Numbers, and the description of them that calls take. It stays where it is: the description points into it.
class Tensor {
public:
    Tensor(std::vector<int64_t> shape, float value = 0) : shape_(std::move(shape)) {
        size_t count = 1;
        for (int64_t size : shape_) count *= static_cast<size_t>(size);
        values.assign(count, value);
        tensor_ = {values.data(), NORMKIT_DTYPE_F32, static_cast<int32_t>(shape_.size()), shape_.data(), nullptr};
    }
    Tensor(const Tensor &) = delete;
    Tensor &operator=(const Tensor &) = delete;
    const normkit_tensor *get() const { return &tensor_; }

    std::vector<float> values;

private:
    std::vector<int64_t> shape_;
    normkit_tensor tensor_;
};

}  // namespace nk

int main() try {
    const int64_t rows = 64, columns = 16;
    const nk::Context context = nk::cpu();
    const nk::Norm norm = nk::add_rms_norm(columns, 1e-6);
    nk::Tensor branch({rows, columns}), stream({rows, columns}), target({rows, columns}), output({rows, columns});
    nk::Tensor weight({columns}, 1), wanted({columns}), grad_output({rows, columns}), grad_weight({columns});
    nk::Tensor statistics({rows, 4});
    for (size_t i = 0; i < branch.values.size(); i++) {
        branch.values[i] = static_cast<float>(std::sin(0.7 * static_cast<double>(i)));
        stream.values[i] = static_cast<float>(std::cos(0.3 * static_cast<double>(i)));
    }
    for (size_t i = 0; i < wanted.values.size(); i++) wanted.values[i] = 0.25f * static_cast<float>(i) - 2;

    normkit_forward_arguments forward{};
    forward.struct_size = sizeof forward;
    forward.input = branch.get();
    forward.before = stream.get();
    forward.weight = wanted.get();
    forward.output = target.get();
    nk::check(normkit_forward(norm.get(), context.get(), &forward));
    forward.weight = weight.get();
    forward.output = output.get();
    forward.statistics = statistics.get();

    normkit_backward_arguments backward{};
    backward.struct_size = sizeof backward;
    backward.grad_output = grad_output.get();
    backward.input = branch.get();
    backward.before = stream.get();
    backward.weight = weight.get();
    backward.statistics = statistics.get();
    backward.grad_weight = grad_weight.get();

    double loss = 0;
    for (int step = 0; step <= 60; step++) {
        nk::check(normkit_forward(norm.get(), context.get(), &forward));
        loss = 0;
        for (size_t i = 0; i < output.values.size(); i++) {
            const float difference = output.values[i] - target.values[i];
            loss += 0.5 * difference * difference / static_cast<double>(rows);
            grad_output.values[i] = difference / static_cast<float>(rows);
        }
        if (step % 20 == 0) std::printf("step %2d: loss %.6f\n", step, loss);
        nk::check(normkit_backward(norm.get(), context.get(), &backward));
        for (size_t i = 0; i < weight.values.size(); i++) weight.values[i] -= 0.2f * grad_weight.values[i];
    }

    // What is wrong comes as an exception that names it.
    backward.statistics = nullptr;
    try {
        nk::check(normkit_backward(norm.get(), context.get(), &backward));
        return 1;
    } catch (const std::runtime_error &error) {
        std::printf("%s\n", error.what());
    }
    return loss < 1e-3 ? 0 : 1;
} catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
