//! Norms: a method with its options, made once and used for any number of calls.

use crate::method::{Along, Config, Operands};
use crate::options::{
    BatchNormOptions, DytOptions, GroupNormOptions, InstanceNormOptions, LayerNormOptions, NormalizeOptions,
    QkNormOptions, RmsNormOptions, WeightNormOptions,
};
use crate::pointers::{hand_out, take_back};
use crate::read;
use crate::status::{Fault, Result, Status, guard};
use normkit::spec::Fusion;
use normkit::tensor::DType;
use normkit::{LayerNorm, Method};

/// A method and its options. It has no tensors and never changes: any number of threads may use one at the same time.
pub struct Norm {
    pub(crate) config: Config,
}

const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<Norm>();
};

impl Norm {
    /// A norm whose options make sense, as far as they can tell without an input.
    pub(crate) fn new(config: Config) -> Result<Self> {
        let names = config.names();
        let lower = |norm: &dyn Method, shape: &[usize]| norm.lower(shape, DType::F32).map(drop);
        let example: Vec<usize> = match &config {
            Config::LayerNorm { normalized_shape, .. }
            | Config::RmsNorm { normalized_shape, .. }
            | Config::Dyt { along: Along::Trailing(normalized_shape) } => normalized_shape.clone(),
            Config::Dyt { along: Along::Channels(channels) } => vec![1, *channels],
            Config::BatchNorm { num_features, .. } => vec![2, *num_features],
            Config::GroupNorm { num_channels, .. } => vec![1, *num_channels],
            Config::InstanceNorm { num_features, .. } => vec![1, *num_features, 1],
            Config::QkNorm { .. } => vec![1, 1],
            Config::WeightNorm { dim } => vec![1; dim.map_or(1, |dim| dim + 1)],
            Config::Normalize { dim, .. } => vec![1; dim.unsigned_abs() + 1],
        };
        let checked = match &config {
            // A DyT is not complete without alpha; what else it asks for is what a layer norm does.
            Config::Dyt { .. } => lower(&LayerNorm::new(&example[..]), &example),
            _ => lower(&*config.bind(Operands::default()), &example),
        };
        checked.map_err(|error| Fault::renamed(error, &names))?;
        check_fusion(config.fusion()).map_err(|error| Fault::renamed(error, &names))?;
        Ok(Norm { config })
    }
}

fn check_fusion(fusion: Fusion) -> normkit::Result<()> {
    fusion.dropout.map_or(Ok(()), |dropout| dropout.check())
}

/// Layer normalization over the last axes, whose sizes are normalized_shape (Ba et al. 2016).
///
///     mean   = sum(x) / cols                             over a row: the last axes
///     rstd   = 1 / sqrt(sum((x - mean)^2) / cols + eps)
///     x_hat  = (x - mean) * rstd
///     output = x_hat * (weight + weight_offset) + bias
///
/// weight, bias (normalized_shape; or NULL) and mask are optional. Gradients, with g the gradient of the output and
/// h = g * (weight + weight_offset):
///
///     grad_input  = rstd * (h - mean(h) - x_hat * mean(h * x_hat))
///     grad_weight = sum over rows of g * x_hat
///     grad_bias   = sum over rows of g
///
/// With fusion, x is the hidden value and the output what the epilogue makes of the one above: add_layer_norm is the prologue RESIDUAL.
///
/// On errors *norm is NULL, here and in the other constructors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_layer_norm_new(
    options: *const LayerNormOptions,
    norm: *mut *mut Norm,
) -> Status {
    // SAFETY: the header says what `options` and `norm` must be.
    guard(|| unsafe { hand_out("norm", norm, || read::layer_norm(options)) })
}

/// Root-mean-square normalization over the last axes, whose sizes are normalized_shape (Zhang, Sennrich 2019).
///
///     rstd   = 1 / sqrt(sum(x_i^2, i < k) / k + eps)     eps inside
///     rstd   = 1 / (sqrt(sum(x_i^2, i < k) / k) + eps)   eps outside
///     x_hat  = x * rstd
///     output = x_hat * (weight + weight_offset) + bias
///
/// k is floor(partial * cols). weight, bias (normalized_shape; or NULL) and mask are optional. Gradients, with g the gradient of the
/// output, h = g * (weight + weight_offset) and s the root mean square:
///
///     grad_input_i = rstd * (h_i - [i < k] * x_hat_i * q * sum(h * x_hat) / k)
///     q            = 1 with eps inside, 1 / (rstd * s) with eps outside (0 where s = 0)
///     grad_weight  = sum over rows of g * x_hat
///     grad_bias    = sum over rows of g
///
/// With fusion, x is the hidden value and the output what the epilogue makes of the one above: add_rms_norm is the prologue RESIDUAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_rms_norm_new(
    options: *const RmsNormOptions,
    norm: *mut *mut Norm,
) -> Status {
    // SAFETY: the header says what `options` and `norm` must be.
    guard(|| unsafe { hand_out("norm", norm, || read::rms_norm(options)) })
}

