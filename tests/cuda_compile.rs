//! The CUDA kernels compile for GPUs of four generations, and none of them has more numbers than registers have room for.
//! NVRTC needs no GPU for that. The table of what each kernel takes lies in the folder of cargo's temporary files.
#![cfg(feature = "cuda")]

mod common;

use normkit::Stream;
use normkit::backend::cuda::{Compiler, Kernel, Overrides, Resources};
use normkit::check::{Case, METHODS, compute};
use normkit::tensor::DType;
use std::fmt::Write;
use std::path::PathBuf;

const ARCHITECTURES: [(u32, u32); 4] = [(7, 5), (8, 0), (9, 0), (10, 0)];

/// One of each method, the row norms from short rows to those of several blocks, and odd rows.
fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    for dtype in [DType::F32, DType::BF16] {
        for cols in [64, 1024, 4096, 32_768, 262_144] {
            list.push(Case::matrix("layer_norm", dtype, 2, cols));
        }
        list.extend(METHODS.iter().map(|method| Case::matrix(method, dtype, 70, 768)));
    }
    for dtype in [DType::F16, DType::F64] {
        list.extend([1024, 4096].map(|cols| Case::matrix("rms_norm", dtype, 2, cols)));
    }
    list.push(Case::matrix("dyt", DType::F64, 70, 768));
    for (p, dtype) in [(1.0, DType::F32), (3.0, DType::F32), (2.5, DType::F32), (f64::INFINITY, DType::F64)] {
        list.push(Case { p, ..Case::matrix("normalize", dtype, 70, 769) });
    }
    list
}

/// The kernels of these cases, each once: the parameters' gradients beside the input's, and by themselves.
fn kernels() -> Vec<Kernel> {
    let device = common::cuda_device();
    let mut all = Vec::new();
    for fused in [false, true] {
        let mut overrides = Overrides::default();
        // As if there were rows enough for all of a GPU.
        (overrides.leaves, overrides.fused) = (Some(32), Some(fused));
        let stream = device.listing().with_overrides(overrides).unwrap();
        for case in cases().into_iter().filter(|case| !fused || case.method == "layer_norm") {
            compute(&case, &Stream::Cuda(stream.clone())).unwrap_or_else(|error| panic!("{case:?}: {error}"));
        }
        all.extend(stream.kernels().into_iter().filter(|kernel| fused == kernel.name().ends_with("fused")));
    }
    all
}

/// Where NVRTC is, as `make setup` installs it.
fn compiler(architecture: (u32, u32)) -> Compiler {
    Compiler::find(None, architecture).unwrap_or_else(|error| panic!("{error}\n`make setup` installs it."))
}

fn row(kernel: &Kernel, all: &[Resources]) -> String {
    let mut text = format!("| `{}` | {} ", kernel.name(), kernel.describe());
    let Resources { threads, shared, .. } = all[0];
    write!(text, "| {threads} | {shared} ").unwrap();
    for resources in all {
        write!(text, "| {} ", resources.registers).unwrap();
    }
    text + "|\n"
}

#[test]
fn every_kernel_compiles_for_every_generation_without_spills() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cuda");
    std::fs::create_dir_all(&folder).unwrap();
    let compilers = ARCHITECTURES.map(compiler);
    let kernels = kernels();
    assert!(kernels.len() > 60, "{}", kernels.len());
    let mut table =
        String::from("| kernel | variant | threads | shared bytes | registers 7.5 | 8.0 | 9.0 | 10.0 |\n");
    table += "|---|---|--:|--:|--:|--:|--:|--:|\n";
    let mut spilling = Vec::new();
    for (index, kernel) in kernels.iter().enumerate() {
        let mut all = Vec::new();
        for (compiler, (major, minor)) in compilers.iter().zip(ARCHITECTURES) {
            let compiled =
                compiler.compile(kernel).unwrap_or_else(|error| panic!("{}: {error}", kernel.describe()));
            let resources = compiled.resources;
            if resources.spills > 0 || resources.stack > 0 {
                let what = format!("{} {}", kernel.name(), kernel.describe());
                spilling.push(format!("{what} on {major}.{minor}: {resources:?}"));
            }
            if (major, minor) == (9, 0) {
                // For the test that looks at the instructions.
                let kind = if kernel.is_wide() { "wide" } else { "single" };
                let name = format!("{index:03}-{}-{kind}.cubin", kernel.name());
                std::fs::write(folder.join(name), &compiled.code).unwrap();
            }
            all.push(resources);
        }
        table += &row(kernel, &all);
    }
    std::fs::write(folder.join("resources.md"), table).unwrap();
    assert!(spilling.is_empty(), "{} of {}:\n{}", spilling.len(), kernels.len(), spilling.join("\n"));
}
