//! `normkit run`

use crate::arguments::RunArguments;
use crate::device::Place;
use crate::failure::{Failure, Result};
use crate::files;
use crate::method::{Around, MethodName, Tensors, build};
use crate::report::Report;
use normkit::tensor::{DType, HostTensor, Tensor};
use serde_json::json;

pub(super) fn run(arguments: &RunArguments) -> Result<Report> {
    let RunArguments { method, settings, .. } = arguments;
    settings.check(*method)?;
    let mut input = files::read(&arguments.input)?;
    if let Some(dtype) = arguments.dtype.filter(|&dtype| dtype != input.dtype()) {
        input = HostTensor::from_f64(&input.to_f64(), input.shape(), dtype)?;
    }
    if let Some(path) = &arguments.output {
        files::check_output(path, input.dtype())?;
    }
    let weight = arguments.weight.as_deref().map(files::read).transpose()?;
    let bias = arguments.bias.as_deref().map(files::read).transpose()?;
    let alpha = settings.alpha.or(method.first_alpha());
    let alpha =
        alpha.map(|alpha| HostTensor::from_f64(&[alpha], &[1], parameter_dtype(&input))).transpose()?;
    let running = running(arguments)?;
    let normalized = match method.is_trailing() {
        true => normalized_shape(arguments, input.shape(), weight.as_ref().or(bias.as_ref()))?,
        false => Vec::new(),
    };

    let place = Place::open(arguments.backend, &arguments.overrides)?;
    let device = place.device();
    let upload = |tensor: Option<HostTensor>| tensor.map(|tensor| device.upload(&tensor)).transpose();
    let (weight, bias, alpha) = (upload(weight)?, upload(bias)?, upload(alpha)?);
    let running = running
        .map(|[mean, var]| Ok::<_, Failure>((device.upload(&mean)?, device.upload(&var)?)))
        .transpose()?;
    let tensors = Tensors {
        around: Around::default(),
        weight: weight.as_ref().map(Tensor::view).transpose()?,
        bias: bias.as_ref().map(Tensor::view).transpose()?,
        alpha: alpha.as_ref().map(Tensor::view).transpose()?,
        running: running.as_ref().map(|(mean, var)| (mean, var)),
    };
    let (shape, dtype) = (input.shape().to_vec(), input.dtype());
    let applied = build(*method, &shape, &normalized, settings, tensors)?;
    let input = device.upload(&input)?;
    let mut output = device.zeros(&shape, dtype)?;
    applied.forward_into(&input.view()?, &mut output.view_mut()?, None, &place.stream()?)?;
    let output = output.read()?;

    if let Some(path) = &arguments.output {
        files::write(path, &output)?;
    }
    Ok(report(arguments, place.backend(), &output))
}

/// The dtype for a parameter that is given as a number: wide enough for any digits that the arithmetic can use.
fn parameter_dtype(input: &HostTensor) -> DType {
    input.dtype().compute()
}

/// Running mean and variance, for a method that has them.
fn running(arguments: &RunArguments) -> Result<Option<[HostTensor; 2]>> {
    match (&arguments.running_mean, &arguments.running_var) {
        (None, None) => Ok(None),
        _ if arguments.method != MethodName::BatchNorm => {
            let message = "--running-mean and --running-var are options of batch_norm, not of ";
            Err(Failure::new(format!("{message}{}", arguments.method.name())))
        }
        (Some(mean), Some(var)) => Ok(Some([files::read(mean)?, files::read(var)?])),
        _ => Err(Failure::new("--running-mean and --running-var: expected both or neither, found one")),
    }
}

/// The trailing axes to normalize over.
fn normalized_shape(
    arguments: &RunArguments,
    shape: &[usize],
    parameter: Option<&HostTensor>,
) -> Result<Vec<usize>> {
    match (arguments.axes, parameter) {
        (Some(axes), _) if axes == 0 || axes > shape.len() => {
            let message = format!(
                "--axes: expected 1 to {} for an input of shape {shape:?}, found {axes}",
                shape.len()
            );
            Err(Failure::new(message))
        }
        (Some(axes), _) => Ok(shape[shape.len() - axes..].to_vec()),
        (None, Some(parameter)) => Ok(parameter.shape().to_vec()),
        (None, None) => match shape.last() {
            Some(&cols) => Ok(vec![cols]),
            None => Err(Failure::new("--input: expected at least one axis, found a single number")),
        },
    }
}

fn report(arguments: &RunArguments, backend: &str, output: &HostTensor) -> Report {
    let values = output.to_f64();
    let finite = values.iter().filter(|x| x.is_finite());
    let count = finite.clone().count();
    let min = finite.clone().copied().fold(f64::INFINITY, f64::min);
    let max = finite.clone().copied().fold(f64::NEG_INFINITY, f64::max);
    let mean = finite.sum::<f64>() / count as f64;
    let (name, dtype, shape) = (arguments.method.name(), output.dtype(), output.shape());
    let mut text = format!("{name} on {backend}: {dtype} {shape:?}");
    if count > 0 {
        text += &format!(", min {min:.6}, max {max:.6}, mean {mean:.6}");
    }
    if count < values.len() {
        text += &format!("; {} of {} elements are not finite", values.len() - count, values.len());
    }
    match &arguments.output {
        Some(path) => text += &format!("\nwritten to {}", path.display()),
        None => text += "\nnot written; --output FILE.npy writes it",
    }
    // JSON has no infinity: without a finite element these three are null.
    let number = |x: f64| (count > 0).then_some(x);
    let json = json!({
        "method": name,
        "backend": backend,
        "dtype": dtype.name(),
        "shape": shape,
        "min": number(min),
        "max": number(max),
        "mean": number(mean),
        "not_finite": values.len() - count,
        "output": arguments.output,
    });
    Report::new(text, json)
}
