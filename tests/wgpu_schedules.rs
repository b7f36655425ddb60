//! Every schedule that the WebGPU backend can be forced to gives the bits of the CPU: over what a spec can say, strides,
//! dtypes and masks, forward and backward, at once and step by step.
#![cfg(feature = "wgpu")]

#[path = "common/adapter.rs"]
mod adapter;
#[path = "common/any_spec.rs"]
mod any_spec;
#[path = "common/wgpu_ways.rs"]
mod wgpu_ways;

use adapter::wgpu_device;
use any_spec::{Problem, differences, elementwise, results};
use normkit::backend::wgpu::{Options, Overrides, WgpuDevice};
use normkit::prelude::*;
use normkit::spec::RotaryStyle::{HalfSplit, Interleaved};
use normkit::spec::{Activation, Branch, Dropout, Epilogue, Fusion, Prologue, RotaryStyle, Statistic};
use normkit::tensor::DType;
use normkit::{Error, Stream};

const ADD: Prologue = Prologue::Residual { input_scale: 1.0, residual_scale: 1.0 };
const SCALED: Prologue = Prologue::Residual { input_scale: 0.75, residual_scale: -3.3 };
const RELU: Epilogue = Epilogue::Activation(Activation::Relu);
const SILU: Epilogue = Epilogue::Activation(Activation::Silu);
const GELU: Epilogue = Epilogue::Activation(Activation::Gelu);
const GELU_TANH: Epilogue = Epilogue::Activation(Activation::GeluTanh);

