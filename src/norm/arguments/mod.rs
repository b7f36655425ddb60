//! The checks that every call makes before anything is written or enqueued, and the views that backends get: every
//! tensor in the spec's shape.

mod backward;
mod forward;
mod inner;
mod rotary;

pub(super) use backward::{BackwardArguments, backward};
pub(super) use forward::{ForwardArguments, check_flags, forward};
pub(super) use inner::{InnerArguments, InnerBackwardArguments, MixArguments, MixBackwardArguments};

use super::Parameters;
use crate::spec::{Epilogue, Fusion, Prologue, Spec};
use crate::tensor::{DType, Layout, View, ViewMut};
use crate::tensor::{Overlap, overlap};
use crate::{Error, Result, Stream};

/// An operand that others are compared with, by the name it has in the call.
type Named<'v, 'a> = (&'static str, Option<&'v View<'a>>);

/// Shape, dtype and device that an operand must have.
pub(super) fn check(
    name: &'static str,
    view: &View<'_>,
    shape: &[usize],
    dtype: DType,
    stream: &Stream<'_>,
) -> Result<()> {
    if view.shape() != shape {
        return Err(Error::argument(name, format!("shape {shape:?}"), format!("shape {:?}", view.shape())));
    }
    if view.dtype() != dtype {
        return Err(Error::argument(name, format!("dtype {dtype}"), format!("dtype {}", view.dtype())));
    }
    check_device(name, view, stream)
}

fn check_device(name: &'static str, view: &View<'_>, stream: &Stream<'_>) -> Result<()> {
    let (expected, found) = (stream.device(), view.device());
    if expected != found {
        let other = if expected.backend() == found.backend() { "another device of " } else { "" };
        return Err(Error::argument(
            name,
            format!("memory on the stream's {} device", expected.backend()),
            format!("memory on {other}{}", found.backend()),
        ));
    }
    Ok(())
}

/// A parameter may have any dtype whose values the input's arithmetic holds exactly.
pub(super) fn check_narrow(
    name: &'static str,
    view: &View<'_>,
    input: DType,
    stream: &Stream<'_>,
) -> Result<()> {
    if !view.dtype().is_float() || view.dtype() == DType::F64 && input != DType::F64 {
        let wide = if input == DType::F64 { ", f32 or f64" } else { " or f32" };
        let expected = format!("f16, bf16{wide} beside an input of {input}");
        return Err(Error::argument(name, expected, format!("dtype {}", view.dtype())));
    }
    check_device(name, view, stream)
}

fn refuse_shape(name: &'static str, expected: String, view: &View<'_>) -> Error {
    Error::argument(name, expected, format!("shape {:?}", view.shape()))
}

/// A tensor of the input's shape, seen in the spec's.
fn refined<'v>(name: &'static str, view: &View<'v>, spec: &Spec) -> Result<View<'v>> {
    if view.shape() == spec.shape() {
        return Ok(view.clone());
    }
    let layout = view.layout().reshaped(spec.shape()).ok_or_else(|| unsplit(name, spec))?;
    view.clone().with_layout(layout)
}

fn refined_mut<'v>(name: &'static str, view: ViewMut<'v>, spec: &Spec) -> Result<ViewMut<'v>> {
    if view.shape() == spec.shape() {
        return Ok(view);
    }
    let layout = view.layout().reshaped(spec.shape()).ok_or_else(|| unsplit(name, spec))?;
    view.with_layout(layout)
}

/// Specs only split axes of the input, which any layout allows.
fn unsplit(name: &'static str, spec: &Spec) -> Error {
    Error::argument(name, format!("a layout that can be split to {:?}", spec.shape()), "one that cannot")
}

/// A parameter's layout, seen in the spec's shape. Its own shape is the affine one; a single number may have any rank.
fn expanded(name: &'static str, layout: &Layout, spec: &Spec) -> Result<Layout> {
    let affine = spec.affine();
    let fits = layout.shape() == &affine.shape[..] || affine.axes.is_empty() && layout.len() == 1;
    let seen = if fits { affine.expand(spec.shape(), layout) } else { None };
    seen.ok_or_else(|| {
        Error::argument(name, format!("shape {:?}", affine.shape), format!("shape {:?}", layout.shape()))
    })
}

fn parameter<'v>(
    name: &'static str,
    view: Option<&View<'v>>,
    spec: &Spec,
    input: DType,
    stream: &Stream<'_>,
) -> Result<Option<View<'v>>> {
    let Some(view) = view else { return Ok(None) };
    check_narrow(name, view, input, stream)?;
    view.clone().with_layout(expanded(name, view.layout(), spec)?).map(Some)
}

