//! Trains a small network on handwritten digits three times: with burn's LayerNorm, with normkit's in its place, and with DyT. The
//! first two must learn alike, all must read more than 95 % of digits that they have not seen.
//!
//! `cargo run --release --example digits` writes the losses to `target/digits-burn.svg`; `-- wgpu` (feature `wgpu`) trains on a GPU.

#[path = "../../digits.rs"]
mod digits;

use burn::module::Module;
use burn::nn::{self, LinearConfig, loss::CrossEntropyLossConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Int, Tensor, TensorData, activation::relu};
use digits::{CLASSES, Curve, Digits, PIXELS, difference, plot};
use indicatif::{ProgressBar, ProgressStyle};
use std::error::Error;
use std::path::Path;

const WIDTH: usize = 96;
const BLOCKS: usize = 3;
const EPOCHS: u64 = 12;
const BATCH: usize = 64;
const RATE: f64 = 1e-3;

/// The norms that are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Burn,
    Normkit,
    DyT,
}

/// One of them, as a module.
#[derive(Module, Debug)]
enum Norm {
    Burn(nn::LayerNorm),
    Normkit(normkit_burn::nn::LayerNorm),
    DyT(normkit_burn::nn::DyT),
}

impl Norm {
    fn new(kind: Kind, device: &Device) -> Self {
        match kind {
            Kind::Burn => Norm::Burn(nn::LayerNormConfig::new(WIDTH).init(device)),
            Kind::Normkit => Norm::Normkit(normkit_burn::nn::LayerNormConfig::new(WIDTH).init(device)),
            Kind::DyT => Norm::DyT(normkit_burn::nn::DyTConfig::new(WIDTH).init(device)),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Norm::Burn(norm) => norm.forward(x),
            Norm::Normkit(norm) => norm.forward(x),
            Norm::DyT(norm) => norm.forward(x),
        }
    }
}

/// `x + down(relu(up(norm(x))))`
#[derive(Module, Debug)]
struct Block {
    norm: Norm,
    up: nn::Linear,
    down: nn::Linear,
}

/// Blocks on a residual stream.
#[derive(Module, Debug)]
struct Network {
    embed: nn::Linear,
    blocks: Vec<Block>,
    norm: Norm,
    classify: nn::Linear,
}

impl Network {
    fn new(kind: Kind, device: &Device) -> Self {
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        let block = |_| Block {
            norm: Norm::new(kind, device),
            up: linear(WIDTH, 2 * WIDTH),
            down: linear(2 * WIDTH, WIDTH),
        };
        Network {
            embed: linear(PIXELS, WIDTH),
            blocks: (0..BLOCKS).map(block).collect(),
            norm: Norm::new(kind, device),
            classify: linear(WIDTH, CLASSES),
        }
    }

    fn forward(&self, images: Tensor<2>) -> Tensor<2> {
        let stream = self.blocks.iter().fold(self.embed.forward(images), |stream, block| {
            let inside = relu(block.up.forward(block.norm.forward(stream.clone())));
            stream + block.down.forward(inside)
        });
        self.classify.forward(self.norm.forward(stream))
    }
}

/// A batch as tensors.
fn tensors(batch: &Digits, device: &Device) -> (Tensor<2>, Tensor<1, Int>) {
    let images = Tensor::from_data(TensorData::new(batch.images.clone(), [batch.len(), PIXELS]), device);
    let labels: Vec<i32> = batch.labels.iter().map(|&label| label as i32).collect();
    (images, Tensor::from_data(TensorData::new(labels, [batch.len()]), device))
}

/// Trains a network; its losses, and which share of the other digits it reads.
fn train(
    kind: Kind,
    name: &str,
    data: &[Digits; 2],
    device: &Device,
) -> Result<(Curve, f64), Box<dyn Error>> {
    let [seen, unseen] = data;
    let recorded = &device.clone().autodiff();
    recorded.seed(7);
    let mut network = Network::new(kind, recorded);
    let mut optimizer = AdamConfig::new().init();
    let loss_of = CrossEntropyLossConfig::new().init(recorded);
    let mut losses = Vec::new();
    let style = "{prefix:22} {bar:32} {pos:>3}/{len} batches, {per_sec}, loss {msg}";
    let bar = ProgressBar::new(EPOCHS * (seen.len() / BATCH) as u64).with_prefix(name.to_owned());
    bar.set_style(ProgressStyle::with_template(style)?);
    for epoch in 0..EPOCHS {
        for batch in seen.batches(epoch, BATCH) {
            let (images, labels) = tensors(&batch, recorded);
            let loss = loss_of.forward(network.forward(images), labels);
            let value = loss.to_data().iter::<f64>().next().ok_or("a loss")?;
            let gradients = GradientsParams::from_grads(loss.backward(), &network);
            network = optimizer.step(RATE, network, gradients);
            losses.push(value);
            bar.set_message(format!("{value:.4}"));
            bar.inc(1);
        }
    }
    bar.finish();
    let (images, labels) = tensors(unseen, device);
    let read = network.valid().forward(images).argmax(1).into_data();
    let right = read.iter::<u32>().zip(labels.into_data().iter::<u32>()).filter(|(a, b)| a == b).count();
    Ok((Curve { name: name.to_owned(), losses }, right as f64 / unseen.len() as f64))
}

fn main() -> Result<(), Box<dyn Error>> {
    let device = match std::env::args().nth(1).as_deref() {
        None | Some("flex") => Device::flex(),
        #[cfg(feature = "wgpu")]
        Some("wgpu") => normkit_burn::wgpu::init(burn::tensor::DeviceKind::DefaultDevice)?,
        Some(other) => return Err(format!("no device {other:?}: flex, or with feature wgpu wgpu").into()),
    };
    let data = digits::load()?;
    let kinds = [
        (Kind::Burn, "LayerNorm of burn"),
        (Kind::Normkit, "LayerNorm of normkit"),
        (Kind::DyT, "DyT of normkit"),
    ];
    let mut curves = Vec::new();
    for (kind, name) in kinds {
        let (curve, share) = train(kind, name, &data, &device)?;
        println!("{name}: {:.1} % of {} unseen digits read", 100.0 * share, data[1].len());
        if share <= 0.95 {
            return Err(format!("{name} reads no more than 95 %").into());
        }
        curves.push(curve);
    }
    let apart = difference(&curves[0], &curves[1]);
    println!("the losses with both LayerNorms are nowhere more than {:.2} % apart", 100.0 * apart);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/digits-burn.svg");
    plot(&path, "Learning to read digits with burn", &curves)?;
    println!("losses: {}", path.canonicalize()?.display());
    // What is rounded differently grows with every batch.
    if apart > 0.05 {
        return Err("the two LayerNorms do not learn alike".into());
    }
    Ok(())
}
