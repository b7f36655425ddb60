//! The options of each method: structs that begin with their size, so that later versions can add fields at the end.

use crate::pointers::{check_place, check_size, put};
use crate::status::{Result, Status, guard};

/// Where eps is added.
#[repr(i32)]
pub enum EpsPosition {
    /// sqrt(mean square + eps)
    Inside = 0,
    /// sqrt(mean square) + eps
    Outside = 1,
}

/// Where rms_norm rounds. All arithmetic is in float32, of F64 in float64.
#[repr(i32)]
pub enum Cast {
    /// Once, at the end.
    Fp32 = 0,
    /// The normalized value is rounded to the input's dtype before the weight multiplies it, as in Llama models.
    Llama = 1,
    /// Once, and the weight is a difference from one, as in Gemma models: a weight_offset of 1.
    Gemma = 2,
}

/// How qk_norm normalizes a head x.
#[repr(i32)]
pub enum QkNormKind {
    /// x / max(|x|, eps); eps is 1e-12 by default.
    L2 = 0,
    /// x / sqrt(mean(x^2) + eps); eps is 1e-6 by default.
    Rms = 1,
    /// (x - mean(x)) / sqrt(var(x) + eps); eps is 1e-6 by default.
    Layer = 2,
}

/// What is done before a norm: which hidden value h it normalizes.
#[repr(i32)]
pub enum Prologue {
    /// h = input
    None = 0,
    /// h = input_scale * input + residual_scale * before
    Residual = 1,
    /// h = input * silu(before), silu(z) = z / (1 + exp(-z))
    Gate = 2,
}

/// What becomes of the normalized, scaled and shifted value v.
#[repr(i32)]
pub enum Epilogue {
    /// output = v
    None = 0,
    /// output = max(v, 0)
    Relu = 1,
    /// output = v / (1 + exp(-v))
    Silu = 2,
    /// output = v Phi(v), Phi being the normal distribution
    Gelu = 3,
    /// output = v / (1 + exp(-2 u)), u = sqrt(2 / pi) (v + 0.044715 v^3)
    GeluTanh = 4,
    /// output = v + after
    Residual = 5,
    /// output = v * silu(after)
    Gate = 6,
}

/// What surrounds a norm, in the same pass over memory.
#[repr(C)]
pub struct FusionOptions {
    /// sizeof(normkit_fusion_options)
    pub struct_size: usize,
    /// One of normkit_prologue; NONE.
    pub prologue: i32,
    /// One of normkit_epilogue; NONE.
    pub epilogue: i32,
    /// Multiplies the input of a residual before the norm; 1.
    pub input_scale: f64,
    /// Multiplies the residual before the norm; 1. DeepNorm: alpha.
    pub residual_scale: f64,
    /// Elements of the input are left out of the sum with a residual before the norm with this probability, from 0 up and below 1,
    /// the others being divided by one minus it; 0. Element e, in row-major order, is kept where word e % 4 of Philox 4x32-10 at
    /// the counter (e / 4, dropout_offset) under the key dropout_seed is at least dropout_probability * 2^32. A backward pass is to
    /// have the same numbers.
    pub dropout_probability: f64,
    /// Philox's key; 0.
    pub dropout_seed: u64,
    /// The upper half of its counter; 0.
    pub dropout_offset: u64,
}

/// Options of layer_norm.
#[repr(C)]
pub struct LayerNormOptions {
    /// sizeof(normkit_layer_norm_options)
    pub struct_size: usize,
    /// normalized_ndim sizes: the input's last axes.
    pub normalized_shape: *const i64,
    /// At least 1.
    pub normalized_ndim: i32,
    /// Not 0: weight and bias may have as many axes as the input, of which those of size 1 repeat, one of each sample or token; 0.
    pub broadcast_parameters: i32,
    /// Not negative; 1e-5.
    pub eps: f64,
    /// Added to the weight before it multiplies; 0.
    pub weight_offset: f64,
    /// What surrounds the norm, or NULL; NULL.
    pub fusion: *const FusionOptions,
}

