//! Forward and backward passes.

use crate::context::Context;
use crate::method::{Config, Given, Operands};
use crate::norm::Norm;
use crate::pointers::{check_place, put, required, sized};
use crate::status::{Fault, Result, Status, guard};
use crate::tensor::{Described, Tensor, dtype_number};
use normkit::norm::FrozenBatchNorm;
use normkit::norm::{Gradients, RunningViews};
use normkit::spec::{MOMENTS, STATISTICS};
use normkit::tensor::{DType, Tensor as _, View, ViewMut};
use normkit::{DeviceTensor, Method};

/// The tensors of a forward pass. Those that are not needed are NULL; set all to zero before you fill it in.
#[repr(C)]
pub struct ForwardArguments {
    /// sizeof(normkit_forward_arguments)
    pub struct_size: usize,
    /// Read: what is normalized, any strides.
    pub input: *const Tensor,
    /// Read: multiplies the normalized value. This and the next four may have a dtype of their own: F64 beside an input of F64 only.
    pub weight: *const Tensor,
    /// Read: added to it.
    pub bias: *const Tensor,
    /// Read: dyt's, one element.
    pub alpha: *const Tensor,
    /// Read: elements where it is 0 take no part, and their output and gradient are 0. Broadcasts to the input's shape.
    pub mask: *const Tensor,
    /// Read: the other operand of the fusion's prologue; the input's shape.
    pub before: *const Tensor,
    /// Read: the other operand of the fusion's epilogue; the input's shape and a dtype as for the weight.
    pub after: *const Tensor,
    /// Written: the input's shape and dtype. May be exactly the input, before or after; no other overlap is allowed.
    pub output: *const Tensor,
    /// Written: what was normalized, with a prologue; the input's shape, and the dtype of a residual, else the input's. May be exactly
    /// the input or before. Optional.
    pub hidden: *const Tensor,
    /// Written: what a backward pass needs; see normkit_statistics_shape. Optional.
    pub statistics: *const Tensor,
    /// batch_norm's, [C]: read where not training, else updated. In training both or none.
    pub running_mean: *const Tensor,
    /// batch_norm's, [C]: read where not training, else updated.
    pub running_var: *const Tensor,
    /// The share of the batch in new running statistics, 0 to 1; not looked at without them.
    pub momentum: f64,
}

/// The tensors of a backward pass. Those that are not needed are NULL; set all to zero before you fill it in.
#[repr(C)]
pub struct BackwardArguments {
    /// sizeof(normkit_backward_arguments)
    pub struct_size: usize,
    /// Read: the gradient of the output; the input's shape and dtype.
    pub grad_output: *const Tensor,
    /// Read: the gradient of the hidden value, where that was used, too; its shape and dtype. Optional.
    pub grad_hidden: *const Tensor,
    /// Read: the forward pass's input. With the prologue RESIDUAL, it may be the hidden value, before being NULL.
    pub input: *const Tensor,
    /// Read: what the forward pass saved. Required, except of dyt, and of a batch_norm that is not training.
    pub statistics: *const Tensor,
    /// Read: as in the forward pass.
    pub weight: *const Tensor,
    /// Read: as in the forward pass.
    pub bias: *const Tensor,
    /// Read: as in the forward pass.
    pub alpha: *const Tensor,
    /// Read: as in the forward pass.
    pub mask: *const Tensor,
    /// Read: as in the forward pass; NULL where the input is the hidden value.
    pub before: *const Tensor,
    /// Read: as in the forward pass; of the epilogue RESIDUAL it may be NULL.
    pub after: *const Tensor,
    /// Read: batch_norm's where it is not training, else NULL.
    pub running_mean: *const Tensor,
    /// Read: as running_mean.
    pub running_var: *const Tensor,
    /// Written: the gradient of the input; its shape and dtype. May be exactly grad_output. This and the next five are computed where
    /// they are not NULL; each needs the tensor whose gradient it is, and has its shape and dtype.
    pub grad_input: *const Tensor,
    /// Written: the gradient of the weight.
    pub grad_weight: *const Tensor,
    /// Written: the gradient of the bias.
    pub grad_bias: *const Tensor,
    /// Written: the gradient of alpha.
    pub grad_alpha: *const Tensor,
    /// Written: the gradient of before. May be exactly grad_hidden. Where the hidden value stands for input and before, it has the shape and
    /// dtype of that.
    pub grad_before: *const Tensor,
    /// Written: the gradient of after.
    pub grad_after: *const Tensor,
}

