//! The checks that every call makes before anything is written or enqueued, and the views that backends get: every
//! tensor in the spec's shape.

use super::{Gradients, Parameters, hidden_dtype};
use crate::backend::{Backward, Forward};
use crate::spec::{Epilogue, Fusion, MOMENTS, Prologue, STATISTICS, SUMS, Spec};
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
    if view.dtype() == DType::F64 && input != DType::F64 {
        let expected = format!("f16, bf16 or f32 beside an input of {input}");
        return Err(Error::argument(name, expected, "dtype f64"));
    }
    check_device(name, view, stream)
}

/// A tensor of the input's shape, seen in the spec's.
fn refined<'v>(name: &'static str, view: &View<'v>, spec: &Spec) -> Result<View<'v>> {
    let layout = view.layout().reshaped(spec.shape()).ok_or_else(|| unsplit(name, spec))?;
    view.clone().with_layout(layout)
}

fn refined_mut<'v>(name: &'static str, view: ViewMut<'v>, spec: &Spec) -> Result<ViewMut<'v>> {
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
    let Fusion { prologue, epilogue } = fusion;
    if let Prologue::Residual { input_scale, residual_scale } = prologue {
        for (name, scale) in [("input_scale", input_scale), ("residual_scale", residual_scale)] {
            if !scale.is_finite() {
                return Err(Error::argument(name, "a finite number", scale));
            }
        }
    }
    let may_lack = is_backward && matches!(prologue, Prologue::Residual { .. });
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

/// What a forward pass is asked for.
pub(super) struct ForwardArguments<'a> {
    pub(super) input: &'a View<'a>,
    pub(super) given: Option<&'a View<'a>>,
    pub(super) output: Option<ViewMut<'a>>,
    pub(super) hidden: Option<ViewMut<'a>>,
    pub(super) statistics: Option<ViewMut<'a>>,
    pub(super) moments: Option<ViewMut<'a>>,
}

impl<'a> ForwardArguments<'a> {
    /// Of this input, asked for nothing.
    pub(super) fn new(input: &'a View<'a>) -> Self {
        ForwardArguments { input, given: None, output: None, hidden: None, statistics: None, moments: None }
    }
}

/// The operands of a forward pass, or what is wrong with them.
pub(super) fn forward<'a>(
    spec: &Spec,
    parameters: &'a Parameters<'a>,
    arguments: ForwardArguments<'a>,
    stream: &Stream<'_>,
) -> Result<Forward<'a>> {
    let ForwardArguments { input, given, output, hidden, statistics, moments } = arguments;
    check_input(input, stream)?;
    let dtype = input.dtype();
    let fusion = spec.fusion();
    check_fusion(fusion, parameters, false)?;
    let before = fused(fusion.prologue.operand(), parameters.before.as_ref(), spec, input, stream)?;
    let after = fused(fusion.epilogue.operand(), parameters.after.as_ref(), spec, input, stream)?;
    let weight = parameter("weight", parameters.weight.as_ref(), spec, dtype, stream)?;
    let bias = parameter("bias", parameters.bias.as_ref(), spec, dtype, stream)?;
    check_alpha(parameters.alpha.as_ref(), dtype, stream)?;
    let mask = mask(parameters.mask.as_ref(), spec, input, stream)?;
    let rows = spec.rows();
    // On the stack, as a call on a short row costs little more than its checks.
    let mut others: [Named<'_, '_>; 8] = [
        ("weight", parameters.weight.as_ref()),
        ("bias", parameters.bias.as_ref()),
        ("alpha", parameters.alpha.as_ref()),
        ("mask", parameters.mask.as_ref()),
        ("given statistics", given),
        // Those that are written, once they are checked.
        ("statistics", None),
        ("moments", None),
        ("hidden", None),
    ];
    let none = "none: this method has no statistics";
    if let Some(view) = given {
        check_per_row("statistics", view, [rows, STATISTICS], dtype, stream)?;
    }
    let saved = [
        ("statistics", STATISTICS, statistics.as_ref().map(|view| view.as_view())),
        ("moments", MOMENTS, moments.as_ref().map(|view| view.as_view())),
    ];
    let of_fusion = [
        (fusion.prologue.operand().unwrap_or("before"), parameters.before.as_ref()),
        (fusion.epilogue.operand().unwrap_or("after"), parameters.after.as_ref()),
    ];
    // What has the input's shape may be written over what has it, element for element.
    let read = [("input", Some(input)), of_fusion[0], of_fusion[1]];
    for (written, (name, per_row, view)) in saved.iter().enumerate() {
        let Some(view) = view else { continue };
        if !spec.has_statistics() {
            return Err(Error::argument(name, none, "a tensor"));
        }
        check_per_row(name, view, [rows, *per_row], dtype, stream)?;
        check_output(name, view, None, &others)?;
        check_apart(name, view, &read)?;
        others[5 + written].1 = Some(view);
    }
    let hidden_view = hidden.as_ref().map(|view| view.as_view());
    if let Some(view) = &hidden_view {
        if fusion.prologue == Prologue::None {
            let expected = "none: this method normalizes its input itself";
            return Err(Error::argument("hidden", expected, "a tensor"));
        }
        check("hidden", view, input.shape(), hidden_dtype(parameters, dtype), stream)?;
        check_replacing("hidden", view, &read[..2], &others)?;
        check_apart("hidden", view, &read[2..])?;
    }
    if let Some(output) = &output {
        let view = output.as_view();
        check("output", &view, input.shape(), dtype, stream)?;
        others[7].1 = hidden_view.as_ref();
        check_replacing("output", &view, &read, &others)?;
    }
    Ok(Forward {
        input: refined("input", input, spec)?,
        weight,
        bias,
        alpha: parameters.alpha.clone(),
        mask,
        given: given.cloned(),
        before,
        after,
        output: output.map(|view| refined_mut("output", view, spec)).transpose()?,
        hidden: hidden.map(|view| refined_mut("hidden", view, spec)).transpose()?,
        statistics,
        moments,
    })
}