/// Options of rms_norm.
#[repr(C)]
pub struct RmsNormOptions {
    /// sizeof(normkit_rms_norm_options)
    pub struct_size: usize,
    /// normalized_ndim sizes: the input's last axes.
    pub normalized_shape: *const i64,
    /// At least 1.
    pub normalized_ndim: i32,
    /// Not 0: weight and bias may have as many axes as the input, of which those of size 1 repeat, one of each sample or token; 0.
    pub broadcast_parameters: i32,
    /// Not negative. NaN, which is the default, stands for the machine epsilon of the input's dtype, as in PyTorch.
    pub eps: f64,
    /// The mean square is that of the first floor(partial * cols) columns; above 0, at most 1; 1.
    pub partial: f64,
    /// Added to the weight before it multiplies; 0.
    pub weight_offset: f64,
    /// One of normkit_eps_position; INSIDE.
    pub eps_position: i32,
    /// One of normkit_cast; FP32.
    pub cast: i32,
    /// What surrounds the norm, or NULL; NULL.
    pub fusion: *const FusionOptions,
}

/// Options of dyt.
#[repr(C)]
pub struct DytOptions {
    /// sizeof(normkit_dyt_options)
    pub struct_size: usize,
    /// normalized_ndim sizes, the input's last axes: the shape of weight and bias.
    pub normalized_shape: *const i64,
    /// At least 1, or 0 beside num_channels.
    pub normalized_ndim: i32,
    /// Always 0.
    pub reserved: i32,
    /// Above 0, for images [N, num_channels, ...]: weight and bias, [num_channels], vary along axis 1; 0.
    pub num_channels: i64,
}

/// Options of batch_norm.
#[repr(C)]
pub struct BatchNormOptions {
    /// sizeof(normkit_batch_norm_options)
    pub struct_size: usize,
    /// The channels: the size of the input's axis 1.
    pub num_features: i64,
    /// Not negative; 1e-5.
    pub eps: f64,
    /// Not 0: statistics of the batch; 0: the running ones; 1.
    pub training: i32,
    /// Always 0.
    pub reserved: i32,
}

/// Options of group_norm.
#[repr(C)]
pub struct GroupNormOptions {
    /// sizeof(normkit_group_norm_options)
    pub struct_size: usize,
    /// A divisor of num_channels.
    pub num_groups: i64,
    /// The size of the input's axis 1.
    pub num_channels: i64,
    /// Not negative; 1e-5.
    pub eps: f64,
    /// What surrounds the norm, or NULL; NULL.
    pub fusion: *const FusionOptions,
}

/// Options of instance_norm.
#[repr(C)]
pub struct InstanceNormOptions {
    /// sizeof(normkit_instance_norm_options)
    pub struct_size: usize,
    /// The channels: the size of the input's axis 1.
    pub num_features: i64,
    /// Not negative; 1e-5.
    pub eps: f64,
    /// What surrounds the norm, or NULL; NULL.
    pub fusion: *const FusionOptions,
}

/// Options of qk_norm.
#[repr(C)]
pub struct QkNormOptions {
    /// sizeof(normkit_qk_norm_options)
    pub struct_size: usize,
    /// One of normkit_qk_norm_kind; RMS.
    pub kind: i32,
    /// Always 0.
    pub reserved: i32,
    /// Not negative. NaN, which is the default, stands for the kind's own.
    pub eps: f64,
}

/// The dim of a weight_norm with one norm for the whole tensor.
pub const NORMKIT_WHOLE: i64 = -1;

/// Options of weight_norm.
#[repr(C)]
pub struct WeightNormOptions {
    /// sizeof(normkit_weight_norm_options)
    pub struct_size: usize,
    /// The axis whose indices have a norm each, from 0 up, or NORMKIT_WHOLE; 0.
    pub dim: i64,
}

/// Options of normalize.
#[repr(C)]
pub struct NormalizeOptions {
    /// sizeof(normkit_normalize_options)
    pub struct_size: usize,
    /// The axis that the vectors lie along; negative numbers count from the last; 1.
    pub dim: i64,
    /// 1 to 100, or infinity; 2.
    pub p: f64,
    /// Not negative; 1e-12.
    pub eps: f64,
}

/// Writes defaults to a caller's struct, if it has the size that it should have.
///
/// # Safety
/// `at` is NULL or points to `struct_size` bytes.
unsafe fn init<T>(at: *mut T, struct_size: usize, defaults: T) -> Result<()> {
    check_place("options", at)?;
    check_size::<T>("struct_size", struct_size)?;
    // SAFETY: the size is that of `T`, and else as the caller says.
    unsafe { put("options", at, defaults) }
}

/// Fills in the defaults, which the fields' comments end with. struct_size is sizeof(*options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_fusion_options_init(
    options: *mut FusionOptions,
    struct_size: usize,
) -> Status {
    let defaults = FusionOptions {
        struct_size,
        prologue: Prologue::None as i32,
        epilogue: Epilogue::None as i32,
        input_scale: 1.0,
        residual_scale: 1.0,
        dropout_probability: 0.0,
        dropout_seed: 0,
        dropout_offset: 0,
    };
    // SAFETY: the header says what `options` must be.
    guard(|| unsafe { init(options, struct_size, defaults) })
}