/// The views of a call on a context.
struct Views<'c> {
    context: &'c Context,
}

impl<'c> Views<'c> {
    /// # Safety
    /// `tensor` is NULL or as `normkit_tensor` says, and nobody writes its memory until the call's work is done.
    unsafe fn read(&self, name: &'static str, tensor: *const Tensor) -> Result<Option<View<'c>>> {
        // SAFETY: the caller's promise is the same.
        let described = unsafe { Described::of(name, tensor) }?;
        // SAFETY: as above.
        described.map(|tensor| unsafe { tensor.view(self.context) }).transpose()
    }

    /// # Safety
    /// As [`read`](Views::read), and nobody else reads it either.
    unsafe fn write(&self, name: &'static str, tensor: *const Tensor) -> Result<Option<ViewMut<'c>>> {
        // SAFETY: the caller's promise is the same.
        let described = unsafe { Described::of(name, tensor) }?;
        // SAFETY: as above.
        described.map(|tensor| unsafe { tensor.view_mut(self.context) }).transpose()
    }
}

fn needed<T>(name: &str, view: Option<T>) -> Result<T> {
    view.ok_or_else(|| Fault::argument(name, "a tensor", "NULL"))
}

/// Refuses an input with other channels than a batch norm's, before memory for so many is asked for.
fn check_channels(config: &Config, shape: &[usize]) -> Result<()> {
    match *config {
        Config::BatchNorm { num_features, .. } if shape.get(1) != Some(&num_features) => {
            let expected = format!("a shape [N, {num_features}, ...]");
            Err(Fault::argument("input", expected, format!("{shape:?}")))
        }
        _ => Ok(()),
    }
}

/// What runs: a method, or a batch norm by running statistics.
enum Bound<'a> {
    Method(Box<dyn Method + 'a>),
    Frozen(Box<FrozenBatchNorm<'a>>),
}

impl<'a> Bound<'a> {
    fn new(
        config: &Config,
        operands: Operands<'a>,
        (shape, input): (&[usize], DType),
        running: [Option<&View<'_>>; 2],
        context: &Context,
    ) -> Result<Self> {
        if let (Config::BatchNorm { training: false, .. }, [Some(mean), Some(var)]) = (config, running) {
            for (name, view) in [("running_mean", mean), ("running_var", var)] {
                if view.dtype().compute() != input.compute() {
                    let expected = if input == DType::F64 { "dtype f64" } else { "dtype f16, bf16 or f32" };
                    let expected = format!("{expected} beside an input of {input}");
                    return Err(Fault::argument(name, expected, format!("dtype {}", view.dtype())));
                }
            }
            if let Some(norm) = config.batch_norm(operands.clone()) {
                check_channels(config, shape)?;
                let frozen = norm.frozen_on(mean, var, &context.stream());
                return Ok(Bound::Frozen(Box::new(frozen.map_err(|e| Fault::renamed(e, &config.names()))?)));
            }
        }
        Ok(Bound::Method(config.bind(operands)))
    }

    fn method(&self) -> &dyn Method {
        match self {
            Bound::Method(method) => &**method,
            Bound::Frozen(method) => &**method,
        }
    }
}

/// # Safety
/// The arguments' tensors are as the header says.
unsafe fn forward(norm: &Norm, context: &Context, arguments: &ForwardArguments) -> Result<()> {
    let (config, views, a) = (&norm.config, Views { context }, arguments);
    // SAFETY: the caller's promise is the same, here and below.
    let input = needed("input", unsafe { views.read("input", a.input) }?)?;
    // SAFETY: as above.
    let operands = unsafe {
        Operands {
            weight: views.read("weight", a.weight)?,
            bias: views.read("bias", a.bias)?,
            alpha: views.read("alpha", a.alpha)?,
            mask: views.read("mask", a.mask)?,
            before: views.read("before", a.before)?,
            after: views.read("after", a.after)?,
        }
    };
    // SAFETY: as above.
    let mut output = needed("output", unsafe { views.write("output", a.output) }?)?;
    // SAFETY: as above.
    let (mut hidden, mut statistics) =
        unsafe { (views.write("hidden", a.hidden)?, views.write("statistics", a.statistics)?) };
    config.check(given(&operands, [a.running_mean, a.running_var]), false)?;
    let stream = context.stream();
    let rename = |error| Fault::renamed(error, &config.names());
    if let Config::BatchNorm { training: true, num_features, .. } = *config
        && !a.running_mean.is_null()
    {
        // SAFETY: as above.
        let (mean, var) = unsafe {
            (views.write("running_mean", a.running_mean)?, views.write("running_var", a.running_var)?)
        };
        let running = RunningViews {
            mean: needed("running_mean", mean)?,
            var: needed("running_var", var)?,
            factor: a.momentum,
        };
        check_channels(config, input.shape())?;
        let norm =
            config.batch_norm(operands).ok_or_else(|| Fault::argument("norm", "a batch norm", "none"))?;
        let numbers = |per_row| stream.device().zeros(&[num_features, per_row], input.dtype().compute());
        let mut moments = numbers(MOMENTS)?;
        let mut own: Option<DeviceTensor> = None;
        let statistics = match &mut statistics {
            Some(view) => view,
            None => &mut own.insert(numbers(STATISTICS)?).view_mut()?,
        };
        let result =
            norm.train_into(&input, &mut output, statistics, &mut moments.view_mut()?, running, &stream);
        return result.map_err(rename);
    }
    // SAFETY: as above.
    let running =
        unsafe { (views.read("running_mean", a.running_mean)?, views.read("running_var", a.running_var)?) };
    let running = [running.0.as_ref(), running.1.as_ref()];
    let bound = Bound::new(config, operands, (input.shape(), input.dtype()), running, context)?;
    if statistics.is_some()
        && bound.method().statistics_shape(input.shape(), input.dtype()).map_err(rename)?.is_none()
    {
        let expected = format!("NULL, since this {} saves none", config.name());
        return Err(Fault::argument("statistics", expected, "a tensor"));
    }
    let (hidden, statistics) = (hidden.as_mut(), statistics.as_mut());
    bound.method().forward_hidden_into(&input, &mut output, hidden, statistics, &stream).map_err(rename)
}

/// # Safety
/// The arguments' tensors are as the header says.
unsafe fn backward(norm: &Norm, context: &Context, arguments: &BackwardArguments) -> Result<()> {
    let (config, views, a) = (&norm.config, Views { context }, arguments);
    // SAFETY: the caller's promise is the same, here and below.
    let input = needed("input", unsafe { views.read("input", a.input) }?)?;
    // SAFETY: as above.
    let grad_output = needed("grad_output", unsafe { views.read("grad_output", a.grad_output) }?)?;
    // SAFETY: as above.
    let operands = unsafe {
        Operands {
            weight: views.read("weight", a.weight)?,
            bias: views.read("bias", a.bias)?,
            alpha: views.read("alpha", a.alpha)?,
            mask: views.read("mask", a.mask)?,
            before: views.read("before", a.before)?,
            after: views.read("after", a.after)?,
        }
    };
    // SAFETY: as above.
    let (grad_hidden, statistics) =
        unsafe { (views.read("grad_hidden", a.grad_hidden)?, views.read("statistics", a.statistics)?) };
    // SAFETY: as above.
    let running =
        unsafe { (views.read("running_mean", a.running_mean)?, views.read("running_var", a.running_var)?) };
    // SAFETY: as above.
    let grads = unsafe {
        Gradients {
            input: views.write("grad_input", a.grad_input)?,
            weight: views.write("grad_weight", a.grad_weight)?,
            bias: views.write("grad_bias", a.grad_bias)?,
            alpha: views.write("grad_alpha", a.grad_alpha)?,
            before: views.write("grad_before", a.grad_before)?,
            after: views.write("grad_after", a.grad_after)?,
            ..Gradients::default()
        }
    };
    config.check(given(&operands, [a.running_mean, a.running_var]), true)?;
    if let (Config::BatchNorm { training: true, .. }, (Some(_), _)) = (config, &running) {
        let expected = "NULL, since a batch norm in training does not look at it";
        return Err(Fault::argument("running_mean", expected, "a tensor"));
    }
    let running = [running.0.as_ref(), running.1.as_ref()];
    let bound = Bound::new(config, operands, (input.shape(), input.dtype()), running, context)?;
    if let (Bound::Frozen(_), Some(_)) = (&bound, &statistics) {
        let expected = "NULL, since a batch_norm that is not training saves none";
        return Err(Fault::argument("statistics", expected, "a tensor"));
    }
    let (grad_hidden, statistics, stream) = (grad_hidden.as_ref(), statistics.as_ref(), context.stream());
    let result = context.with_workspace(|workspace| {
        let method = bound.method();
        method.backward_hidden_into(&grad_output, grad_hidden, &input, statistics, grads, workspace, &stream)
    });
    result.map_err(|error| Fault::renamed(error, &config.names()))
}

/// What there is, for the method to say whether it should be.
fn given(operands: &Operands<'_>, [mean, var]: [*const Tensor; 2]) -> Given {
    Given {
        weight: operands.weight.is_some(),
        bias: operands.bias.is_some(),
        alpha: operands.alpha.is_some(),
        mask: operands.mask.is_some(),
        before: operands.before.is_some(),
        after: operands.after.is_some(),
        running_mean: !mean.is_null(),
        running_var: !var.is_null(),
    }
}

/// # Safety
/// The pointers are NULL or as the header says.
unsafe fn statistics_shape(
    norm: *const Norm,
    input: *const Tensor,
    shape: *mut i64,
    dtype: *mut i32,
) -> Result<()> {
    // SAFETY: the caller's promise is the same.
    let (norm, input) = unsafe { (required("norm", norm)?, Described::description("input", input)?) };
    check_place("shape", shape)?;
    check_place("dtype", dtype)?;
    let (config, (own_shape, own_dtype)) = (&norm.config, input);
    let found = match config {
        // It saves none, but would ask for its alpha first, or have running statistics in their place.
        Config::Dyt { .. } | Config::BatchNorm { training: false, .. } => None,
        _ => config
            .bind(Operands::default())
            .statistics_shape(&own_shape, own_dtype)
            .map_err(|error| Fault::renamed(error, &config.names()))?,
    };
    let [rows, cols] = found.unwrap_or_default().map(|size| size as i64);
    // SAFETY: as above; the header says that there are two.
    unsafe {
        put("shape", shape, rows)?;
        put("shape", shape.wrapping_add(1), cols)?;
        put("dtype", dtype, dtype_number(own_dtype.compute()))
    }
}

/// Writes the shape and the dtype of the statistics of an input: shape[0] = rows and shape[1] = 4, or zeros where the method saves none
/// (dyt, and a batch_norm that is not training); F64 for an input of F64, else F32. The statistics are a row-major tensor, the caller's.
/// Of the input only dtype, ndim and shape are looked at.
///
/// Errors: NULL; an input that the method cannot have.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_statistics_shape(
    norm: *const Norm,
    input: *const Tensor,
    shape: *mut i64,
    dtype: *mut i32,
) -> Status {
    // SAFETY: the header says what the pointers must be.
    guard(|| unsafe { statistics_shape(norm, input, shape, dtype) })
}

/// The forward pass: writes output, and hidden and statistics where they are not NULL. On the CPU it has finished when the call
/// returns; on a GPU it is enqueued.
///
/// Errors, of which those of arguments name the field: NULL where a tensor is needed or a tensor where none is of use, a shape or
/// dtype that does not fit, memory that overlaps otherwise than allowed, momentum outside 0 to 1. Nothing was written then.
///
/// Threads: any number of calls may share norm and context. What they write must be apart from what the others read and write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_forward(
    norm: *const Norm,
    context: *const Context,
    arguments: *const ForwardArguments,
) -> Status {
    // SAFETY: the header says what the pointers must be.
    guard(|| unsafe {
        forward(required("norm", norm)?, required("context", context)?, sized("arguments", arguments)?)
    })
}

/// The backward pass: writes those of the gradients that are not NULL. The others are not computed; without any, only the arguments are
/// checked. On the CPU it has finished when the call returns; on a GPU it is enqueued.
///
/// Errors are as in normkit_forward; also statistics that are missing, and the gradient of a tensor that is not there.
///
/// Threads: as normkit_forward.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn normkit_backward(
    norm: *const Norm,
    context: *const Context,
    arguments: *const BackwardArguments,
) -> Status {
    // SAFETY: the header says what the pointers must be.
    guard(|| unsafe {
        backward(required("norm", norm)?, required("context", context)?, sized("arguments", arguments)?)
    })
}
