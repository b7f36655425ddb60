//! The CUDA kernels compile for GPUs of four generations, and none of those for typical calls has more numbers than registers
//! have room for. NVRTC needs no GPU for that. The table of what each kernel takes lies in the folder of cargo's temporary files.
//!
//! Usually each kernel of typical calls is compiled for two generations, 9.0 being one, and some of those that the other
//! tests use for one; where the environment says `NORMKIT_TEST_KERNELS=all`, as `make cuda-compile` does, all for all of them,
//! and where it says `typical`, only the typical ones are.
#![cfg(feature = "cuda")]

mod common;

use common::wave;

#[path = "common/pairs.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod pairs;

#[path = "common/any_spec.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod any_spec;
#[path = "common/coded.rs"]
mod coded;
#[path = "common/forced.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod forced;

use normkit::backend::cuda::{
    Compiled, Compiler, CudaDevice, CudaStream, HostOptions, Kernel, Overrides, Resources,
};
use normkit::check::{Case, METHODS, compute};
use normkit::norm::HypersphereStep;
use normkit::prelude::*;
use normkit::spec::{Activation, Epilogue, EpsPosition, Fusion, Inner, Prologue, RotaryStyle, Statistic};
use normkit::tensor::DType;
use normkit::{Result, Stream};
use pairs::{Call, Place};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const ARCHITECTURES: [(u32, u32); 4] = [(7, 5), (8, 0), (9, 0), (10, 0)];

/// Every typical kernel is compiled for 9.0, and for one of the others by turns.
const TURNS: [Option<usize>; 4] = [Some(0), Some(1), None, Some(2)];

/// Of the kernels that are not typical, one in so many is compiled for each architecture, for each another one.
const SHARE: usize = 160;

/// Bytes of its numbers, and of its stack frame, that a kernel which is not typical may move out of a thread's registers. Those for
/// rows side by side whose elements are made of several operands move up to 128: where their blocks have 512 threads, each of
/// which has 128 registers and 8 lanes or 16.
const MOST_SPILLED: u32 = 256;