/// What a backward pass is asked for.
pub(super) struct BackwardArguments<'a> {
    pub(super) grad_output: &'a View<'a>,
    pub(super) input: &'a View<'a>,
    pub(super) statistics: Option<&'a View<'a>>,
    pub(super) given: Option<&'a View<'a>>,
    pub(super) grad_hidden: Option<&'a View<'a>>,
    pub(super) grads: Gradients<'a>,
    pub(super) sums: Option<ViewMut<'a>>,
}

impl<'a> BackwardArguments<'a> {
    /// Of these tensors, with the row's own sums.
    pub(super) fn new(grad_output: &'a View<'a>, input: &'a View<'a>, grads: Gradients<'a>) -> Self {
        let (statistics, given, grad_hidden, sums) = (None, None, None, None);
        BackwardArguments { grad_output, input, statistics, given, grad_hidden, grads, sums }
    }
}

/// The operands of a backward pass, or what is wrong with them.
pub(super) fn backward<'a>(
    spec: &Spec,
    parameters: &'a Parameters<'a>,
    arguments: BackwardArguments<'a>,
    stream: &Stream<'_>,
) -> Result<Backward<'a>> {
    let BackwardArguments { grad_output, input, statistics, given, grad_hidden, grads, sums } = arguments;
    check_input(input, stream)?;
    let dtype = input.dtype();
    check("grad_output", grad_output, input.shape(), dtype, stream)?;
    let weight = parameter("weight", parameters.weight.as_ref(), spec, dtype, stream)?;
    let bias = parameter("bias", parameters.bias.as_ref(), spec, dtype, stream)?;
    check_alpha(parameters.alpha.as_ref(), dtype, stream)?;
    let mask = mask(parameters.mask.as_ref(), spec, input, stream)?;
    let fusion = spec.fusion();
    check_fusion(fusion, parameters, true)?;
    let (prologue, epilogue) = (fusion.prologue.operand(), fusion.epilogue.operand());
    let before = fused(prologue, parameters.before.as_ref(), spec, input, stream)?;
    let after = fused(epilogue, parameters.after.as_ref(), spec, input, stream)?;
    if let Some(view) = grad_hidden {
        if prologue.is_none() {
            let expected = "none: this method normalizes its input itself";
            return Err(Error::argument("grad_hidden", expected, "a tensor"));
        }
        check("grad_hidden", view, input.shape(), hidden_dtype(parameters, dtype), stream)?;
    }
    let rows = spec.rows();
    match statistics {
        Some(view) if spec.has_statistics() => {
            check_per_row("statistics", view, [rows, STATISTICS], dtype, stream)?;
        }
        Some(_) => {
            return Err(Error::argument("statistics", "none: this method saves no statistics", "a tensor"));
        }
        None if spec.has_statistics() => {
            return Err(Error::argument("statistics", "those that the forward pass saved", "none"));
        }
        None => {}
    }
    for (name, view) in [("given sums", given), ("sums", sums.as_ref().map(|s| s.as_view()).as_ref())] {
        let Some(view) = view else { continue };
        check_per_row(name, view, [rows, SUMS], dtype, stream)?;
    }
    let bound = |name, target: &Option<ViewMut<'_>>, source: Option<&View<'_>>| match (target, source) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(Error::argument(name, "no gradient: the parameter is not bound", "a tensor")),
        (Some(target), Some(source)) => {
            check(name, &target.as_view(), source.shape(), source.dtype(), stream)
        }
    };
    bound("grad_input", &grads.input, Some(input))?;
    bound("grad_weight", &grads.weight, parameters.weight.as_ref())?;
    bound("grad_bias", &grads.bias, parameters.bias.as_ref())?;
    bound("grad_alpha", &grads.alpha, parameters.alpha.as_ref())?;
    let of_prologue = match fusion.prologue {
        // The hidden value in its place.
        Prologue::Residual { .. } => parameters.before.as_ref().or(Some(input)),
        _ => parameters.before.as_ref(),
    };
    let of_epilogue = match fusion.epilogue {
        Epilogue::Residual => parameters.after.as_ref().or(Some(grad_output)),
        _ => parameters.after.as_ref(),
    };
    bound("grad_before", &grads.before, of_prologue)?;
    bound("grad_after", &grads.after, of_epilogue)?;
    let targets = [
        ("grad_input", grads.input.as_ref().map(|t| t.as_view())),
        ("grad_weight", grads.weight.as_ref().map(|t| t.as_view())),
        ("grad_bias", grads.bias.as_ref().map(|t| t.as_view())),
        ("grad_alpha", grads.alpha.as_ref().map(|t| t.as_view())),
        ("grad_before", grads.before.as_ref().map(|t| t.as_view())),
        ("grad_after", grads.after.as_ref().map(|t| t.as_view())),
        ("sums", sums.as_ref().map(|t| t.as_view())),
    ];
    for (index, (name, target)) in targets.iter().enumerate() {
        let Some(target) = target else { continue };
        // What each may replace, element for element.
        let replaced = match *name {
            "grad_input" => Some(grad_output),
            "grad_before" => grad_hidden,
            _ => None,
        };
        let mut others = vec![
            ("input", Some(input)),
            ("weight", parameters.weight.as_ref()),
            ("alpha", parameters.alpha.as_ref()),
            ("mask", parameters.mask.as_ref()),
            ("statistics", statistics),
            ("given sums", given),
            ("bias", parameters.bias.as_ref().filter(|_| fusion.epilogue != Epilogue::None)),
            (prologue.unwrap_or("before"), parameters.before.as_ref()),
            (epilogue.unwrap_or("after"), parameters.after.as_ref()),
        ];
        if *name != "grad_input" {
            others.push(("grad_output", Some(grad_output)));
        }
        if *name != "grad_before" {
            others.push(("grad_hidden", grad_hidden));
        }
        others.extend(targets[..index].iter().map(|(name, view)| (*name, view.as_ref())));
        check_output(name, target, replaced, &others)?;
    }
    let of_parameter = |name, view: Option<ViewMut<'a>>| {
        let Some(view) = view else { return Ok(None) };
        let layout = expanded(name, view.layout(), spec)?;
        view.with_layout(layout).map(Some)
    };
    Ok(Backward {
        grad_output: refined("grad_output", grad_output, spec)?,
        input: refined("input", input, spec)?,
        weight,
        bias,
        alpha: parameters.alpha.clone(),
        mask,
        before,
        after,
        grad_hidden: grad_hidden.map(|view| refined("grad_hidden", view, spec)).transpose()?,
        statistics: statistics.cloned(),
        given: given.cloned(),
        grad_input: grads.input.map(|view| refined_mut("grad_input", view, spec)).transpose()?,
        grad_weight: of_parameter("grad_weight", grads.weight)?,
        grad_bias: of_parameter("grad_bias", grads.bias)?,
        grad_alpha: grads.alpha,
        grad_before: grads.before.map(|view| refined_mut("grad_before", view, spec)).transpose()?,
        grad_after: grads.after.map(|view| refined_mut("grad_after", view, spec)).transpose()?,
        sums,
    })
}