/// A mask is repeated along leading axes that it lacks and along its axes of size 1, as arrays are.
fn mask<'v>(
    view: Option<&View<'v>>,
    spec: &Spec,
    input: &View<'_>,
    stream: &Stream<'_>,
) -> Result<Option<View<'v>>> {
    let Some(view) = view else { return Ok(None) };
    check_narrow("mask", view, input.dtype(), stream)?;
    let (shape, own) = (input.shape(), view.layout());
    let leading = shape.len().checked_sub(own.rank());
    let fits = |leading: usize| {
        shape[leading..].iter().zip(own.shape()).all(|(&size, &mask)| mask == size || mask == 1)
    };
    let Some(leading) = leading.filter(|&leading| fits(leading)) else {
        let expected = format!("a shape that broadcasts to {shape:?}");
        return Err(Error::argument("mask", expected, format!("shape {:?}", own.shape())));
    };
    let mut strides = vec![0; shape.len()];
    for (axis, (&size, &stride)) in own.shape().iter().zip(own.strides()).enumerate() {
        strides[leading + axis] = if size == 1 { 0 } else { stride };
    }
    let whole = view.clone().with_layout(Layout::strided(shape, &strides, own.offset())?)?;
    refined("mask", &whole, spec).map(Some)
}

/// The other operand of a prologue or an epilogue, which has a name if there is to be one: a tensor of the input's shape.
fn fused<'v>(
    name: Option<&'static str>,
    view: Option<&View<'v>>,
    spec: &Spec,
    input: &View<'_>,
    stream: &Stream<'_>,
) -> Result<Option<View<'v>>> {
    let (name, view) = match (name, view) {
        (Some(name), Some(view)) => (name, view),
        (None, Some(_)) => return Err(Error::argument("fusion", "no other operand", "a tensor")),
        (_, None) => return Ok(None),
    };
    check_narrow(name, view, input.dtype(), stream)?;
    check(name, view, input.shape(), view.dtype(), stream)?;
    refined(name, view, spec).map(Some)
}

/// Refuses a fusion whose numbers or operands do not make sense; `is_backward` tells that a residual may be left out.
fn check_fusion(fusion: Fusion, parameters: &Parameters<'_>, is_backward: bool) -> Result<()> {
    let Fusion { prologue, epilogue, dropout, branch, .. } = fusion;
    let is_residual = matches!(prologue, Prologue::Residual { .. });
    if let Prologue::Residual { input_scale, residual_scale } = prologue {
        for (name, scale) in [("input_scale", input_scale), ("residual_scale", residual_scale)] {
            if !scale.is_finite() {
                return Err(Error::argument(name, "a finite number", scale));
            }
        }
    }
    if let Some(dropout) = dropout {
        dropout.check()?;
        if !is_residual {
            return Err(Error::argument("dropout", "none without a residual before the norm", "some"));
        }
    }
    let of_branch = [
        ("branch_bias", branch.bias, parameters.branch_bias.is_some()),
        ("branch_scale", branch.scale, parameters.branch_scale.is_some()),
    ];
    for (name, is_named, is_bound) in of_branch {
        match (is_named, is_bound) {
            (true, true) if !is_residual => {
                return Err(Error::argument(name, "none without a residual before the norm", "a tensor"));
            }
            (true, false) => return Err(Error::argument(name, "a tensor of the weight's shape", "none")),
            (false, true) => return Err(Error::argument(name, "none: the fusion has none", "a tensor")),
            _ => {}
        }
    }
    let may_lack = is_backward && is_residual;
    let lacks_before = parameters.before.is_none() && !may_lack;
    let missing = prologue.operand().filter(|_| lacks_before);
    let after = epilogue.operand().filter(|_| parameters.after.is_none());
    // The gradient of a residual that is added last is that of the output: its values do not matter.
    let after = after.filter(|_| !(is_backward && epilogue == Epilogue::Residual));
    match missing.or(after) {
        Some(name) => Err(Error::argument(name, "a tensor of the input's shape", "none")),
        None => Ok(()),
    }
}

