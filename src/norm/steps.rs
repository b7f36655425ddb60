//! A norm in separate steps: *moments*, *merge*, *finish* and *apply*, and backward *sums*, *merge* and *apply*.
//!
//! Whatever lies between the statistics and their use goes between the steps: running statistics, a merge over devices
//! or over parts of a batch, smoothing. Doing all steps in a row gives the bits of the whole.
//!
//! ```
//! use normkit::norm::steps;
//! use normkit::prelude::*;
//! let norm = LayerNorm::new([4]).eps(0.0);
//! let x = HostTensor::from_vec(vec![1.0f32, 1.0, 3.0, 3.0], &[1, 4])?;
//! let moments = steps::moments(&norm, &x)?;
//! let statistics = steps::finish(&norm, &x, &moments)?;
//! assert_eq!(steps::apply(&norm, &x, &statistics)?.to_f64(), [-1.0, -1.0, 1.0, 1.0]);
//! # Ok::<(), normkit::Error>(())
//! ```

use super::arguments::{
    self, BackwardArguments, ForwardArguments, check_narrow, check_output, check_per_row,
};
use super::{Gradients, Method, Parameters, checked};
use crate::backend::{self, Between};
use crate::spec::{MOMENTS, Norm, STATISTICS, SUMS, Spec};
use crate::tensor::{DType, Tensor, View, ViewMut};
use crate::{DeviceTensor, Error, Result, Stream, Workspace};

pub(super) fn run_forward<M: Method + ?Sized>(
    method: &M,
    arguments: ForwardArguments<'_>,
    stream: &Stream<'_>,
) -> Result<()> {
    let spec = method.lower(arguments.input.shape(), arguments.input.dtype())?;
    run_spec(spec, checked(method.parameters())?, arguments, stream)
}

/// A forward pass of a spec that is more than its method's own.
pub(super) fn run_spec(
    spec: Spec,
    parameters: &Parameters<'_>,
    arguments: ForwardArguments<'_>,
    stream: &Stream<'_>,
) -> Result<()> {
    // Not by way of `prepare_forward`: operands are many words, and each move of them takes a part of a short row's time.
    let operands = arguments::forward(&spec, parameters, arguments, stream)?;
    backend::forward(&without_empty_rows(spec), operands, stream)
}

pub(super) fn run_backward<M: Method + ?Sized>(
    method: &M,
    arguments: BackwardArguments<'_>,
    workspace: &mut Workspace,
    stream: &Stream<'_>,
) -> Result<()> {
    let spec = method.lower(arguments.input.shape(), arguments.input.dtype())?;
    let operands = arguments::backward(&spec, checked(method.parameters())?, arguments, stream)?;
    backend::backward(&without_empty_rows(spec), operands, workspace, stream)
}

/// What the backend is to do, or what is wrong with the arguments.
pub(super) fn prepare_forward<'a, M: Method + ?Sized>(
    method: &'a M,
    arguments: ForwardArguments<'a>,
    stream: &Stream<'_>,
) -> Result<(Spec, backend::Forward<'a>)> {
    let spec = method.lower(arguments.input.shape(), arguments.input.dtype())?;
    let operands = arguments::forward(&spec, checked(method.parameters())?, arguments, stream)?;
    Ok((without_empty_rows(spec), operands))
}

/// Rows without elements, which only an empty batch on its way through BatchNorm has, have nothing to compute and
/// no part in the parameters' gradients: the same as no rows.
fn without_empty_rows(mut spec: Spec) -> Spec {
    if spec.cols() == 0
        && let Spec::Norm(norm) = &mut spec
    {
        norm.reduced.clear();
    }
    spec
}

/// As [`prepare_forward`].
pub(super) fn prepare_backward<'a, M: Method + ?Sized>(
    method: &'a M,
    arguments: BackwardArguments<'a>,
    stream: &Stream<'_>,
) -> Result<(Spec, backend::Backward<'a>)> {
    let spec = method.lower(arguments.input.shape(), arguments.input.dtype())?;
    let operands = arguments::backward(&spec, checked(method.parameters())?, arguments, stream)?;
    Ok((without_empty_rows(spec), operands))
}

