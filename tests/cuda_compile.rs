//! The CUDA kernels compile for GPUs of four generations, and none of them has more numbers than registers have room for.
//! NVRTC needs no GPU for that. The table of what each kernel takes lies in the folder of cargo's temporary files.
#![cfg(feature = "cuda")]

use normkit::Stream;
use normkit::backend::cuda::{Compiler, CudaDevice, HostOptions, Kernel, Overrides, Resources};
use normkit::check::{Case, METHODS, compute};
use normkit::tensor::DType;
use std::collections::BTreeMap;
use std::path::PathBuf;

const ARCHITECTURES: [(u32, u32); 4] = [(7, 5), (8, 0), (9, 0), (10, 0)];

/// One of each method, the row norms from short rows to those of several blocks, and odd rows.
fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    for dtype in [DType::F32, DType::BF16] {
        for cols in [64, 1024, 4096, 32_768, 262_144] {
            list.push(Case::matrix("layer_norm", dtype, 2, cols));
        }
    }
    list.extend(METHODS.iter().map(|method| Case::matrix(method, DType::F32, 70, 768)));
    for dtype in [DType::F16, DType::F64] {
        list.extend([1024, 4096].map(|cols| Case::matrix("rms_norm", dtype, 2, cols)));
    }
    list.push(Case::matrix("dyt", DType::F64, 70, 768));
    for (p, dtype) in [(1.0, DType::F32), (3.0, DType::F32), (2.5, DType::F32), (f64::INFINITY, DType::F64)] {
        list.push(Case { p, ..Case::matrix("normalize", dtype, 70, 769) });
    }
    list
}

/// The kernels that a GPU of this capability would run these cases with, each once: the parameters' gradients beside the
/// input's, and by themselves.
fn kernels(capability: (u32, u32)) -> Vec<Kernel> {
    let device = CudaDevice::host_with(&HostOptions { capability, ..HostOptions::default() });
    let device = device.unwrap_or_else(|error| panic!("{error}"));
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

#[test]
fn every_kernel_compiles_for_every_generation_without_spills() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cuda");
    // Not those of an earlier run.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    // By name, description and what a block takes, the registers for each generation.
    let mut table: BTreeMap<[String; 4], [Option<u32>; 4]> = BTreeMap::new();
    let mut spilling = Vec::new();
    for (generation, capability) in ARCHITECTURES.into_iter().enumerate() {
        let (compiler, kernels) = (compiler(capability), kernels(capability));
        assert!(kernels.len() > 50, "{}", kernels.len());
        for (index, kernel) in kernels.iter().enumerate() {
            let what = kernel.describe();
            let compiled = compiler.compile(kernel).unwrap_or_else(|error| panic!("{what}: {error}"));
            let resources = compiled.resources;
            let Resources { threads, registers, shared, .. } = resources;
            if resources.spills > 0 || resources.stack > 0 {
                spilling.push(format!("{} {what} on {capability:?}: {resources:?}", kernel.name()));
            }
            if capability == (9, 0) {
                // For the test that looks at the instructions.
                let kind = if kernel.is_wide() { "wide" } else { "single" };
                let name = format!("{index:03}-{}-{kind}.cubin", kernel.name());
                std::fs::write(folder.join(name), &compiled.code).unwrap();
            }
            let key = [kernel.name().into(), what, threads.to_string(), shared.to_string()];
            let entry = &mut table.entry(key).or_default()[generation];
            // Of several that differ in details, the one that takes most.
            *entry = (*entry).max(Some(registers));
        }
    }
    let mut text = String::from("| kernel | variant | threads | shared bytes | 7.5 | 8.0 | 9.0 | 10.0 |\n");
    text += "|---|---|--:|--:|--:|--:|--:|--:|\n";
    for ([name, what, threads, shared], registers) in &table {
        let cells = registers.map(|n| n.map_or("-".into(), |n| n.to_string())).join(" | ");
        text += &format!("| `{name}` | {what} | {threads} | {shared} | {cells} |\n");
    }
    std::fs::write(folder.join("resources.md"), text).unwrap();
    assert!(spilling.is_empty(), "{}:\n{}", spilling.len(), spilling.join("\n"));
}