/// Alpha is one element, whatever its rank.
fn check_alpha(alpha: Option<&View<'_>>, input: DType, stream: &Stream<'_>) -> Result<()> {
    let Some(view) = alpha else { return Ok(()) };
    if view.layout().len() != 1 {
        return Err(Error::argument("alpha", "one element", format!("shape {:?}", view.shape())));
    }
    check_narrow("alpha", view, input, stream)
}

/// An output names each of its elements once and shares none with any other operand. `allowed` may be the same
/// tensor exactly.
pub(super) fn check_output(
    name: &'static str,
    output: &View<'_>,
    allowed: Option<&View<'_>>,
    others: &[Named<'_, '_>],
) -> Result<()> {
    if !output.layout().is_injective() {
        return Err(Error::argument(
            name,
            "a layout that names each element once",
            format!("shape {:?} with strides {:?}", output.shape(), output.layout().strides()),
        ));
    }
    check_replaced(name, output, allowed)?;
    check_apart(name, output, others)
}

/// What an output replaces it replaces exactly.
fn check_replaced(name: &'static str, output: &View<'_>, allowed: Option<&View<'_>>) -> Result<()> {
    if allowed.is_some_and(|view| overlap(output, view) == Overlap::Some) {
        return Err(Error::argument(
            name,
            "memory apart from the input it replaces, or exactly it",
            "a partial overlap",
        ));
    }
    Ok(())
}

/// An output shares no element with these.
fn check_apart(name: &'static str, output: &View<'_>, others: &[Named<'_, '_>]) -> Result<()> {
    for (other, view) in others {
        if view.is_some_and(|view| overlap(output, view) != Overlap::None) {
            return Err(Error::argument(name, format!("memory apart from {other}"), "an overlap"));
        }
    }
    Ok(())
}

/// As [`check_output`], where several tensors may be the same exactly.
fn check_replacing(
    name: &'static str,
    output: &View<'_>,
    allowed: &[Named<'_, '_>],
    others: &[Named<'_, '_>],
) -> Result<()> {
    check_output(name, output, None, others)?;
    allowed.iter().try_for_each(|(_, view)| check_replaced(name, output, *view))
}

fn check_input(input: &View<'_>, stream: &Stream<'_>) -> Result<()> {
    if !input.dtype().is_float() {
        let expected = "dtype f16, bf16, f32 or f64";
        return Err(Error::argument("input", expected, format!("dtype {}", input.dtype())));
    }
    if stream.device().backend() == "wgpu" && input.dtype() == DType::F64 {
        return Err(Error::UnsupportedDType { name: "input", dtype: DType::F64, backend: "wgpu" });
    }
    check_device("input", input, stream)
}

/// Numbers per row: `[rows, per_row]`, row-major, in the compute dtype.
pub(super) fn check_per_row(
    name: &'static str,
    view: &View<'_>,
    [rows, per_row]: [usize; 2],
    input: DType,
    stream: &Stream<'_>,
) -> Result<()> {
    let expected = Layout::contiguous(&[rows, per_row]);
    check(name, view, expected.shape(), input.compute(), stream)?;
    if view.layout().strides() != expected.strides() && !view.layout().is_empty() {
        return Err(Error::argument(
            name,
            format!("row-major strides {:?}", expected.strides()),
            format!("strides {:?}", view.layout().strides()),
        ));
    }
    Ok(())
}