/// The spec of a norm; an error for methods without statistics.
fn norm_of<M: Method + ?Sized>(method: &M, shape: &[usize], dtype: DType) -> Result<Norm> {
    match method.lower(shape, dtype)? {
        Spec::Norm(norm) => Ok(norm),
        _ => Err(Error::argument("method", "a method with statistics", method.name())),
    }
}

/// Numbers of rows that `method` has for an input of `shape`.
fn rows_of<M: Method + ?Sized>(method: &M, shape: &[usize], dtype: DType) -> Result<usize> {
    norm_of(method, shape, dtype).map(|norm| Spec::Norm(norm).rows())
}

/// Writes the moments of each row of `input`, `[rows, MOMENTS]`.
pub fn moments_into<M: Method + ?Sized>(
    method: &M,
    input: &View<'_>,
    moments: &mut ViewMut<'_>,
    stream: &Stream<'_>,
) -> Result<()> {
    let moments = Some(moments.reborrow());
    let arguments = ForwardArguments { moments, ..ForwardArguments::new(input) };
    run_forward(method, arguments, stream)
}

/// The moments of each row of `input`, `[rows, MOMENTS]` in the compute dtype.
pub fn moments<T: Tensor>(method: &impl Method, input: &T) -> Result<DeviceTensor> {
    let (view, device) = (input.view()?, input.device());
    let rows = rows_of(method, view.shape(), view.dtype())?;
    let mut moments = device.zeros(&[rows, MOMENTS], view.dtype().compute())?;
    moments_into(method, &view, &mut moments.view_mut()?, &device.stream())?;
    Ok(moments)
}

