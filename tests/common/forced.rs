//! What the CUDA backend is forced to: every way to run a norm, and the norms that run so.

use crate::any_spec::{self, Problem, results};
use normkit::Stream;
use normkit::backend::cuda::{CudaDevice, Kernel, Overrides, Style};
use normkit::spec::{Activation, Branch, Dropout, Epilogue, Fusion, Prologue, Statistic};
use normkit::tensor::DType;

/// The ways that the `index`th of a list of norms is run: on the CPU, where compiling them is most of the work, those that choose how
/// threads share a block by turns.
pub(crate) fn ways(index: usize) -> impl Iterator<Item = (&'static str, Overrides)> {
    const TAKE_TURNS: [&str; 6] = [
        "row, read again",
        "row, single columns",
        "row, a block for each",
        "all leaves in a block",
        "leaves in two blocks",
        "parameters beside the input",
    ];
    let all = std::env::var_os("NORMKIT_TEST_GPU").is_some()
        || std::env::var("NORMKIT_TEST_KERNELS").is_ok_and(|which| which == "all");
    forced().into_iter().filter(move |(name, _)| {
        let turn = TAKE_TURNS.iter().position(|way| way == name);
        all || turn.is_none_or(|turn| (index + turn).is_multiple_of(2))
    })
}

/// Each way to run a norm.
pub(crate) fn forced() -> Vec<(&'static str, Overrides)> {
    let of = |change: fn(&mut Overrides)| {
        let mut overrides = Overrides::default();
        change(&mut overrides);
        overrides
    };
    vec![
        ("as the device chooses", Overrides::default()),
        ("row, read again", of(|o| (o.style, o.steps) = (Some(Style::Row), Some(0)))),
        ("row, single columns", of(|o| (o.style, o.width) = (Some(Style::Row), Some(1)))),
        ("row, a block for each", of(|o| (o.style, o.threads) = (Some(Style::Row), Some(64)))),
        ("column", of(|o| o.style = Some(Style::Column))),
        ("row split", of(|o| (o.style, o.split) = (Some(Style::Row), true))),
        ("column split", of(|o| (o.style, o.split) = (Some(Style::Column), true))),
        ("all leaves in a block", of(|o| o.leaves = Some(32))),
        ("leaves in two blocks", of(|o| (o.leaves, o.cluster) = (Some(2), Some(2)))),
        ("parameters beside the input", of(|o| o.fused = Some(true))),
    ]
}

/// Rows of one leaf whose columns have their own parameters, and of several.
pub(crate) fn a_parameter_for_each_column() -> Vec<Problem> {
    let of = |rows, cols| Problem::new(&[rows, cols], &[1], &[1], Statistic::Moments);
    vec![
        of(40, 70),
        of(35, 300),
        Problem { rise: 1e5, ..of(100, 1024) },
        of(18, 3000),
        of(3, 20_000),
        // Chunks of three row leaves, whose order shows; of two it would not.
        of(8300, 24),
        Problem { dtype: DType::BF16, statistic: Statistic::MeanSquare, round: true, ..of(50, 512) },
        Problem { dtype: DType::F16, mask: true, ..of(19, 2048) },
        Problem { values: (0.0, 1e30), eps: 0.0, ..of(17, 64) },
        // Products with the gradient leave the range of normal numbers, and the result is within.
        Problem { values: (0.0, 1e-4), eps: 0.0, gradient: 1e-38, ..of(17, 64) },
    ]
}

/// Prologues and epilogues around every way that parameters lie in a row, and all that rows may be.
pub(crate) fn fusions() -> Vec<Problem> {
    const ADD: Prologue = Prologue::Residual { input_scale: 1.0, residual_scale: 1.0 };
    const SCALED: Prologue = Prologue::Residual { input_scale: 0.75, residual_scale: -3.3 };
    let [relu, silu, gelu] =
        [Activation::Relu, Activation::Silu, Activation::GeluTanh].map(Epilogue::Activation);
    let of = |shape: &[usize], reduced: &[usize], affine: &[usize], prologue, epilogue| Problem {
        fusion: Fusion { prologue, epilogue, ..Fusion::default() },
        ..Problem::new(shape, reduced, affine, Statistic::Moments)
    };
    let exact = Epilogue::Activation(Activation::Gelu);
    let (mean_square, bf16) = (Statistic::MeanSquare, DType::BF16);
    vec![
        of(&[40, 70], &[1], &[1], SCALED, gelu),
        Problem {
            statistic: mean_square,
            dtype: bf16,
            round: true,
            ..of(&[35, 300], &[1], &[1], ADD, Epilogue::Gate)
        },
        Problem { order: vec![0, 2, 3, 1], other: bf16, ..of(&[6, 8, 5, 7], &[0, 2, 3], &[1], ADD, relu) },
        Problem { mask: true, ..of(&[9, 33], &[1], &[1], Prologue::Gate, Epilogue::Gate) },
        of(&[3, 9001], &[1], &[1], Prologue::Gate, silu),
        Problem { mask: true, ..of(&[2, 3, 4, 20], &[2, 3], &[1, 2], ADD, exact) },
        Problem { dtype: DType::F16, ..of(&[19, 512], &[1], &[1], Prologue::None, Epilogue::Residual) },
        Problem { values: (0.0, 1e30), eps: 0.0, ..of(&[17, 64], &[1], &[1], SCALED, Epilogue::Gate) },
        Problem { gradient: 1e-38, eps: 0.0, ..of(&[17, 64], &[1], &[1], Prologue::Gate, gelu) },
        Problem { dtype: DType::F64, other: DType::F64, ..of(&[6, 37], &[1], &[1], Prologue::None, exact) },
        Problem {
            statistic: mean_square,
            dtype: DType::F64,
            other: DType::F64,
            ..of(&[6, 37], &[1], &[1], SCALED, gelu)
        },
        Problem { frozen: true, ..of(&[4, 6, 10], &[0, 2], &[1], Prologue::Gate, relu) },
        Problem { statistic: Statistic::Norm(1.0), ..of(&[7, 50], &[1], &[0], ADD, Epilogue::Residual) },
    ]
}

