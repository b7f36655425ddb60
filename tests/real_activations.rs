//! A real model's LayerNorms: their inputs and weights in, their outputs out.

mod common;

use normkit::prelude::*;
use normkit::tensor::{DType, View};
use safetensors::SafeTensors;

/// One LayerNorm of the model.
struct Recorded {
    name: String,
    shape: Vec<usize>,
    input: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    /// Computed in float64 and rounded once.
    output: Vec<f32>,
}

fn recorded() -> Vec<Recorded> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/minilm_layernorm.safetensors");
    let bytes = std::fs::read(path).expect("tests/data/minilm_layernorm.safetensors");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let tensor = |name: String| {
        let tensor = file.tensor(&name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(tensor.dtype(), safetensors::Dtype::F32, "{name}");
        let (numbers, _) = tensor.data().as_chunks::<4>();
        (tensor.shape().to_vec(), numbers.iter().map(|&b| f32::from_le_bytes(b)).collect::<Vec<f32>>())
    };
    let mut names: Vec<_> = file.names().iter().filter_map(|name| name.strip_suffix(".input")).collect();
    names.sort_unstable();
    assert!(names.len() >= 3, "several layers: {names:?}");
    names
        .into_iter()
        .map(|name| {
            let (shape, input) = tensor(format!("{name}.input"));
            let (weight, bias) = (tensor(format!("{name}.weight")).1, tensor(format!("{name}.bias")).1);
            let output = tensor(format!("{name}.output")).1;
            Recorded { name: name.to_string(), shape, input, weight, bias, output }
        })
        .collect()
}

/// Our output for a recorded layer, its input rounded to `dtype`.
fn forward(layer: &Recorded, dtype: DType, device: &Device) -> Vec<f64> {
    let cols = layer.weight.len();
    let on_host = |values: &[f32], shape: &[usize], dtype| {
        let values: Vec<f64> = values.iter().map(|&x| x.into()).collect();
        HostTensor::from_f64(&values, shape, dtype).unwrap()
    };
    let input = on_host(&layer.input, &layer.shape, dtype);
    let (weight, bias) =
        (on_host(&layer.weight, &[cols], DType::F32), on_host(&layer.bias, &[cols], DType::F32));
    let (weight, bias) = (common::on(device, &weight), common::on(device, &bias));
    let norm = LayerNorm::new([cols]).eps(1e-12).weight(&weight).bias(&bias);
    norm.forward(&common::on(device, &input)).unwrap().read().unwrap().to_f64()
}

/// `mag` of each row's largest element: |x| and |mean| times rstd times |weight|, plus |bias|.
fn largest_mags(layer: &Recorded) -> Vec<f64> {
    let cols = layer.weight.len();
    let mag_of = |row: &[f32]| {
        let row: Vec<f64> = row.iter().map(|&x| x.into()).collect();
        let mean = row.iter().sum::<f64>() / cols as f64;
        let rstd = 1.0 / (row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / cols as f64 + 1e-12).sqrt();
        let mag = |j: usize| {
            (row[j].abs() + mean.abs()) * rstd * f64::from(layer.weight[j].abs())
                + f64::from(layer.bias[j].abs())
        };
        (0..cols).map(mag).fold(0.0, f64::max)
    };
    layer.input.chunks(cols).map(mag_of).collect()
}

fn ulp_f32(x: f64) -> f64 {
    2f64.powi(x.log2().floor() as i32 - 23)
}

#[test]
fn the_models_own_outputs_come_out() {
    for device in common::devices() {
        for layer in recorded() {
            let ours = forward(&layer, DType::F32, &device);
            assert_eq!(ours.len(), layer.output.len());
            let (cols, mags) = (layer.weight.len(), largest_mags(&layer));
            for (index, (&ours, &theirs)) in ours.iter().zip(&layer.output).enumerate() {
                let error = (ours - f64::from(theirs)).abs();
                // The record was rounded as well, by half an ulp of itself at most.
                let size = f64::from(theirs).abs();
                let promised = 4.0 * ulp_f32(mags[index / cols]) + ulp_f32(size) / 2.0;
                let allowed = promised.min(2e-6 * size.max(1.0));
                let (name, backend) = (&layer.name, device.backend());
                assert!(error <= allowed, "{name} on {backend}, element {index}: {ours} for {theirs}");
            }
        }
    }
}

/// Sixteen bits of input make an output of sixteen bits: within the rounding of the input, seen through the norm, and
/// that of the output.
#[test]
fn sixteen_bit_inputs_give_the_outputs_to_sixteen_bits() {
    for device in common::devices() {
        for (dtype, epsilon) in [(DType::F16, 2f64.powi(-11)), (DType::BF16, 2f64.powi(-8))] {
            for layer in recorded() {
                let (cols, mags) = (layer.weight.len(), largest_mags(&layer));
                let ours = forward(&layer, dtype, &device);
                for (index, (&ours, &theirs)) in ours.iter().zip(&layer.output).enumerate() {
                    let error = (ours - f64::from(theirs)).abs();
                    let allowed = 2.0 * epsilon * mags[index / cols] + epsilon * f64::from(theirs).abs();
                    assert!(error <= allowed, "{} {dtype}, element {index}: {ours} for {theirs}", layer.name);
                }
            }
        }
    }
}

/// The fixture is what it says: weights that are not all alike, rows that are not already normalized.
#[test]
fn the_record_is_of_a_trained_model() {
    for layer in recorded() {
        assert!(layer.name.ends_with("LayerNorm"), "{}", layer.name);
        assert_eq!(layer.shape.iter().product::<usize>(), layer.input.len());
        assert_eq!((layer.input.len(), layer.bias.len()), (layer.output.len(), layer.weight.len()));
        let differ = |values: &[f32]| values.iter().any(|&v| v != values[0]);
        assert!(differ(&layer.weight) && differ(&layer.bias) && layer.input != layer.output);
        View::from_slice(&layer.input, &layer.shape).expect("a whole tensor");
    }
}
