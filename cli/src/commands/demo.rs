//! `normkit demo`: the methods on a real model's activations, on every device.

use super::progress;
use crate::arguments::{Backend, DemoArguments};
use crate::device::{Overrides, Place};
use crate::errors::compare;
use crate::failure::{Failure, Result};
use crate::files::Safetensors;
use crate::method::{Dim, MethodName, Settings};
use crate::report::{Report, table};
use crate::speed::{Direction, measure};
use crate::surroundings::Surroundings;
use crate::workload::{AroundOperands, Operands, Workload};
use normkit::tensor::{DType, HostTensor, Layout};
use serde_json::{Value, json};

/// Bytes that the activations are repeated to for the speeds.
const SPEED_BYTES: usize = 16 << 20;
const ROUNDS: usize = 9;

/// The methods that make sense of a token's features: rows are tokens, channels are features.
const METHODS: [MethodName; 8] = [
    MethodName::LayerNorm,
    MethodName::RmsNorm,
    MethodName::Dyt,
    MethodName::Eln,
    MethodName::BatchNorm,
    MethodName::GroupNorm,
    MethodName::Normalize,
    MethodName::WeightNorm,
];

/// What a LayerNorm of the model got, has learned, and gave.
struct Recorded {
    name: String,
    input: HostTensor,
    weight: HostTensor,
    bias: HostTensor,
    output: HostTensor,
}

impl Recorded {
    fn cols(&self) -> usize {
        self.weight.bytes().len() / self.weight.dtype().size()
    }

    /// The operands in `dtype`. The outputs of other tokens serve as the gradient of the output; a token's own would
    /// not do, as most of it is along the input, where a norm has no gradient.
    fn operands(&self, method: MethodName, dtype: DType) -> Result<Operands> {
        let cast = |tensor: &HostTensor| HostTensor::from_f64(&tensor.to_f64(), tensor.shape(), dtype);
        let mut others = self.output.clone();
        let row = self.weight.bytes().len();
        let half = others.bytes().len() / row / 2 * row;
        others.bytes_mut().rotate_left(half);
        Ok(Operands {
            input: cast(&self.input)?,
            grad_output: cast(&others)?,
            weight: if method == MethodName::Normalize { None } else { Some(cast(&self.weight)?) },
            bias: if method.has_bias() { Some(cast(&self.bias)?) } else { None },
            alpha: (method.first_alpha())
                .map(|alpha| HostTensor::from_f64(&[alpha], &[1], dtype))
                .transpose()?,
            around: AroundOperands::default(),
        })
    }
}