/// One of each method, the row norms from short rows to those of several blocks, and odd rows.
fn typical_cases() -> Vec<Case> {
    let mut list = Vec::new();
    for dtype in [DType::F32, DType::BF16] {
        for cols in [64, 1001, 1024, 4096, 32_768, 262_144] {
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
    list.extend(fused_cases());
    list
}

/// What surrounds norms in models: a residual that is kept, gates, and activations.
fn fused_cases() -> Vec<Case> {
    use DType::{BF16, F16, F32};
    use RotaryStyle::{HalfSplit, Interleaved};
    let add = Prologue::Residual { input_scale: 1.0, residual_scale: 1.0 };
    let [relu, gelu] = [Activation::Relu, Activation::GeluTanh].map(Epilogue::Activation);
    let of = |method, dtype, cols, prologue, epilogue| {
        let mut case = Case::matrix(method, dtype, if method == "batch_norm" { 70 } else { 2 }, cols);
        (case.fusion, case.hidden) = (Fusion { prologue, epilogue, ..Fusion::default() }, true);
        case
    };
    let mut list: Vec<Case> =
        [F16, BF16, F32].map(|dtype| of("rms_norm", dtype, 4096, add, Epilogue::None)).into();
    // In float32 beside elements of two bytes.
    list.push(Case { other_dtype: F32, ..of("rms_norm", BF16, 1024, add, Epilogue::None) });
    list.push(of("layer_norm", BF16, 32_768, add, Epilogue::None));
    list.extend([F32, BF16].map(|dtype| of("rms_norm", dtype, 4096, Prologue::Gate, Epilogue::None)));
    list.extend([F32, BF16].map(|dtype| of("rms_norm", dtype, 1024, Prologue::None, Epilogue::Gate)));
    list.extend([F32, F16].map(|dtype| of("layer_norm", dtype, 1024, Prologue::None, gelu)));
    list.push(of("layer_norm", F32, 4096, add, gelu));
    list.push(of("layer_norm", DType::F64, 1024, add, gelu));
    list.push(of("batch_norm", F32, 768, add, relu));
    for (style, positions) in [(HalfSplit, Some(true)), (HalfSplit, None), (Interleaved, Some(false))] {
        list.extend([BF16, F32].map(|dtype| {
            let epilogue = Epilogue::Rotary { style, dims: 128 };
            Case { positions, ..of("qk_norm", dtype, 128, Prologue::None, epilogue) }
        }));
    }
    list.extend(
        [F32, BF16].into_iter().flat_map(|dtype| [1024, 4096, 16_384].map(|cols| sandwich(dtype, cols))),
    );
    list.extend([F32, BF16].into_iter().flat_map(|dtype| [1024, 4096, 16_384].map(|cols| step(dtype, cols))));
    list
}

/// The norm after a sublayer, the residual and the norm before the next one.
fn sandwich(dtype: DType, cols: usize) -> Case {
    let inner = Inner {
        statistic: Statistic::MeanSquare,
        prefix: cols,
        eps: 1e-6,
        eps_position: EpsPosition::Inside,
        weight_offset: 0.0,
        round_normalized: false,
    };
    let prologue = Prologue::Residual { input_scale: 1.0, residual_scale: 1.0 };
    let mut case = Case::matrix("rms_norm", dtype, 2, cols);
    (case.fusion, case.hidden) = (Fusion { prologue, inner: Some(inner), ..Fusion::default() }, true);
    case
}

/// A step on the hypersphere.
fn step(dtype: DType, cols: usize) -> Case {
    let alpha = HostTensor::zeros(&[cols], DType::F32).unwrap();
    let spec = HypersphereStep::new(&alpha).lower(&[2, cols]).unwrap();
    Case { weight: None, bias: None, ..Case::of_spec(&spec, dtype) }
}

/// A device with the geometry of GPUs of this capability.
fn device(capability: (u32, u32)) -> CudaDevice {
    let device = CudaDevice::host_with(&HostOptions { capability, ..HostOptions::default() });
    device.unwrap_or_else(|error| panic!("{error}"))
}

/// The kernels that a GPU of this capability would run typical calls with, each once: the parameters' gradients beside the
/// input's, and by themselves.
fn typical(capability: (u32, u32)) -> Vec<Kernel> {
    let device = device(capability);
    let mut all = Vec::new();
    for fused in [false, true] {
        let mut overrides = Overrides::default();
        // As if there were rows enough for all of a GPU.
        (overrides.leaves, overrides.fused) = (Some(32), Some(fused));
        let stream = device.listing().with_overrides(overrides).unwrap();
        list(&stream, typical_cases().into_iter().filter(|case| !fused || has_fused_gradients(case)));
        if !fused {
            coded::list(&device, &stream).unwrap_or_else(|error| panic!("{error}"));
            list_pairs(&stream, true).unwrap_or_else(|error| panic!("{error}"));
        }
        all.extend(stream.kernels().into_iter().filter(|kernel| fused == kernel.name().ends_with("fused")));
    }
    all
}

/// Whether a row's columns have parameters of their own, and the case is one to look at the gradients of all of them with.
fn has_fused_gradients(case: &Case) -> bool {
    case.method == "layer_norm" || case.method == "rms_norm" && !case.fusion.is_none() || case.spec.is_some()
}

/// Those of what the other tests compute: their lists of cases, and what `cuda_schedules` forces.
fn of_tests(capability: (u32, u32)) -> Vec<Kernel> {
    let device = device(capability);
    let own = Device::Cuda(device.clone());
    let mut cases = common::all_cases(&own);
    cases.extend(common::random_cases(&own));
    for case in common::varied(&own) {
        let (rows, _) = common::dim(&case);
        cases.extend(common::parts_around(&case, rows / 2));
        cases.extend(common::moved(&own, &case));
        cases.push(case);
    }
    cases.extend(common::row_lengths(&own));
    for dtype in DType::FLOATS {
        cases.extend([0, 3].into_iter().flat_map(|rows| common::matrices(dtype, rows, 67)));
        cases.extend(common::matrices(dtype, 5, 300));
    }
    let stream = device.listing();
    list(&stream, cases);
    let mut all = stream.kernels();
    for kernel in forced::kernels(&device, &forced::all_problems()) {
        if !all.contains(&kernel) {
            all.push(kernel);
        }
    }
    all
}

/// Notes the kernels of the cases.
fn list(stream: &normkit::backend::cuda::CudaStream<'static>, cases: impl IntoIterator<Item = Case>) {
    for case in cases {
        compute(&case, &Stream::Cuda(stream.clone())).unwrap_or_else(|error| panic!("{case:?}: {error}"));
    }
}

/// Notes the kernels of queries and keys, together or each by themselves.
fn list_pairs(stream: &CudaStream<'static>, together: bool) -> Result<()> {
    use RotaryStyle::{HalfSplit, Interleaved};
    for rotary in [None, Some((HalfSplit, true)), Some((HalfSplit, false)), Some((Interleaved, false))] {
        for dtype in [DType::BF16, DType::F32] {
            let call = Call { dim: 128, rotary, ..Call::new(dtype, [4, 2], Place::Packed) };
            call.results(together, &Stream::Cuda(stream.clone()))?;
        }
    }
    Ok(())
}

/// A kernel to be compiled for an architecture, and whether it is a typical one.
struct Task {
    generation: usize,
    kernel: Kernel,
    is_typical: bool,
}

/// What is to be compiled, and how many kernels there are beside it for each architecture.
fn tasks() -> (Vec<Task>, [usize; 4]) {
    let extent = std::env::var("NORMKIT_TEST_KERNELS").unwrap_or_default();
    let (is_all, is_every_typical) = (extent == "all", extent == "all" || extent == "typical");
    let lists = std::thread::scope(|scope| {
        let listing =
            ARCHITECTURES.map(|capability| scope.spawn(move || (typical(capability), of_tests(capability))));
        listing.map(|list| list.join().expect("a list"))
    });
    let (mut tasks, mut left) = (Vec::new(), [0; 4]);
    for (generation, (typical, of_tests)) in lists.into_iter().enumerate() {
        assert!(typical.len() > 50 && of_tests.len() > 1000, "{}, {}", typical.len(), of_tests.len());
        let others: Vec<Kernel> = of_tests.into_iter().filter(|kernel| !typical.contains(kernel)).collect();
        left[generation] = typical.len() + others.len();
        let before = tasks.len();
        let is_turn = |index| TURNS[generation].is_none_or(|turn| index % 3 == turn);
        let in_share = |index| index % SHARE == generation * SHARE / ARCHITECTURES.len();
        for (index, kernel) in typical.into_iter().enumerate() {
            if is_every_typical || is_turn(index) {
                tasks.push(Task { generation, kernel, is_typical: true });
            }
        }
        for (index, kernel) in others.into_iter().enumerate() {
            if is_all || in_share(index) {
                tasks.push(Task { generation, kernel, is_typical: false });
            }
        }
        left[generation] -= tasks.len() - before;
    }
    (tasks, left)
}

/// Compiles on all of the machine's cores; results come with their tasks' numbers.
fn compile(tasks: &[Task]) -> Vec<(usize, Compiled)> {
    // Where NVRTC is, as `make setup` installs it.
    let compilers = ARCHITECTURES.map(|architecture| {
        Compiler::find(None, architecture)
            .unwrap_or_else(|error| panic!("{error}\n`make setup` installs it."))
    });
    let waiting = Mutex::new(tasks.iter().enumerate());
    let work = || {
        let mut done = Vec::new();
        loop {
            let next = waiting.lock().unwrap().next();
            let Some((index, task)) = next else { return done };
            let what = || format!("{} {}", task.kernel.name(), task.kernel.describe());
            let compiled = compilers[task.generation].compile(&task.kernel);
            done.push((index, compiled.unwrap_or_else(|error| panic!("{}: {error}", what()))));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().flat_map(|thread| thread.join().expect("kernels that compile")).collect()
    })
}

#[test]
fn every_kernel_compiles_for_every_generation_without_spills() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cuda");
    // Not those of an earlier run.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let (tasks, left) = tasks();
    let start = Instant::now();
    let mut compiled = compile(&tasks);
    let took = start.elapsed();
    compiled.sort_by_key(|&(index, _)| index);
    for (index, compiled) in &compiled {
        let Task { generation, kernel, is_typical } = &tasks[*index];
        // For the test that looks at the instructions.
        if *is_typical && ARCHITECTURES[*generation] == (9, 0) {
            let kind = if kernel.is_wide() { "wide" } else { "single" };
            let name = format!("{index:04}-{}-{kind}.cubin", kernel.name());
            std::fs::write(folder.join(name), &compiled.code).unwrap();
        }
    }
    let of_kernels: Vec<(&Task, Resources)> =
        compiled.iter().map(|(index, compiled)| (&tasks[*index], compiled.resources)).collect();
    write_table(&folder, &of_kernels);
    summarize(&of_kernels, left, took);
    let spilling: Vec<String> = of_kernels
        .iter()
        .filter(|(task, resources)| {
            resources.spills.max(resources.stack) > if task.is_typical { 0 } else { MOST_SPILLED }
        })
        .map(|(Task { generation, kernel, .. }, resources)| {
            let (name, what) = (kernel.name(), kernel.describe());
            format!("{name} {what} on {:?}: {resources:?}", ARCHITECTURES[*generation])
        })
        .collect();
    assert!(spilling.is_empty(), "{}:\n{}", spilling.len(), spilling.join("\n"));
}

/// For several problems a kernel takes hardly more than for one: it only finds out which of them a block is for.
#[test]
fn kernels_for_queries_and_keys_together_take_what_those_for_one_take() {
    let capability = (9, 0);
    let (device, compiler) = (device(capability), Compiler::find(None, capability).expect("NVRTC"));
    let kernels = |together: bool| {
        let stream = device.listing();
        list_pairs(&stream, together).unwrap_or_else(|error| panic!("{error}"));
        stream.kernels()
    };
    let (one, both) = (kernels(false), kernels(true));
    for kernel in both.iter().filter(|kernel| kernel.describe().contains("2 problems")) {
        let resources = |kernel: &Kernel| compiler.compile(kernel).expect("a kernel").resources;
        let found = resources(kernel);
        let what = kernel.describe().replace(", 2 problems", "");
        let like = one.iter().filter(|one| one.name() == kernel.name() && one.describe() == what);
        let alone = like.map(|one| resources(one).registers);
        let alone = alone.max().expect("the same for one problem");
        println!("{} {}: {found:?}, alone {alone} registers", kernel.name(), kernel.describe());
        assert!(found.spills == 0 && found.stack == 0 && found.registers <= alone + 16, "{found:?}, {alone}");
    }
}

/// The registers of typical kernels for each generation, by name, description and what a block takes.
fn write_table(folder: &Path, of_kernels: &[(&Task, Resources)]) {
    let mut table: BTreeMap<[String; 4], [Option<u32>; 4]> = BTreeMap::new();
    for (Task { generation, kernel, .. }, resources) in of_kernels.iter().filter(|(task, _)| task.is_typical)
    {
        let Resources { threads, registers, shared, .. } = resources;
        let key = [kernel.name().into(), kernel.describe(), threads.to_string(), shared.to_string()];
        let entry = &mut table.entry(key).or_default()[*generation];
        // Of several that differ in details, the one that takes most.
        *entry = (*entry).max(Some(*registers));
    }
    let mut text = String::from("| kernel | variant | threads | shared bytes | 7.5 | 8.0 | 9.0 | 10.0 | ");
    text += "threads on 9.0 | KiB on their way |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n";
    for ([name, what, threads, shared], registers) in &table {
        let or_dash = |number: Option<u32>| number.map_or("-".into(), |number| number.to_string());
        let cells = registers.map(or_dash).join(" | ");
        let resident = registers[2].map(|n| resident(threads.parse().unwrap(), n, shared.parse().unwrap()));
        let on_their_way =
            resident.zip(kept_bytes(name, what)).map(|(threads, bytes)| threads * bytes / 1024);
        let evidence = [resident, on_their_way].map(or_dash).join(" | ");
        writeln!(text, "| `{name}` | {what} | {threads} | {shared} | {cells} | {evidence} |").unwrap();
    }
    std::fs::write(folder.join("resources.md"), text).unwrap();
}

/// How many threads a multiprocessor of capability 9.0 runs at a time, in blocks of so many, each with so many registers:
/// at most 2048 in 32 blocks, with 65,536 registers, which a warp gets by 256, and 227 KiB of shared memory, of which a block
/// takes one more.
fn resident(threads: u32, registers: u32, shared: u32) -> u32 {
    let warps = threads.div_ceil(32);
    let of_block = warps * (registers * 32).next_multiple_of(256);
    let limits = [32, 64 / warps, 65_536 / of_block, 227 * 1024 / (shared + 1024)];
    limits.into_iter().min().unwrap_or(0) * threads
}

/// Bytes that a thread asks for before it uses the first, where it keeps its part of a row: of one tensor or of two, and of
/// what those are made with.
fn kept_bytes(name: &str, what: &str) -> Option<u32> {
    let mut words = what.split(", ");
    let size =
        DType::FLOATS.into_iter().find(|dtype| words.clone().next() == Some(&dtype.to_string()))?.size();
    let kept: u32 = words.find_map(|word| word.strip_suffix(" elements kept"))?.parse().ok()?;
    let is_backward = name.contains("backward");
    let made_with = [what.contains(" before"), is_backward && what.contains("Gate after")];
    Some(kept * size as u32 * (1 + u32::from(is_backward) + made_with.map(u32::from).iter().sum::<u32>()))
}

/// Says how many kernels there were, and what they took at most.
fn summarize(of_kernels: &[(&Task, Resources)], left: [usize; 4], took: Duration) {
    for (generation, (major, minor)) in ARCHITECTURES.into_iter().enumerate() {
        let own = || of_kernels.iter().filter(|(task, _)| task.generation == generation).map(|(_, of)| of);
        let most = |number: fn(&Resources) -> u32| own().map(number).max().unwrap_or(0);
        println!(
            "{major}.{minor}: {} kernels compiled, {} left; at most {} registers, {} bytes spilled, {} of stack, {} shared",
            own().count(),
            left[generation],
            most(|of| of.registers),
            most(|of| of.spills),
            most(|of| of.stack),
            most(|of| of.shared)
        );
    }
    println!("{:.0} s", took.as_secs_f64());
}