/// Residuals whose branch is shifted and scaled, by parameters of columns, of parts of rows, and of rows.
pub(crate) fn branches() -> Vec<Problem> {
    let prologue = Prologue::Residual { input_scale: 0.75, residual_scale: -3.3 };
    let (dropout, branch) =
        (Some(Dropout { probability: 0.3, seed: 11, offset: 2 }), Branch { bias: true, scale: true });
    let plain = Fusion { prologue, branch, ..Fusion::default() };
    let of = |shape: &[usize], reduced: &[usize], affine: &[usize], fusion| Problem {
        fusion,
        ..Problem::new(shape, reduced, affine, Statistic::Moments)
    };
    let epilogue = Epilogue::Activation(Activation::GeluTanh);
    let (alone, gated) = (Branch { bias: false, scale: true }, Fusion { epilogue: Epilogue::Gate, ..plain });
    vec![
        of(&[40, 70], &[1], &[1], Fusion { dropout, ..plain }),
        Problem { mask: true, ..of(&[9, 33], &[1], &[1], Fusion { epilogue, ..plain }) },
        Problem { order: vec![0, 2, 3, 1], ..of(&[6, 8, 5, 7], &[0, 2, 3], &[1], gated) },
        Problem { mask: true, ..of(&[2, 3, 4, 20], &[2, 3], &[1, 2], Fusion { dropout, ..plain }) },
        Problem { frozen: true, ..of(&[4, 6, 10], &[0, 2], &[1], plain) },
        of(&[3, 9001], &[1], &[1], Fusion { branch: alone, ..plain }),
        of(&[2, 9001, 3], &[1, 2], &[2], plain),
        Problem {
            statistic: Statistic::MeanSquare,
            dtype: DType::BF16,
            round: true,
            ..of(&[35, 300], &[1], &[1], plain)
        },
        Problem { statistic: Statistic::Norm(3.0), ..of(&[7, 50], &[1], &[0], plain) },
        Problem { values: (0.0, 1e30), eps: 0.0, ..of(&[17, 64], &[1], &[1], plain) },
        Problem { gradient: 1e-38, eps: 0.0, ..of(&[17, 64], &[1], &[1], plain) },
        Problem {
            dtype: DType::F64,
            other: DType::F64,
            order: vec![1, 0],
            ..of(&[40, 37], &[1], &[0, 1], plain)
        },
    ]
}

/// In float64, every second one; which of them it is makes no difference to the type.
pub(crate) fn float64() -> Vec<Problem> {
    let all =
        [any_spec::masks_and_dtypes(), any_spec::rows_out_of_range_and_far_from_zero(), any_spec::powers()];
    let of_f64 = all.into_iter().flatten().step_by(2).map(|problem| Problem { dtype: DType::F64, ..problem });
    of_f64.collect()
}

/// Everything that is run so.
pub(crate) fn all_problems() -> Vec<Problem> {
    let all = [
        any_spec::batch_norm_in_both_memory_orders(),
        any_spec::group_norm_and_norms_of_columns(),
        any_spec::masks_and_dtypes(),
        any_spec::rows_out_of_range_and_far_from_zero(),
        any_spec::other_norms_and_long_rows(),
        any_spec::powers(),
        fusions(),
        branches(),
        a_parameter_for_each_column(),
        float64(),
    ];
    all.concat()
}

/// The kernels that these problems take in every forced way, each once.
pub(crate) fn kernels(device: &CudaDevice, problems: &[Problem]) -> Vec<Kernel> {
    let listing = device.listing();
    for (index, problem) in problems.iter().enumerate() {
        for (_, overrides) in ways(index) {
            results(problem, &Stream::Cuda(listing.clone().with_overrides(overrides).unwrap()));
        }
    }
    listing.kernels()
}
