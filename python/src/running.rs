//! Batch and instance normalization with running statistics.

use crate::array::{Array, Autograd};
use crate::call::{Call, Gradient, Needs, Wanted, checked};
use crate::config::Config;
use crate::errors::{type_error, value_error};
use crate::fresh::Fresh;
use crate::place::{Place, Target};
use normkit::norm::{Gradients, RunningViews, steps};
use normkit::spec::{MOMENTS, STATISTICS};
use normkit::tensor::{DType, HostTensor, Tensor, View};
use normkit::{BatchNorm, InstanceNorm, Method, Workspace};
use pyo3::prelude::*;

/// The arrays of a call. Running statistics come in pairs.
pub(crate) struct Running<'c, 'py> {
    pub(crate) input: &'c Array<'py>,
    pub(crate) mean: Option<&'c Array<'py>>,
    pub(crate) var: Option<&'c Array<'py>>,
    pub(crate) weight: Option<&'c Array<'py>>,
    pub(crate) bias: Option<&'c Array<'py>>,
    pub(crate) eps: f64,
}

/// The arrays of a norm with running statistics.
pub(crate) struct RunningArrays<'py> {
    input: Array<'py>,
    mean: Option<Array<'py>>,
    var: Option<Array<'py>>,
    weight: Option<Array<'py>>,
    bias: Option<Array<'py>>,
}

impl<'py> RunningArrays<'py> {
    pub(crate) fn new(
        autograd: Autograd,
        input: &Bound<'py, PyAny>,
        (mean, var): (Option<&Bound<'py, PyAny>>, Option<&Bound<'py, PyAny>>),
        (weight, bias): (Option<&Bound<'py, PyAny>>, Option<&Bound<'py, PyAny>>),
    ) -> PyResult<Self> {
        Ok(RunningArrays {
            input: Array::new("input", input, autograd)?,
            mean: Array::optional("running_mean", mean, autograd)?,
            var: Array::optional("running_var", var, autograd)?,
            weight: Array::optional("weight", weight, autograd)?,
            bias: Array::optional("bias", bias, autograd)?,
        })
    }

    pub(crate) fn running(&self, eps: f64) -> Running<'_, 'py> {
        let (mean, var) = (self.mean.as_ref(), self.var.as_ref());
        let (weight, bias) = (self.weight.as_ref(), self.bias.as_ref());
        Running { input: &self.input, mean, var, weight, bias, eps }
    }
}

/// A batch norm over the channels of an input, which an input without any has none of.
fn batch_norm<'a>(
    shape: &[usize],
    eps: f64,
    weight: Option<View<'a>>,
    bias: Option<View<'a>>,
) -> BatchNorm<'a> {
    let mut norm = BatchNorm::new(shape.get(1).copied().unwrap_or(0)).eps(eps);
    if let Some(weight) = weight {
        norm = norm.weight_view(weight);
    }
    if let Some(bias) = bias {
        norm = norm.bias_view(bias);
    }
    norm
}

/// The number of channels of an input `[N, C, ...]`.
pub(crate) fn channels(input: &Array<'_>) -> PyResult<usize> {
    match *input.shape() {
        [_, channels, ..] if channels > 0 => Ok(channels),
        ref found => {
            let expected = "a shape [N, C, ...] with at least one channel";
            Err(value_error(format!("{}: expected {expected}, found shape {found:?}", input.name)))
        }
    }
}

