//! The command line's grammar.

use crate::device::Overrides;
use crate::listed::Listed;
use crate::method::{MethodName, Settings};
use crate::surroundings::Surroundings;
use clap::{Args, Parser, Subcommand, ValueEnum};
use normkit::tensor::DType;
use std::path::PathBuf;

/// Normalization layers of neural networks: their devices, promises, files and speed.
#[derive(Parser)]
#[command(name = "normkit", version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 if all is well, 1 if a promise is broken, 2 if the command could not be carried out."
)]
pub(crate) struct Arguments {
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Show on stderr what was chosen: instruction set, shader variant, geometry
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show which devices can be used here, and why the others cannot
    Devices,
    /// Check every result against the oracle and print the worst errors
    Check(CheckArguments),
    /// Write cases down as shaders and buffers, to be run by another WebGPU implementation
    #[cfg(feature = "wgpu")]
    Export(ExportArguments),
    /// Check the results of exported cases against the oracle
    #[cfg(feature = "wgpu")]
    Judge(JudgeArguments),
    /// Apply a method to a tensor in a file
    Run(RunArguments),
    /// Measure the speed, beside a copy of the same bytes
    Bench(BenchArguments),
    /// Run the methods on a real model's activations
    Demo(DemoArguments),
}

/// Where to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    Cpu,
    Wgpu,
    Cuda,
    /// The CUDA kernels on the CPU: for tests, not for speed
    CudaHost,
}

impl Backend {
    /// Those that are used where none is named.
    pub(crate) const ALL: [Backend; 3] = [Backend::Cpu, Backend::Wgpu, Backend::Cuda];
}

#[derive(Args)]
pub(crate) struct CheckArguments {
    /// Check this backend only [default: every one that can be used]
    #[arg(long)]
    pub(crate) backend: Option<Backend>,
    /// Check this method only
    #[arg(long)]
    pub(crate) method: Option<Listed>,
    /// Check this dtype only: f16, bf16, f32 or f64
    #[arg(long)]
    pub(crate) dtype: Option<DType>,
    /// Fewer and smaller cases
    #[arg(long)]
    pub(crate) quick: bool,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
}

/// No adapter is needed: nothing is run.
#[cfg(feature = "wgpu")]
#[derive(Args)]
pub(crate) struct ExportArguments {
    /// The folder to write; it must be new or empty
    pub(crate) directory: PathBuf,
    /// Export this method only
    #[arg(long)]
    pub(crate) method: Option<Listed>,
    /// Export this dtype only: f16, bf16 or f32
    #[arg(long)]
    pub(crate) dtype: Option<DType>,
    /// Fewer and smaller cases
    #[arg(long)]
    pub(crate) quick: bool,
    /// Export the cases of at most N shaders of each kernel and dtype, and those as in networks [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) shaders: Option<usize>,
    /// Also export the shaders for adapters all of whose subgroups have this size
    #[arg(long, value_name = "N")]
    pub(crate) subgroup_size: Option<u32>,
}

#[cfg(feature = "wgpu")]
#[derive(Args)]
pub(crate) struct JudgeArguments {
    /// The folder that `normkit export` wrote, with the results
    pub(crate) directory: PathBuf,
}

#[derive(Args)]
pub(crate) struct RunArguments {
    /// The method
    pub(crate) method: MethodName,
    /// The input: FILE.npy or FILE.safetensors:TENSOR
    #[arg(long, value_name = "FILE")]
    pub(crate) input: String,
    /// The weight: of the normalized axes, the channels, or the lengths g of weight_norm
    #[arg(long, value_name = "FILE")]
    pub(crate) weight: Option<String>,
    /// The bias, of the weight's shape
    #[arg(long, value_name = "FILE")]
    pub(crate) bias: Option<String>,
    /// Running means of the channels, for inference (batch_norm) [default: the input's own]
    #[arg(long, value_name = "FILE")]
    pub(crate) running_mean: Option<String>,
    /// Running variances of the channels, for inference (batch_norm) [default: the input's own]
    #[arg(long, value_name = "FILE")]
    pub(crate) running_var: Option<String>,
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// How many trailing axes to normalize over (layer_norm, rms_norm, dyt, eln) [default: those of the weight or bias,
    /// else one]
    #[arg(long, value_name = "N")]
    pub(crate) axes: Option<usize>,
    /// Where to write the result: FILE.npy or FILE.safetensors
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Where to run
    #[arg(long, default_value = "cpu")]
    pub(crate) backend: Backend,
    /// Convert the input to this dtype first: f16, bf16, f32 or f64 [default: as it is]
    #[arg(long)]
    pub(crate) dtype: Option<DType>,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
}

#[derive(Args)]
pub(crate) struct BenchArguments {
    /// Measure this backend only [default: every one that can be used]
    #[arg(long)]
    pub(crate) backend: Option<Backend>,
    /// Measure this method only
    #[arg(long)]
    pub(crate) method: Option<MethodName>,
    /// Measure this dtype only [default: f32, bf16 and f16]
    #[arg(long)]
    pub(crate) dtype: Option<DType>,
    /// The input's shape, as in 64,256,14,14 [default: typical shapes of each method]
    #[arg(long, value_name = "N,M,...", value_delimiter = ',', requires = "method")]
    pub(crate) shape: Option<Vec<usize>>,
    /// Make the input about this many elements, along its first axis [default: 64 MiB where no shape is given]
    #[arg(long, value_name = "N", conflicts_with = "shape")]
    pub(crate) elements: Option<usize>,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) surroundings: Surroundings,
    /// Rounds to take the median of
    #[arg(long, default_value_t = 15, value_name = "N")]
    pub(crate) rounds: usize,
    /// Draw the shares of the copy's bandwidth as a bar chart
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
    /// Print a Markdown table of the times as multiples of the copy's, beside the project's goals
    #[arg(long)]
    pub(crate) table: bool,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
}

#[derive(Args)]
pub(crate) struct DemoArguments {
    /// The recorded activations
    #[arg(long, value_name = "FILE", default_value = "tests/data/minilm_layernorm.safetensors")]
    pub(crate) data: PathBuf,
}
