//! The checks that every call makes before anything is written or enqueued.

use crate::backend::{Backward, Forward};
use crate::spec::{STATISTICS, Spec};
use crate::tensor::{DType, Layout, View, ViewMut};
use crate::tensor::{Overlap, overlap};
use crate::{Error, Result, Stream};

/// Shape, dtype and device that an operand must have.
fn check(
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
fn check_parameter(
    name: &'static str,
    view: Option<&View<'_>>,
    shape: &[usize],
    input: DType,
    stream: &Stream<'_>,
) -> Result<()> {
    let Some(view) = view else { return Ok(()) };
    if view.dtype() == DType::F64 && input != DType::F64 {
        return Err(Error::argument(
            name,
            format!("f16, bf16 or f32 beside an input of {input}"),
            "dtype f64",
        ));
    }
    check(name, view, shape, view.dtype(), stream)
}

/// Alpha is one element, whatever its rank.
fn check_alpha(alpha: Option<&View<'_>>, input: DType, stream: &Stream<'_>) -> Result<()> {
    let Some(view) = alpha else { return Ok(()) };
    if view.layout().len() != 1 {
        return Err(Error::argument("alpha", "one element", format!("shape {:?}", view.shape())));
    }
    let shape = view.shape().to_vec();
    check_parameter("alpha", Some(view), &shape, input, stream)
}

/// An output names each of its elements once and shares none with any other operand. `allowed` may be the same
/// tensor exactly.
fn check_output(
    name: &'static str,
    output: &View<'_>,
    allowed: Option<&View<'_>>,
    others: &[(&'static str, Option<&View<'_>>)],
) -> Result<()> {
    if !output.layout().is_injective() {
        return Err(Error::argument(
            name,
            "a layout that names each element once",
            format!("shape {:?} with strides {:?}", output.shape(), output.layout().strides()),
        ));
    }
    if allowed.is_some_and(|view| overlap(output, view) == Overlap::Some) {
        return Err(Error::argument(
            name,
            "memory apart from the input it replaces, or exactly it",
            "a partial overlap",
        ));
    }
    for (other, view) in others {
        if view.is_some_and(|view| overlap(output, view) != Overlap::None) {
            return Err(Error::argument(name, format!("memory apart from {other}"), "an overlap"));
        }
    }
    Ok(())
}

fn check_layouts(spec: &Spec, input: &View<'_>, stream: &Stream<'_>) -> Result<()> {
    if stream.device().backend() == "wgpu" && input.dtype() == DType::F64 {
        return Err(Error::UnsupportedDType { name: "input", dtype: DType::F64, backend: "wgpu" });
    }
    debug_assert!(spec.axes() <= input.shape().len());
    check_device("input", input, stream)
}

fn statistics_layout(spec: &Spec, shape: &[usize]) -> Layout {
    let rows = shape[..shape.len() - spec.axes()].iter().product();
    Layout::contiguous(&[rows, STATISTICS])
}

fn check_statistics(view: &View<'_>, spec: &Spec, input: &View<'_>, stream: &Stream<'_>) -> Result<()> {
    let expected = statistics_layout(spec, input.shape());
    check("statistics", view, expected.shape(), input.dtype().compute(), stream)?;
    if view.layout().strides() != expected.strides() && !view.layout().is_empty() {
        return Err(Error::argument(
            "statistics",
            format!("row-major strides {:?}", expected.strides()),
            format!("strides {:?}", view.layout().strides()),
        ));
    }
    Ok(())
}

pub(super) fn check_forward(spec: &Spec, operands: &Forward<'_>, stream: &Stream<'_>) -> Result<()> {
    let Forward { input, parameters, output, statistics } = operands;
    check_layouts(spec, input, stream)?;
    let row_shape = &input.shape()[input.shape().len() - spec.axes()..];
    check_parameter("weight", parameters.weight.as_ref(), row_shape, input.dtype(), stream)?;
    check_parameter("bias", parameters.bias.as_ref(), row_shape, input.dtype(), stream)?;
    check_alpha(parameters.alpha.as_ref(), input.dtype(), stream)?;
    let output = output.as_view();
    check("output", &output, input.shape(), input.dtype(), stream)?;
    let statistics = statistics.as_ref().map(|view| view.as_view());
    let mut others = vec![
        ("weight", parameters.weight.as_ref()),
        ("bias", parameters.bias.as_ref()),
        ("alpha", parameters.alpha.as_ref()),
    ];
    if let Some(view) = &statistics {
        if !spec.has_statistics() {
            return Err(Error::argument("statistics", "none: this method saves no statistics", "a tensor"));
        }
        check_statistics(view, spec, input, stream)?;
        others.push(("input", Some(input)));
        check_output("statistics", view, None, &others)?;
        others.pop();
        others.push(("statistics", Some(view)));
    }
    check_output("output", &output, Some(input), &others)
}

pub(super) fn check_backward(spec: &Spec, operands: &Backward<'_>, stream: &Stream<'_>) -> Result<()> {
    let Backward { grad_output, input, parameters, statistics, grads } = operands;
    check_layouts(spec, input, stream)?;
    let row_shape = &input.shape()[input.shape().len() - spec.axes()..];
    check("grad_output", grad_output, input.shape(), input.dtype(), stream)?;
    check_parameter("weight", parameters.weight.as_ref(), row_shape, input.dtype(), stream)?;
    check_parameter("bias", parameters.bias.as_ref(), row_shape, input.dtype(), stream)?;
    check_alpha(parameters.alpha.as_ref(), input.dtype(), stream)?;
    match statistics {
        Some(view) if spec.has_statistics() => check_statistics(view, spec, input, stream)?,
        Some(_) => {
            return Err(Error::argument("statistics", "none: this method saves no statistics", "a tensor"));
        }
        None if spec.has_statistics() => {
            return Err(Error::argument("statistics", "those that the forward pass saved", "none"));
        }
        None => {}
    }
    let bound = |name, target: &Option<ViewMut<'_>>, source: Option<&View<'_>>| match (target, source) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(Error::argument(name, "no gradient: the parameter is not bound", "a tensor")),
        (Some(target), Some(source)) => {
            let view = target.as_view();
            check(name, &view, source.shape(), source.dtype(), stream)
        }
    };
    bound("grad_input", &grads.input, Some(input))?;
    bound("grad_weight", &grads.weight, parameters.weight.as_ref())?;
    bound("grad_bias", &grads.bias, parameters.bias.as_ref())?;
    bound("grad_alpha", &grads.alpha, parameters.alpha.as_ref())?;
    let targets = [
        ("grad_input", grads.input.as_ref().map(|t| t.as_view())),
        ("grad_weight", grads.weight.as_ref().map(|t| t.as_view())),
        ("grad_bias", grads.bias.as_ref().map(|t| t.as_view())),
        ("grad_alpha", grads.alpha.as_ref().map(|t| t.as_view())),
    ];
    for (index, (name, target)) in targets.iter().enumerate() {
        let Some(target) = target else { continue };
        let in_place = *name == "grad_input";
        let mut others = vec![
            ("input", Some(*input)),
            ("weight", parameters.weight.as_ref()),
            ("alpha", parameters.alpha.as_ref()),
            ("statistics", *statistics),
        ];
        if !in_place {
            others.push(("grad_output", Some(grad_output)));
        }
        others.extend(targets[..index].iter().map(|(name, view)| (*name, view.as_ref())));
        check_output(name, target, in_place.then_some(*grad_output), &others)?;
    }
    Ok(())
}