impl<'py> Running<'_, 'py> {
    /// Both running statistics, or none; an error for one of them.
    fn pair(&self) -> PyResult<Option<(&Array<'py>, &Array<'py>)>> {
        match (self.mean, self.var) {
            (Some(mean), Some(var)) => Ok(Some((mean, var))),
            (None, None) => Ok(None),
            (Some(_), None) => {
                Err(value_error("running_var: expected an array beside running_mean, found None"))
            }
            (None, Some(_)) => {
                Err(value_error("running_mean: expected an array beside running_var, found None"))
            }
        }
    }

    fn given(&self) -> PyResult<(&Array<'py>, &Array<'py>)> {
        channels(self.input)?;
        let missing = || value_error("running_mean: expected an array when not training, found None");
        let (mean, var) = self.pair()?.ok_or_else(missing)?;
        let (input, compute) = (self.input.dtype(), self.input.dtype().compute());
        for running in [mean, var] {
            if running.dtype().compute() != compute {
                let (name, found) = (running.name, running.dtype());
                let expected = if compute == DType::F64 { "f64" } else { "f16, bf16 or f32" };
                let beside = format!("{expected} beside an input of {input}");
                return Err(type_error(format!("{name}: expected {beside}, found dtype {found}")));
            }
        }
        Ok((mean, var))
    }

    /// Normalizes by the batch's statistics, which it returns, too, and moves the running ones towards them.
    pub(crate) fn train(
        &self,
        py: Python<'py>,
        momentum: f64,
        backend: Option<&str>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let channels = channels(self.input)?;
        let Some((mean, var)) = self.pair()? else {
            return self.statistics_of_own(
                py,
                Config::BatchNorm { num_features: channels, eps: self.eps },
                backend,
            );
        };
        mean.memory.check_writable(mean.name)?;
        var.memory.check_writable(var.name)?;
        let place = Place::of(self.input, backend)?;
        let compute = Some(self.input.dtype().compute());
        let output = Fresh::new(py, self.input, self.input.shape(), None)?;
        let statistics = Fresh::new(py, self.input, &[channels, STATISTICS], compute)?;
        let moments = Fresh::new(py, self.input, &[channels, MOMENTS], compute)?;
        let outputs = [
            Some(Target::New(&output.memory)),
            Some(Target::New(&statistics.memory)),
            Some(Target::New(&moments.memory)),
            Some(Target::Update(&mean.memory)),
            Some(Target::Update(&var.memory)),
        ];
        self.check_together(&[mean, var])?;
        let (eps, inputs) = (self.eps, [Some(self.input), self.weight, self.bias]);
        checked(place.run(py, inputs, outputs, move |inputs, outputs, stream| {
            let [Some(input), weight, bias] = inputs else { return Ok(()) };
            let [Some(mut output), Some(mut statistics), Some(mut moments), Some(mean), Some(var)] = outputs
            else {
                return Ok(());
            };
            let norm = batch_norm(input.shape(), eps, weight, bias);
            let running = RunningViews { mean, var, factor: momentum };
            norm.train_into(&input, &mut output, &mut statistics, &mut moments, running, stream)
        })?)?;
        Ok((output.finish()?, statistics.finish()?))
    }

    /// Normalizes by the running statistics.
    pub(crate) fn frozen(&self, py: Python<'py>, backend: Option<&str>) -> PyResult<Bound<'py, PyAny>> {
        let (mean, var) = self.given()?;
        let place = Place::of(self.input, backend)?;
        let output = Fresh::new(py, self.input, self.input.shape(), None)?;
        let inputs = [Some(self.input), Some(mean), Some(var), self.weight, self.bias];
        let eps = self.eps;
        checked(place.run(
            py,
            inputs,
            [Some(Target::New(&output.memory))],
            move |inputs, outputs, stream| {
                let [Some(input), Some(mean), Some(var), weight, bias] = inputs else { return Ok(()) };
                let [Some(mut output)] = outputs else { return Ok(()) };
                let norm = batch_norm(input.shape(), eps, weight, bias);
                norm.frozen_on(&mean, &var, stream)?.forward_into(&input, &mut output, None, stream)
            },
        )?)?;
        output.finish()
    }

    /// The gradients where the running statistics were constants.
    pub(crate) fn frozen_backward(
        &self,
        py: Python<'py>,
        grad_output: &Array<'py>,
        needs: Needs,
    ) -> PyResult<[Gradient<'py>; 3]> {
        let (mean, var) = self.given()?;
        let place = Place::of(self.input, None)?;
        let fresh = |like, bit| needs.gradient(py, like, bit);
        let fresh = [
            fresh(Some(self.input), Needs::INPUT)?,
            fresh(self.weight, Needs::WEIGHT)?,
            fresh(self.bias, Needs::BIAS)?,
        ];
        let outputs = fresh.each_ref().map(|fresh| fresh.as_ref().map(|fresh| Target::New(&fresh.memory)));
        let inputs = [Some(grad_output), Some(self.input), Some(mean), Some(var), self.weight, self.bias];
        let eps = self.eps;
        checked(place.run(py, inputs, outputs, move |inputs, outputs, stream| {
            let [Some(grad_output), Some(input), Some(mean), Some(var), weight, bias] = inputs else {
                return Ok(());
            };
            let [grad_input, grad_weight, grad_bias] = outputs;
            let grads =
                Gradients { input: grad_input, weight: grad_weight, bias: grad_bias, ..Gradients::default() };
            let norm = batch_norm(input.shape(), eps, weight, bias).frozen_on(&mean, &var, stream)?;
            norm.backward_into(&grad_output, &input, None, grads, &mut Workspace::new(), stream)
        })?)?;
        let [input, weight, bias] = fresh;
        let finish = |fresh: Option<Fresh<'py>>| fresh.map(Fresh::finish).transpose();
        Ok([finish(input)?, finish(weight)?, finish(bias)?])
    }

    /// Normalizes each channel of each sample by statistics of its own, which it returns, too, and moves the running
    /// ones towards their means over the samples.
    pub(crate) fn train_instances(
        &self,
        py: Python<'py>,
        momentum: f64,
        backend: Option<&str>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let shape = self.input.shape();
        let (samples, channels) = (shape.first().copied().unwrap_or(0), channels(self.input)?);
        if shape.len() > 2 && shape[2..].iter().product::<usize>() == 1 {
            let expected = "more than one position per channel, for a variance";
            return Err(value_error(format!("input: expected {expected}, found shape {shape:?}")));
        }
        let pair = self.pair()?;
        if let Some((mean, var)) = pair {
            for running in [mean, var] {
                running.memory.check_writable(running.name)?;
                if running.shape() != [channels] {
                    let (name, found) = (running.name, running.shape());
                    return Err(value_error(format!(
                        "{name}: expected shape [{channels}], found shape {found:?}"
                    )));
                }
            }
            if !momentum.is_finite() {
                return Err(value_error(format!("momentum: expected a finite number, found {momentum}")));
            }
        }
        let config = Config::InstanceNorm { num_features: channels, eps: self.eps };
        let result = self.statistics_of_own(py, config, backend)?;
        if let Some((mean, var)) = pair.filter(|_| samples > 0) {
            self.move_running(py, (mean, var), momentum, backend)?;
        }
        Ok(result)
    }

    /// A training pass whose statistics nobody keeps a running average of.
    fn statistics_of_own(
        &self,
        py: Python<'py>,
        config: Config,
        backend: Option<&str>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let (input, weight, bias) = (self.input, self.weight, self.bias);
        let call = Call { weight, bias, ..Call::new(&config, input) };
        let results = call.run(py, backend, Wanted { statistics: true, ..Wanted::default() })?;
        let missing = || value_error("input: expected a norm with statistics");
        Ok((results.output, results.statistics.ok_or_else(missing)?))
    }

    /// Moves running statistics towards the means over samples of the instances' means and variances.
    fn move_running(
        &self,
        py: Python<'py>,
        (mean, var): (&Array<'py>, &Array<'py>),
        momentum: f64,
        backend: Option<&str>,
    ) -> PyResult<()> {
        self.check_together(&[mean, var])?;
        let place = Place::of(self.input, backend)?;
        let outputs = [Some(Target::Update(&mean.memory)), Some(Target::Update(&var.memory))];
        checked(place.run(py, [Some(self.input)], outputs, move |inputs, outputs, stream| {
            let ([Some(input)], [Some(mut mean), Some(mut var)]) = (inputs, outputs) else { return Ok(()) };
            let (channels, compute) = (input.shape()[1], input.dtype().compute());
            let (norm, device) = (InstanceNorm::new(channels), stream.device());
            let mut moments = device.zeros(&[input.shape()[0] * channels, MOMENTS], compute)?;
            steps::moments_into(&norm, &input, &mut moments.view_mut()?, stream)?;
            let averages = averages(&moments.read()?.to_f64(), channels, compute);
            let averages = device.upload(&HostTensor::from_f64(&averages, &[channels, MOMENTS], compute)?)?;
            steps::update_running_into(&averages.view()?, &mut mean, &mut var, momentum, stream)
        })?)
    }

    /// Refuses running statistics that are elsewhere.
    fn check_together(&self, others: &[&Array<'py>]) -> PyResult<()> {
        for other in others {
            let (home, found) = (self.input.memory.residence, other.memory.residence);
            if home != found {
                let name = other.name;
                return Err(value_error(format!(
                    "{name}: expected a device {home}, where input is, found {found}"
                )));
            }
        }
        Ok(())
    }
}

/// Moments of each channel whose mean and unbiased variance are the means over samples of the instances'.
fn averages(instances: &[f64], channels: usize, compute: DType) -> Vec<f64> {
    let row =
        |sample: usize, channel: usize| &instances[(sample * channels + channel) * MOMENTS..][..MOMENTS];
    let samples = instances.len() / MOMENTS / channels.max(1);
    let of_channel = |channel: usize| {
        let rows = || (0..samples).map(|sample| row(sample, channel));
        let exponent = rows().map(|row| row[4]).fold(f64::NEG_INFINITY, f64::max);
        let (mut mean, mut m2) = (0.0, 0.0);
        for row in rows() {
            let scale = (row[4] - exponent).exp2();
            mean += (row[1] + row[2]) * scale / samples as f64;
            m2 += row[3] * scale * scale / samples as f64;
        }
        let rounded = if compute == DType::F32 { f64::from(mean as f32) } else { mean };
        [row(0, channel)[0], rounded, mean - rounded, m2, exponent]
    };
    (0..channels).flat_map(of_channel).collect()
}
