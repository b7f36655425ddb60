//! Trains a small network on handwritten digits four times: with candle's LayerNorm, with normkit's in its place, with residuals and the
//! RMSNorm after them in one pass, and with DyT. The first two must learn alike, all must read more than 95 % of digits that they have not
//! seen.
//!
//! `cargo run --release --example digits` writes the losses to `target/digits-candle.svg`.

#[path = "../../digits.rs"]
mod digits;

use candle_core::{D, DType, Device, Module, Result, Tensor};
use candle_nn::{Optimizer, VarBuilder, VarMap};
use digits::{CLASSES, Curve, Digits, PIXELS, difference, plot};
use indicatif::{ProgressBar, ProgressStyle};
use std::error::Error;
use std::path::Path;

const WIDTH: usize = 96;
const BLOCKS: usize = 3;
const EPOCHS: u64 = 24;
const BATCH: usize = 64;
const RATE: f64 = 5e-4;
/// Batches in which two LayerNorms must have the same losses, but for rounding.
const FIRST: usize = 100;

/// The norms that are compared.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Candle,
    Normkit,
    AddedRms,
    DyT,
}

const KINDS: [(Kind, &str); 4] = [
    (Kind::Candle, "LayerNorm of candle"),
    (Kind::Normkit, "LayerNorm of normkit"),
    (Kind::AddedRms, "add_rms_norm of normkit"),
    (Kind::DyT, "DyT of normkit"),
];

/// One of them, as a module.
enum Norm {
    Candle(candle_nn::LayerNorm),
    Normkit(normkit_candle::LayerNorm),
    AddedRms(normkit_candle::AddRmsNorm),
    DyT(normkit_candle::DyT),
}

impl Norm {
    fn new(kind: Kind, vb: VarBuilder<'_>) -> Result<Self> {
        Ok(match kind {
            Kind::Candle => Norm::Candle(candle_nn::layer_norm(WIDTH, 1e-5, vb)?),
            Kind::Normkit => Norm::Normkit(normkit_candle::layer_norm(WIDTH, 1e-5, vb)?),
            Kind::AddedRms => Norm::AddedRms(normkit_candle::add_rms_norm(WIDTH, 1e-5, vb)?),
            Kind::DyT => Norm::DyT(normkit_candle::dyt(WIDTH, 0.5, vb)?),
        })
    }

    /// The normalized sum of a branch and the stream, and the sum.
    fn forward(&self, branch: &Tensor, stream: &Tensor) -> Result<(Tensor, Tensor)> {
        if let Norm::AddedRms(norm) = self {
            return norm.forward(branch, stream);
        }
        let sum = (branch + stream)?;
        let normalized = match self {
            // Its module takes the fused function where it can, which has no gradients: this is what it does elsewhere.
            Norm::Candle(norm) => {
                let bias = norm.bias().map_or_else(|| norm.weight().zeros_like(), |bias| Ok(bias.clone()))?;
                candle_nn::ops::layer_norm_slow(&sum, norm.weight(), &bias, norm.eps() as f32)?
            }
            Norm::Normkit(norm) => norm.forward(&sum)?,
            Norm::DyT(norm) => norm.forward(&sum)?,
            Norm::AddedRms(norm) => norm.forward(branch, stream)?.0,
        };
        Ok((normalized, sum))
    }
}

/// Blocks `down(relu(up(norm(stream))))` on a residual stream.
struct Network {
    embed: candle_nn::Linear,
    blocks: Vec<(Norm, candle_nn::Linear, candle_nn::Linear)>,
    norm: Norm,
    classify: candle_nn::Linear,
}

impl Network {
    fn new(kind: Kind, vb: &VarBuilder<'_>) -> Result<Self> {
        let linear = |from, to, name: String| candle_nn::linear(from, to, vb.pp(name));
        let block = |block: usize| {
            let norm = Norm::new(kind, vb.pp(format!("norm{block}")))?;
            let up = linear(WIDTH, 2 * WIDTH, format!("up{block}"))?;
            Ok((norm, up, linear(2 * WIDTH, WIDTH, format!("down{block}"))?))
        };
        Ok(Network {
            embed: linear(PIXELS, WIDTH, "embed".to_owned())?,
            blocks: (0..BLOCKS).map(block).collect::<Result<_>>()?,
            norm: Norm::new(kind, vb.pp("norm"))?,
            classify: linear(WIDTH, CLASSES, "classify".to_owned())?,
        })
    }

    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let mut branch = self.embed.forward(images)?;
        let mut stream = branch.zeros_like()?;
        for (norm, up, down) in &self.blocks {
            let (normalized, sum) = norm.forward(&branch, &stream)?;
            (branch, stream) = (down.forward(&up.forward(&normalized)?.relu()?)?, sum);
        }
        self.classify.forward(&self.norm.forward(&branch, &stream)?.0)
    }
}