/// Writes the moments of the union of the elements behind each of `parts`, merged in order. All are `[rows, MOMENTS]`.
pub fn merge_moments_into<M: Method + ?Sized>(
    method: &M,
    input_shape: &[usize],
    parts: &[View<'_>],
    output: &mut ViewMut<'_>,
    stream: &Stream<'_>,
) -> Result<()> {
    let dtype = output.dtype();
    let norm = norm_of(method, input_shape, dtype)?;
    check_parts(parts, &output.as_view(), MOMENTS, stream)?;
    backend::between(dtype, Between::MergeMoments { norm: &norm, parts, output: output.reborrow() }, stream)
}

/// Moments of the union of two sets of elements, row by row: of two parts of a batch, or of two devices. `input` tells
/// the method the shape of one part.
pub fn merge_moments<T: Tensor>(
    method: &impl Method,
    input: &T,
    parts: &[DeviceTensor],
) -> Result<DeviceTensor> {
    let (view, device) = (input.view()?, input.device());
    let rows = rows_of(method, view.shape(), view.dtype())?;
    let views = parts.iter().map(Tensor::view).collect::<Result<Vec<_>>>()?;
    let mut output = device.zeros(&[rows, MOMENTS], view.dtype().compute())?;
    merge_moments_into(method, view.shape(), &views, &mut output.view_mut()?, &device.stream())?;
    Ok(output)
}

/// Writes the statistics, `[rows, STATISTICS]`, that follow from `moments`. Shape and dtype of the input tell the method
/// what it would be for such an input: RMSNorm's eps, say, is by default that of the dtype.
pub fn finish_into<M: Method + ?Sized>(
    method: &M,
    (input_shape, input_dtype): (&[usize], DType),
    moments: &View<'_>,
    statistics: &mut ViewMut<'_>,
    stream: &Stream<'_>,
) -> Result<()> {
    let dtype = moments.dtype();
    let norm = norm_of(method, input_shape, input_dtype)?;
    let rows = moments.shape().first().copied().unwrap_or(0);
    check_per_row("moments", moments, [rows, MOMENTS], dtype, stream)?;
    let output = statistics.as_view();
    check_per_row("statistics", &output, [rows, STATISTICS], dtype, stream)?;
    check_output("statistics", &output, None, &[("moments", Some(moments))])?;
    let launch = Between::Finish { norm: &norm, moments: moments.clone(), output: statistics.reborrow() };
    backend::between(dtype, launch, stream)
}

/// The statistics that follow from `moments`, `[rows, STATISTICS]`; `input` tells the method the shape.
pub fn finish<T: Tensor>(method: &impl Method, input: &T, moments: &DeviceTensor) -> Result<DeviceTensor> {
    let (view, device, moments) = (input.view()?, input.device(), moments.view()?);
    let rows = rows_of(method, view.shape(), view.dtype())?;
    let mut statistics = device.zeros(&[rows, STATISTICS], view.dtype().compute())?;
    let input = (view.shape(), view.dtype());
    finish_into(method, input, &moments, &mut statistics.view_mut()?, &device.stream())?;
    Ok(statistics)
}

/// Writes `input`, normalized with given statistics, to `output`; in place if it is exactly `input`.
pub fn apply_into<M: Method + ?Sized>(
    method: &M,
    input: &View<'_>,
    statistics: &View<'_>,
    output: &mut ViewMut<'_>,
    stream: &Stream<'_>,
) -> Result<()> {
    let output = Some(output.reborrow());
    let arguments = ForwardArguments { given: Some(statistics), output, ..ForwardArguments::new(input) };
    run_forward(method, arguments, stream)
}

/// `input`, normalized with given statistics.
pub fn apply<T: Tensor>(method: &impl Method, input: &T, statistics: &DeviceTensor) -> Result<T> {
    let view = input.view()?;
    let mut output = input.empty(view.shape(), view.dtype())?;
    let stream = input.device().stream();
    apply_into(method, &view, &statistics.view()?, &mut output.view_mut()?, &stream)?;
    Ok(output)
}

/// Writes what the gradient of the input needs of each row to `sums`, `[rows, SUMS]`, and the gradients of the
/// parameters that `grads` asks for.
pub fn backward_sums_into<M: Method + ?Sized>(
    method: &M,
    grad_output: &View<'_>,
    input: &View<'_>,
    statistics: &View<'_>,
    sums: &mut ViewMut<'_>,
    grads: Gradients<'_>,
    workspace: &mut Workspace,
    stream: &Stream<'_>,
) -> Result<()> {
    if grads.input.is_some() {
        return Err(Error::argument("grad_input", "none: it needs the sums", "a tensor"));
    }
    let (statistics, sums) = (Some(statistics), Some(sums.reborrow()));
    let arguments =
        BackwardArguments { statistics, sums, ..BackwardArguments::new(grad_output, input, grads) };
    run_backward(method, arguments, workspace, stream)
}

/// Writes the sums over the union of the elements behind each of `parts`, added in order. All are `[rows, SUMS]`.
pub fn merge_sums_into(parts: &[View<'_>], output: &mut ViewMut<'_>, stream: &Stream<'_>) -> Result<()> {
    check_parts(parts, &output.as_view(), SUMS, stream)?;
    backend::between(output.dtype(), Between::MergeSums { parts, output: output.reborrow() }, stream)
}

/// Writes the gradient of the input, given each row's sums. In place if `grad_input` is exactly `grad_output`.
pub fn backward_apply_into<M: Method + ?Sized>(
    method: &M,
    grad_output: &View<'_>,
    input: &View<'_>,
    statistics: &View<'_>,
    sums: &View<'_>,
    grad_input: &mut ViewMut<'_>,
    stream: &Stream<'_>,
) -> Result<()> {
    let grads = Gradients { input: Some(grad_input.reborrow()), ..Gradients::default() };
    let (statistics, given) = (Some(statistics), Some(sums));
    let arguments =
        BackwardArguments { statistics, given, ..BackwardArguments::new(grad_output, input, grads) };
    run_backward(method, arguments, &mut Workspace::new(), stream)
}

/// Parts to merge and where to: at least one, all `[rows, per_row]`, apart from the output.
fn check_parts(parts: &[View<'_>], output: &View<'_>, per_row: usize, stream: &Stream<'_>) -> Result<()> {
    if parts.is_empty() {
        return Err(Error::argument("parts", "at least one", "none"));
    }
    let rows = output.shape().first().copied().unwrap_or(0);
    check_per_row("output", output, [rows, per_row], output.dtype(), stream)?;
    for part in parts {
        check_per_row("parts", part, [rows, per_row], output.dtype(), stream)?;
        check_output("output", output, None, &[("parts", Some(part))])?;
    }
    Ok(())
}

/// Writes the statistics, `[rows, STATISTICS]`, that a mean and a variance per row amount to.
pub(super) fn from_running_into(
    norm: &Norm,
    mean: &View<'_>,
    var: &View<'_>,
    statistics: &mut ViewMut<'_>,
    stream: &Stream<'_>,
) -> Result<()> {
    let dtype = statistics.dtype();
    let rows = statistics.shape().first().copied().unwrap_or(0);
    check_running("running_mean", mean, rows, dtype, stream)?;
    check_running("running_var", var, rows, dtype, stream)?;
    let output = statistics.as_view();
    check_per_row("statistics", &output, [rows, STATISTICS], dtype, stream)?;
    check_output("statistics", &output, None, &[("running_mean", Some(mean)), ("running_var", Some(var))])?;
    let (mean, var) = (mean.clone(), var.clone());
    backend::between(dtype, Between::FromRunning { norm, mean, var, output: statistics.reborrow() }, stream)
}

/// A forward pass that writes everything.
pub(super) fn train_into<M: Method + ?Sized>(
    method: &M,
    input: &View<'_>,
    output: &mut ViewMut<'_>,
    statistics: &mut ViewMut<'_>,
    moments: &mut ViewMut<'_>,
    stream: &Stream<'_>,
) -> Result<()> {
    let arguments = ForwardArguments {
        output: Some(output.reborrow()),
        statistics: Some(statistics.reborrow()),
        moments: Some(moments.reborrow()),
        ..ForwardArguments::new(input)
    };
    run_forward(method, arguments, stream)
}

/// What is wrong with running statistics that `moments` are to update.
pub(super) fn check_update(
    moments: &View<'_>,
    mean: &View<'_>,
    var: &View<'_>,
    stream: &Stream<'_>,
) -> Result<()> {
    let dtype = moments.dtype();
    let rows = moments.shape().first().copied().unwrap_or(0);
    check_per_row("moments", moments, [rows, MOMENTS], dtype, stream)?;
    check_running("running_mean", mean, rows, dtype, stream)?;
    check_running("running_var", var, rows, dtype, stream)?;
    check_output("running_mean", mean, None, &[("moments", Some(moments))])?;
    check_output("running_var", var, None, &[("moments", Some(moments)), ("running_mean", Some(mean))])
}

/// Moves running statistics, one number a row each, towards those that `moments` have:
/// `running = (1 - factor) * running + factor * new`, the new variance being the unbiased one. `factor` is finite, and usually within 0 and 1.
pub fn update_running_into(
    moments: &View<'_>,
    mean: &mut ViewMut<'_>,
    var: &mut ViewMut<'_>,
    factor: f64,
    stream: &Stream<'_>,
) -> Result<()> {
    check_factor(factor)?;
    check_update(moments, &mean.as_view(), &var.as_view(), stream)?;
    let (mean, var) = (mean.reborrow(), var.reborrow());
    let launch = Between::UpdateRunning { moments: moments.clone(), mean, var, factor };
    backend::between(moments.dtype(), launch, stream)
}

/// The weight of new statistics beside running ones, if it is one.
pub(super) fn check_factor(factor: f64) -> Result<f64> {
    if factor.is_finite() {
        return Ok(factor);
    }
    Err(Error::argument("momentum", "a finite number", factor))
}

/// Refuses an output that shares memory with an operand of another launch of the same call.
pub(super) fn check_apart<'v>(
    name: &'static str,
    output: &View<'_>,
    others: impl IntoIterator<Item = (&'static str, &'v View<'v>)>,
) -> Result<()> {
    let others: Vec<_> = others.into_iter().map(|(name, view)| (name, Some(view))).collect();
    check_output(name, output, None, &others)
}

/// One number per row, of a dtype that the arithmetic holds.
fn check_running(
    name: &'static str,
    view: &View<'_>,
    rows: usize,
    dtype: DType,
    stream: &Stream<'_>,
) -> Result<()> {
    if view.shape() != [rows] {
        return Err(Error::argument(name, format!("shape [{rows}]"), format!("shape {:?}", view.shape())));
    }
    check_narrow(name, view, dtype, stream)
}