pub(super) fn demo(arguments: &DemoArguments) -> Result<Report> {
    let mut file = Safetensors::open(&arguments.data)?;
    let recorded = read(&mut file)?;
    let eps = match file.note("eps").map(str::parse) {
        Some(Ok(eps)) => eps,
        _ => return Err(Failure::file(&arguments.data, "its metadata has no eps")),
    };
    let model = file.note("model").unwrap_or("an unnamed model");
    let (places, missing) = Place::find(None, &Overrides::default())?;
    let exact = Place::open(Backend::Cpu, &Overrides::default())?;
    let bar = progress(places.len() * (recorded.len() + METHODS.len()));

    let (mut errors, mut speeds) = (Vec::new(), Vec::new());
    for place in &places {
        for layer in &recorded {
            bar.set_message(format!("{} {}", place.backend(), layer.name));
            for method in METHODS {
                errors.push(error(place, &exact, method, layer, eps)?);
            }
            bar.inc(1);
        }
        for method in METHODS {
            bar.set_message(format!("{} {}: speed", place.backend(), method.name()));
            speeds.push(speed(place, method, &recorded[0], eps)?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();

    let mut text = format!("Activations of {model}: {} LayerNorms, eps {eps:e}\n\n", recorded.len());
    text += "Errors in float32, in units of the last place (ulp) of the row's largest value. The model's own outputs\n\
             are those of its LayerNorms; every method is also compared with a run in float64.\n\n";
    text += &error_table(&errors);
    let mebibytes = SPEED_BYTES >> 20;
    text += &format!(
        "\nSpeeds in float32 on the activations of {}, repeated to {mebibytes} MiB:\n\n",
        recorded[0].name
    );
    text += &speed_table(&speeds);
    missing.iter().for_each(|reason| text += &format!("\nNot run: {reason}\n"));
    Ok(Report::new(text, json!({ "model": model, "errors": errors, "speeds": speeds, "not_run": missing })))
}

/// The layers that the file has recorded.
fn read(file: &mut Safetensors) -> Result<Vec<Recorded>> {
    let names = file.names();
    let layers: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(".input")).collect();
    let recorded: Vec<Recorded> = layers
        .into_iter()
        .map(|name| {
            let mut tensor = |what| file.read(&format!("{name}.{what}"));
            let [input, weight, bias, output] = ["input", "weight", "bias", "output"].map(&mut tensor);
            Ok(Recorded { name: name.into(), input: input?, weight: weight?, bias: bias?, output: output? })
        })
        .collect::<Result<_>>()?;
    match recorded.is_empty() {
        true => Err(Failure::new("--data: the file has no tensor whose name ends with .input")),
        false => Ok(recorded),
    }
}

fn settings(method: MethodName, eps: f64) -> Settings {
    let without = [MethodName::Dyt, MethodName::Eln, MethodName::WeightNorm];
    let eps = (!without.contains(&method)).then_some(eps);
    // A length for each feature, since the model has a weight for each.
    let dim = (method == MethodName::WeightNorm).then_some(Dim::Axis(1));
    Settings { eps, dim, ..Settings::default() }
}

/// Runs a layer both ways and compares with the model's own output and with float64.
fn error(place: &Place, exact: &Place, method: MethodName, layer: &Recorded, eps: f64) -> Result<Value> {
    let both = |place: &Place, dtype| -> Result<[Vec<f64>; 2]> {
        let operands = layer.operands(method, dtype)?;
        let layout = Layout::contiguous(operands.input.shape());
        let mut workload = Workload::new(place, method, settings(method, eps), layout, operands)?;
        workload.forward_train()?;
        workload.backward()?;
        Ok([workload.output().read()?.to_f64(), workload.grad_input().read()?.to_f64()])
    };
    let [output, grad_input] = both(place, DType::F32)?;
    let [exact_output, exact_grad_input] = both(exact, DType::F64)?;
    let cols = layer.cols();
    let own = (method == MethodName::LayerNorm).then(|| compare(&output, &layer.output.to_f64(), cols));
    Ok(json!({
        "backend": place.backend(),
        "method": method.name(),
        "layer": layer.name,
        "model_ulp": own.as_ref().map(|e| e.ulp),
        "model_equal": own.as_ref().map(|e| e.equal),
        "forward_ulp": compare(&output, &exact_output, cols).ulp,
        "backward_ulp": compare(&grad_input, &exact_grad_input, cols).ulp,
    }))
}

/// Measures a method on a layer's activations, repeated.
fn speed(place: &Place, method: MethodName, layer: &Recorded, eps: f64) -> Result<Value> {
    let mut operands = layer.operands(method, DType::F32)?;
    let copies = SPEED_BYTES.div_ceil(operands.input.bytes().len().max(1));
    operands.input = repeated(&operands.input, copies)?;
    operands.grad_output = repeated(&operands.grad_output, copies)?;
    let cols = layer.cols();
    let shape = [operands.input.bytes().len() / DType::F32.size() / cols, cols];
    let layout = Layout::contiguous(operands.input.shape());
    let mut workload = Workload::new(place, method, settings(method, eps), layout, operands)?;
    let mut row = json!({ "backend": place.backend(), "method": method.name() });
    for direction in Direction::BOTH {
        row[direction.name()] =
            measure(place, &mut workload, direction, shape, Surroundings::default(), ROUNDS)?.to_json();
    }
    Ok(row)
}

/// `copies` of the tensor along its first axis.
fn repeated(tensor: &HostTensor, copies: usize) -> Result<HostTensor> {
    let mut shape = tensor.shape().to_vec();
    let Some(rows) = shape.first_mut() else { return Ok(tensor.clone()) };
    *rows *= copies;
    let mut result = HostTensor::zeros(&shape, tensor.dtype())?;
    let size = tensor.bytes().len().max(1);
    result.bytes_mut().chunks_mut(size).for_each(|part| part.copy_from_slice(tensor.bytes()));
    Ok(result)
}

/// A string of a JSON row.
fn string(row: &Value, key: &str) -> String {
    row[key].as_str().unwrap_or_default().into()
}

fn error_table(errors: &[Value]) -> String {
    let ulp = |value: &Value| value.as_f64().map_or("-".into(), |ulp| format!("{ulp:.2}"));
    let rows = errors.iter().map(|row| {
        let equal = row["model_equal"].as_f64().map_or("-".into(), |share| format!("{:.2} %", 100.0 * share));
        vec![
            string(row, "backend"),
            string(row, "method"),
            string(row, "layer"),
            ulp(&row["model_ulp"]),
            equal,
            ulp(&row["forward_ulp"]),
            ulp(&row["backward_ulp"]),
        ]
    });
    let header =
        ["backend", "method", "activations of", "model's ulp", "equal bits", "forward ulp", "backward ulp"];
    table(&header, &rows.collect::<Vec<_>>(), 3)
}

fn speed_table(speeds: &[Value]) -> String {
    let number = |value: &Value, unit: f64| value.as_f64().unwrap_or(f64::NAN) * unit;
    let mut rows = Vec::new();
    for row in speeds {
        for direction in Direction::BOTH {
            let speed = &row[direction.name()];
            rows.push(vec![
                string(row, "backend"),
                string(row, "method"),
                direction.name().into(),
                format!("{:.2}", number(&speed["seconds"], 1e3)),
                format!("{:.2}", number(&speed["gb_per_s"], 1.0)),
                format!("{:.0} %", number(&speed["share_of_copy"], 100.0)),
            ]);
        }
    }
    table(&["backend", "method", "pass", "ms", "GB/s", "of copy"], &rows, 3)
}