/// Dynamic tanh, a norm's stand-in without statistics (Zhu et al. 2025).
///
///     output = weight * tanh(alpha * x) + bias
///
/// alpha is one element and must be there; weight and bias (normalized_shape, or [num_channels]; or NULL) are optional. Gradients, with
/// g the gradient of the output, h = g * weight and t = tanh(alpha * x):
///
///     grad_input  = h * alpha * (1 - t^2)
///     grad_alpha  = sum(h * x * (1 - t^2))
///     grad_weight = sum over rows of g * t
///     grad_bias   = sum over rows of g
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_dyt_new(options: *const DytOptions, norm: *mut *mut Norm) -> Status {
    // SAFETY: the header says what `options` and `norm` must be.
    guard(|| unsafe { hand_out("norm", norm, || read::dyt(options)) })
}

/// Batch normalization of inputs [N, C, ...] (Ioffe, Szegedy 2015): statistics of each channel over samples and positions.
///
///     output = (x - mean[c]) / sqrt(var[c] + eps) * weight[c] + bias[c]
///
/// Training: mean and var are the batch's, var being the biased one, of two values or more, or none. Where running_mean and running_var are
/// there, a forward pass moves them: running = (1 - momentum) * running + momentum * new, with the unbiased variance. On a GPU that
/// needs some memory of the call's own, and so may wait.
/// Not training: mean and var are running_mean and running_var, constants, which forward and backward need; there are no statistics to
/// save.
///
/// weight, bias ([C], or NULL) and mask are optional. Gradients, with g the gradient of the output, rstd = 1 / sqrt(var + eps) and
/// x_hat = (x - mean) * rstd:
///
///     grad_weight = sum(g * x_hat)
///     grad_bias   = sum(g)
///     grad_input  = weight * rstd * (g - mean(g) - x_hat * mean(g * x_hat))     in training, else weight * rstd * g
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_batch_norm_new(
    options: *const BatchNormOptions,
    norm: *mut *mut Norm,
) -> Status {
    // SAFETY: the header says what `options` and `norm` must be.
    guard(|| unsafe { hand_out("norm", norm, || read::batch_norm(options)) })
}

/// Group normalization of inputs [N, C, ...] (Wu, He 2018): statistics over the C / num_groups channels of a group and all positions, per
/// sample. Formula and gradients are layer_norm's with such rows, but that weight and bias ([C], or as many axes as the input and broadcast
/// to it; or NULL) are of channels. mask is optional.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_group_norm_new(
    options: *const GroupNormOptions,
    norm: *mut *mut Norm,
) -> Status {
    // SAFETY: the header says what `options` and `norm` must be.
    guard(|| unsafe { hand_out("norm", norm, || read::group_norm(options)) })
}

/// Instance normalization of inputs [N, C, L, ...]: group_norm with as many groups as channels.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_instance_norm_new(
    options: *const InstanceNormOptions,
    norm: *mut *mut Norm,
) -> Status {
    // SAFETY: the header says what `options` and `norm` must be.
    guard(|| unsafe { hand_out("norm", norm, || read::instance_norm(options)) })
}

/// Normalization of queries or keys before attention, [..., heads, head_dim], head by head: see normkit_qk_norm_kind. Called once for the
/// queries and once for the keys.
///
///     output = x_hat * weight + bias
///
/// weight and bias ([head_dim], [heads, head_dim] or one element; or NULL) are optional: the learned scale of L2 is the queries' weight.
/// The gradients are those of normalize, rms_norm and layer_norm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_qk_norm_new(options: *const QkNormOptions, norm: *mut *mut Norm) -> Status {
    // SAFETY: the header says what `options` and `norm` must be.
    guard(|| unsafe { hand_out("norm", norm, || read::qk_norm(options)) })
}

/// Weight normalization (Salimans, Kingma 2016): a weight from its direction, the input v, and its lengths, the weight g.
///
///     n      = sqrt(sum(v^2))          over every axis but dim, or over the whole tensor
///     output = g * v / n
///
/// g is optional (1) and has the size of v along dim and 1 elsewhere, or just that size; of NORMKIT_WHOLE, one element. A v of zeros gives
/// zeros, and passes no gradient. Gradients, with G the gradient of the output and u = v / n:
///
///     grad_weight = sum(G * u)
///     grad_input  = g / n * (G - u * sum(G * u))
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_weight_norm_new(
    options: *const WeightNormOptions,
    norm: *mut *mut Norm,
) -> Status {
    // SAFETY: the header says what `options` and `norm` must be.
    guard(|| unsafe { hand_out("norm", norm, || read::weight_norm(options)) })
}

/// Division of the vectors along an axis by their p-norm.
///
///     n      = sum(|x|^p)^(1/p)         p = infinity: max(|x|)
///     output = x / max(n, eps)
///
/// There are no parameters. Gradient, with g that of the output, y the output and sums over the vector:
///
///     grad_input = (g - u * sum(g * y)) / n       where n > eps, else g / eps
///     u          = sign(x) * |y|^(p-1)            p = infinity: sign(x) / ties where |x| = n, else 0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_normalize_new(
    options: *const NormalizeOptions,
    norm: *mut *mut Norm,
) -> Status {
    // SAFETY: the header says what `options` and `norm` must be.
    guard(|| unsafe { hand_out("norm", norm, || read::normalize(options)) })
}

/// Frees a norm; NULL is nothing. No call may be using it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_norm_free(norm: *mut Norm) {
    guard(|| {
        // SAFETY: the header says what `norm` must be.
        unsafe { take_back(norm) };
        Ok(())
    });
}