/// Each schedule; the one that the device chooses is one of them.
fn forced() -> [(&'static str, Overrides); 5] {
    let [_, schedules @ ..] = wgpu_ways::forced();
    schedules
}

/// Complains of everything that a forced schedule computes otherwise than the CPU: each problem in three of them by turns,
/// since a software adapter takes long to compile shaders.
fn check(problems: &[Problem]) {
    let ways = forced().map(|(name, _)| name);
    let turns = |index: usize| (0..3).map(move |turn| ways[(index + turn) % ways.len()]).collect();
    check_where(problems.iter().enumerate().map(|(index, problem)| (turns(index), problem)));
}

/// Likewise, each in one schedule only: with functions in them, they take longer.
fn check_forced(problems: &[(&'static str, Problem)]) {
    check_where(problems.iter().map(|(name, problem)| (vec![*name], problem)));
}

fn check_where<'p>(problems: impl Iterator<Item = (Vec<&'static str>, &'p Problem)>) {
    let device = wgpu_device();
    let mut different = Vec::new();
    for (ways, problem) in problems {
        let expected = results(problem, &Device::Cpu.stream());
        for (name, overrides) in forced().into_iter().filter(|(name, _)| ways.contains(name)) {
            let stream = Stream::Wgpu(device.stream().with_overrides(overrides).unwrap());
            let what = format!("{name} of {problem:?}");
            different.extend(differences(&expected, &results(problem, &stream), &what));
        }
    }
    assert!(different.is_empty(), "{} results differ:\n{}", different.len(), different.join("\n"));
}

#[test]
fn batch_norm_in_both_memory_orders() {
    check(&any_spec::batch_norm_in_both_memory_orders());
}

#[test]
fn group_norm_and_norms_of_columns() {
    check(&any_spec::group_norm_and_norms_of_columns());
}

#[test]
fn masks_and_dtypes() {
    check(&any_spec::masks_and_dtypes());
}

#[test]
fn rows_out_of_range_and_far_from_zero() {
    check(&any_spec::rows_out_of_range_and_far_from_zero());
}

#[test]
fn other_norms_and_long_rows() {
    check(&any_spec::other_norms_and_long_rows());
}

#[test]
fn powers() {
    check(&any_spec::powers());
}

/// LayerNorm with something around it.
fn fused(shape: [usize; 2], prologue: Prologue, epilogue: Epilogue) -> Problem {
    let fusion = Fusion { prologue, epilogue, ..Fusion::default() };
    Problem { fusion, ..Problem::new(&shape, &[1], &[1], Statistic::Moments) }
}

/// Whole steps of lanes, which are kept in registers, and rows that are read again.
#[test]
fn fusions_of_rows() {
    check_forced(&[
        ("row", Problem { dtype: DType::BF16, ..fused([19, 64], ADD, Epilogue::Gate) }),
        ("row", fused([35, 70], SCALED, SILU)),
        ("row split", fused([9, 64], Prologue::None, RELU)),
        (
            "row through workgroup memory",
            Problem { mask: true, round: true, dtype: DType::F16, ..fused([9, 33], Prologue::Gate, GELU) },
        ),
    ]);
}

#[test]
fn fusions_out_of_range() {
    check_forced(&[
        ("row", Problem { values: (0.0, 1e30), eps: 0.0, ..fused([17, 64], SCALED, Epilogue::Gate) }),
        (
            "column split",
            Problem { gradient: 1e-38, eps: 0.0, mask: true, ..fused([5, 40], Prologue::Gate, GELU_TANH) },
        ),
    ]);
}

/// Parameters of channels, of rows, and of a norm whose gradient has the sign of what is normalized.
#[test]
fn fusions_of_other_rows() {
    let of = |shape: &[usize], reduced: &[usize], affine: &[usize], prologue, epilogue| Problem {
        fusion: Fusion { prologue, epilogue, ..Fusion::default() },
        ..Problem::new(shape, reduced, affine, Statistic::Moments)
    };
    let channels = of(&[6, 8, 35], &[0, 2], &[1], ADD, RELU);
    let vectors = of(&[7, 50], &[1], &[0], ADD, Epilogue::Residual);
    check_forced(&[
        ("column", Problem { order: vec![0, 2, 1], other: DType::BF16, ..channels }),
        ("row", Problem { frozen: true, ..of(&[4, 6, 10], &[0, 2], &[1], Prologue::Gate, SILU) }),
        ("row split", Problem { statistic: Statistic::Norm(1.0), ..vectors }),
        ("column", of(&[2, 3, 4, 20], &[2, 3], &[1, 2], Prologue::None, Epilogue::Gate)),
    ]);
}

/// LayerNorm and others after a residual whose branch is shifted and scaled.
fn branch(shape: &[usize], reduced: &[usize], affine: &[usize], change: impl Fn(&mut Fusion)) -> Problem {
    let branch = Branch { bias: true, scale: true };
    let mut fusion = Fusion { prologue: SCALED, branch, ..Fusion::default() };
    change(&mut fusion);
    Problem { fusion, ..Problem::new(shape, reduced, affine, Statistic::Moments) }
}

const DROPOUT: Option<Dropout> = Some(Dropout { probability: 0.3, seed: 11, offset: 2 });

#[test]
fn branches_of_rows() {
    let bf16 = Problem { dtype: DType::BF16, round: true, ..branch(&[35, 70], &[1], &[1], |_| {}) };
    check_forced(&[
        ("row", branch(&[40, 64], &[1], &[1], |fusion| fusion.dropout = DROPOUT)),
        ("row through workgroup memory", Problem { statistic: Statistic::MeanSquare, ..bf16 }),
        ("column", Problem { mask: true, ..branch(&[9, 33], &[1], &[1], |f| f.epilogue = GELU_TANH) }),
        ("row split", branch(&[3, 9001], &[1], &[1], |fusion| fusion.branch.bias = false)),
    ]);
}

/// Parameters of channels, which parts of rows share, and of rows.
#[test]
fn branches_of_other_rows() {
    let channels = branch(&[6, 8, 35], &[0, 2], &[1], |fusion| fusion.epilogue = Epilogue::Gate);
    let groups = branch(&[2, 3, 4, 20], &[2, 3], &[1, 2], |fusion| fusion.dropout = DROPOUT);
    check_forced(&[
        ("column", Problem { order: vec![0, 2, 1], ..channels }),
        ("row", Problem { mask: true, ..groups }),
        ("row", Problem { frozen: true, ..branch(&[4, 6, 10], &[0, 2], &[1], |_| {}) }),
        ("row split", branch(&[2, 4500, 3], &[1, 2], &[2], |_| {})),
        ("row", Problem { statistic: Statistic::Norm(3.0), ..branch(&[7, 50], &[1], &[0], |_| {}) }),
        ("column", Problem { order: vec![1, 0], ..branch(&[40, 37], &[1], &[0, 1], |_| {}) }),
    ]);
}

#[test]
fn branches_out_of_range() {
    check_forced(&[
        ("row", Problem { values: (0.0, 1e30), eps: 0.0, ..branch(&[17, 64], &[1], &[1], |_| {}) }),
        ("column", Problem { gradient: 1e-38, eps: 0.0, ..branch(&[17, 6, 4], &[1, 2], &[1], |_| {}) }),
        ("row", Problem { gradient: 1e-38, eps: 0.0, ..branch(&[17, 64], &[1], &[1], |_| {}) }),
    ]);
}

/// LayerNorm of the last axis with a rotary embedding.
fn rotary(shape: &[usize], style: RotaryStyle, dims: usize, prologue: Prologue) -> Problem {
    let last = shape.len() - 1;
    let fusion = Fusion { prologue, epilogue: Epilogue::Rotary { style, dims }, ..Fusion::default() };
    Problem { fusion, ..Problem::new(shape, &[last], &[last], Statistic::Moments) }
}

/// Whole quads of pairs, kept in registers; pairs that are none, with an odd rest; pairs within a quad.
#[test]
fn rotary_embeddings_of_rows() {
    check_forced(&[
        ("row", Problem { dtype: DType::BF16, ..rotary(&[5, 7, 64], HalfSplit, 64, Prologue::None) }),
        ("row through workgroup memory", rotary(&[35, 77], HalfSplit, 70, ADD)),
        (
            "row",
            Problem { mask: true, dtype: DType::F16, ..rotary(&[9, 50], Interleaved, 46, Prologue::Gate) },
        ),
    ]);
}

/// Rows that a thread has to itself.
#[test]
fn rotary_embeddings_by_columns() {
    check_forced(&[
        ("column", rotary(&[17, 24], HalfSplit, 22, Prologue::None)),
        ("column", Problem { order: vec![1, 0], ..rotary(&[18, 24], Interleaved, 20, SCALED) }),
    ]);
}

/// Weights of heads, which are summed apart.
#[test]
fn rotary_embeddings_of_heads_with_weights() {
    check_forced(&[
        ("row", Problem { affine: vec![1, 2], ..rotary(&[9, 3, 6], HalfSplit, 6, Prologue::None) }),
        ("row", Problem { affine: vec![1, 2], ..rotary(&[9, 3, 7], Interleaved, 6, Prologue::None) }),
    ]);
}

/// Rows of several leaves, and those out of range.
#[test]
fn rotary_embeddings_out_of_range() {
    let none = Prologue::None;
    check_forced(&[
        ("row split", Problem { other: DType::BF16, ..rotary(&[3, 9000], HalfSplit, 9000, none) }),
        ("row", Problem { values: (0.0, 1e30), eps: 0.0, ..rotary(&[17, 64], HalfSplit, 64, none) }),
        ("column split", Problem { gradient: 1e-38, eps: 0.0, ..rotary(&[5, 40], Interleaved, 40, none) }),
    ]);
}

/// As many bindings as every WebGPU device has: what needs more takes several launches, or is refused.
#[test]
fn fusions_with_few_bindings() {
    let device = WgpuDevice::with_options(&Options { max_buffers: Some(8), ..Options::default() })
        .expect("an adapter");
    let stream = Stream::Wgpu(device.stream());
    let problem = Problem { other: DType::BF16, ..fused([9, 64], Prologue::Gate, Epilogue::Gate) };
    let expected = results(&problem, &Device::Cpu.stream());
    let different = differences(&expected, &results(&problem, &stream), "with few bindings");
    assert!(different.is_empty(), "{}", different.join("\n"));

    let [x, w, b] = [&[3, 8][..], &[8], &[8]].map(|shape| device.zeros(shape, DType::F32).expect("memory"));
    let norm = LayerNorm::new([8]).weight(&w).bias(&b).residual(&x).output_gate(&x).mask(&x);
    // The sum is written by a launch of its own.
    norm.forward_hidden(&x).unwrap();
    let error = norm.clone().branch_bias(&w).forward_hidden(&x).unwrap_err();
    assert!(matches!(error, Error::Limit { .. }), "{error}");
    // In one buffer, weight and bias are bound as one.
    norm.bias(&w).branch_bias(&w).forward_hidden(&x).unwrap();
}

#[test]
fn elementwise_functions() {
    let wgpu = Device::Wgpu(wgpu_device());
    let different = differences(&elementwise(&Device::Cpu), &elementwise(&wgpu), "elementwise");
    assert!(different.is_empty(), "{}", different.join("\n"));
}