/// Sets matrices and their biases to the same numbers whatever the norm is; norms keep what they start with. candle's own generator on
/// the CPU has no seed.
fn seed(map: &VarMap) -> Result<()> {
    let data = map.data().lock().map_err(|error| candle_core::Error::Msg(error.to_string()))?;
    let mut variables: Vec<_> = data.iter().filter(|(name, _)| !name.starts_with("norm")).collect();
    variables.sort_by_key(|(name, _)| name.as_str());
    let mut state = 7u64;
    let mut random = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    for (_, variable) in variables {
        let bound = 1.0 / (*variable.dims().last().unwrap_or(&1) as f64).sqrt();
        let values: Vec<f32> =
            (0..variable.elem_count()).map(|_| ((2.0 * random() - 1.0) * bound) as f32).collect();
        variable.set(&Tensor::from_vec(values, variable.shape(), variable.device())?)?;
    }
    Ok(())
}

/// A batch as tensors.
fn tensors(batch: &Digits) -> Result<(Tensor, Tensor)> {
    let images = Tensor::from_slice(&batch.images, (batch.len(), PIXELS), &Device::Cpu)?;
    Ok((images, Tensor::from_slice(&batch.labels, batch.len(), &Device::Cpu)?))
}

/// Trains a network; its losses, and which share of the other digits it reads.
fn train(
    kind: Kind,
    name: &str,
    [seen, unseen]: &[Digits; 2],
) -> std::result::Result<(Curve, f64), Box<dyn Error>> {
    let map = VarMap::new();
    let network = Network::new(kind, &VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu))?;
    seed(&map)?;
    let parameters = candle_nn::ParamsAdamW { lr: RATE, weight_decay: 0.0, ..Default::default() };
    let mut optimizer = candle_nn::AdamW::new(map.all_vars(), parameters)?;
    let style = "{prefix:24} {bar:32} {pos:>3}/{len} batches, {per_sec}, loss {msg}";
    let bar = ProgressBar::new(EPOCHS * (seen.len() / BATCH) as u64).with_prefix(name.to_owned());
    bar.set_style(ProgressStyle::with_template(style)?);
    let mut losses = Vec::new();
    for epoch in 0..EPOCHS {
        for batch in seen.batches(epoch, BATCH) {
            let (images, labels) = tensors(&batch)?;
            let loss = candle_nn::loss::cross_entropy(&network.forward(&images)?, &labels)?;
            optimizer.backward_step(&loss)?;
            let value = f64::from(loss.to_scalar::<f32>()?);
            losses.push(value);
            bar.set_message(format!("{value:.4}"));
            bar.inc(1);
        }
    }
    bar.finish();
    let (images, labels) = tensors(unseen)?;
    let right = network.forward(&images)?.argmax(D::Minus1)?.eq(&labels)?.to_dtype(DType::F32)?.sum_all()?;
    let share = f64::from(right.to_scalar::<f32>()?) / unseen.len() as f64;
    Ok((Curve { name: name.to_owned(), losses }, share))
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let data = digits::load()?;
    let mut curves = Vec::new();
    for (kind, name) in KINDS {
        let (curve, share) = train(kind, name, &data)?;
        println!("{name}: {:.1} % of {} unseen digits read", 100.0 * share, data[1].len());
        if share <= 0.95 {
            return Err(format!("{name} reads no more than 95 %").into());
        }
        curves.push(curve);
    }
    let apart = difference(&curves[0], &curves[1]);
    println!("the losses with both LayerNorms are nowhere more than {:.2} % apart", 100.0 * apart);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/digits-candle.svg");
    plot(&path, "Learning to read digits with candle", &curves)?;
    println!("losses: {}", path.canonicalize()?.display());
    // What is rounded differently grows with every batch, as all training does.
    let [candle, normkit] = [0, 1].map(|index: usize| {
        let Curve { name, losses } = &curves[index];
        Curve { name: name.clone(), losses: losses[..FIRST.min(losses.len())].to_vec() }
    });
    let apart = difference(&candle, &normkit);
    println!("those of the first {FIRST} batches: {:.2} %", 100.0 * apart);
    if apart > 0.02 {
        return Err("the two LayerNorms do not learn alike".into());
    }
    Ok(())
}