/// Fills in the defaults; normalized_shape is to be set. struct_size is sizeof(*options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_layer_norm_options_init(
    options: *mut LayerNormOptions,
    struct_size: usize,
) -> Status {
    let defaults = LayerNormOptions {
        struct_size,
        normalized_shape: std::ptr::null(),
        normalized_ndim: 0,
        broadcast_parameters: 0,
        eps: 1e-5,
        weight_offset: 0.0,
        fusion: std::ptr::null(),
    };
    // SAFETY: the header says what `options` must be.
    guard(|| unsafe { init(options, struct_size, defaults) })
}

/// Fills in the defaults; normalized_shape is to be set. struct_size is sizeof(*options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_rms_norm_options_init(
    options: *mut RmsNormOptions,
    struct_size: usize,
) -> Status {
    let defaults = RmsNormOptions {
        struct_size,
        normalized_shape: std::ptr::null(),
        normalized_ndim: 0,
        broadcast_parameters: 0,
        eps: f64::NAN,
        partial: 1.0,
        weight_offset: 0.0,
        eps_position: EpsPosition::Inside as i32,
        cast: Cast::Fp32 as i32,
        fusion: std::ptr::null(),
    };
    // SAFETY: the header says what `options` must be.
    guard(|| unsafe { init(options, struct_size, defaults) })
}

/// Fills in the defaults; normalized_shape or num_channels is to be set. struct_size is sizeof(*options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_dyt_options_init(options: *mut DytOptions, struct_size: usize) -> Status {
    let normalized_shape = std::ptr::null();
    let defaults =
        DytOptions { struct_size, normalized_shape, normalized_ndim: 0, reserved: 0, num_channels: 0 };
    // SAFETY: the header says what `options` must be.
    guard(|| unsafe { init(options, struct_size, defaults) })
}

/// Fills in the defaults; num_features is to be set. struct_size is sizeof(*options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_batch_norm_options_init(
    options: *mut BatchNormOptions,
    struct_size: usize,
) -> Status {
    let defaults = BatchNormOptions { struct_size, num_features: 0, eps: 1e-5, training: 1, reserved: 0 };
    // SAFETY: the header says what `options` must be.
    guard(|| unsafe { init(options, struct_size, defaults) })
}

/// Fills in the defaults; num_groups and num_channels are to be set. struct_size is sizeof(*options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_group_norm_options_init(
    options: *mut GroupNormOptions,
    struct_size: usize,
) -> Status {
    let fusion = std::ptr::null();
    let defaults = GroupNormOptions { struct_size, num_groups: 0, num_channels: 0, eps: 1e-5, fusion };
    // SAFETY: the header says what `options` must be.
    guard(|| unsafe { init(options, struct_size, defaults) })
}

/// Fills in the defaults; num_features is to be set. struct_size is sizeof(*options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_instance_norm_options_init(
    options: *mut InstanceNormOptions,
    struct_size: usize,
) -> Status {
    let defaults = InstanceNormOptions { struct_size, num_features: 0, eps: 1e-5, fusion: std::ptr::null() };
    // SAFETY: the header says what `options` must be.
    guard(|| unsafe { init(options, struct_size, defaults) })
}

/// Fills in the defaults. struct_size is sizeof(*options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_qk_norm_options_init(
    options: *mut QkNormOptions,
    struct_size: usize,
) -> Status {
    let defaults = QkNormOptions { struct_size, kind: QkNormKind::Rms as i32, reserved: 0, eps: f64::NAN };
    // SAFETY: the header says what `options` must be.
    guard(|| unsafe { init(options, struct_size, defaults) })
}

/// Fills in the defaults. struct_size is sizeof(*options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_weight_norm_options_init(
    options: *mut WeightNormOptions,
    struct_size: usize,
) -> Status {
    // SAFETY: the header says what `options` must be.
    guard(|| unsafe { init(options, struct_size, WeightNormOptions { struct_size, dim: 0 }) })
}

/// Fills in the defaults. struct_size is sizeof(*options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_normalize_options_init(
    options: *mut NormalizeOptions,
    struct_size: usize,
) -> Status {
    let defaults = NormalizeOptions { struct_size, dim: 1, p: 2.0, eps: 1e-12 };
    // SAFETY: the header says what `options` must be.
    guard(|| unsafe { init(options, struct_size, defaults) })
}
