//! Norms of every kind, to be run by every schedule.

use super::Problem;
use normkit::spec::{Dropout, Epilogue, EpsPosition, Fusion, Prologue, RotaryStyle, Statistic};
use normkit::tensor::DType;

pub(crate) fn batch_norm_in_both_memory_orders() -> Vec<Problem> {
    let base = Problem::new(&[6, 8, 5, 7], &[0, 2, 3], &[1], Statistic::Moments);
    let last = Problem { order: vec![0, 2, 3, 1], ..base.clone() };
    vec![base, last]
}

pub(crate) fn group_norm_and_norms_of_columns() -> Vec<Problem> {
    vec![
        Problem::new(&[2, 3, 4, 20], &[2, 3], &[1, 2], Statistic::Moments),
        Problem::new(&[5, 40, 6], &[1], &[], Statistic::Norm(2.0)),
    ]
}

pub(crate) fn masks_and_dtypes() -> Vec<Problem> {
    let base = Problem::new(&[9, 33], &[1], &[1], Statistic::Moments);
    vec![
        Problem { mask: true, ..base.clone() },
        Problem { dtype: DType::F16, order: vec![1, 0], ..base.clone() },
        Problem { dtype: DType::BF16, mask: true, statistic: Statistic::MeanSquare, round: true, ..base },
    ]
}

pub(crate) fn rows_out_of_range_and_far_from_zero() -> Vec<Problem> {
    let base = Problem::new(&[20, 40], &[1], &[1], Statistic::Moments);
    vec![
        Problem { values: (1e4, 1e-3), ..base.clone() },
        Problem { values: (0.0, 1e30), statistic: Statistic::MeanSquare, eps: 0.0, ..base.clone() },
        Problem { values: (1e-30, 1e-34), eps: 0.0, ..base },
        // Whole steps of lanes, whose first elements the software adapter has in registers.
        Problem { values: (0.0, 1e30), eps: 0.0, ..Problem::new(&[5, 64], &[1], &[1], Statistic::Moments) },
    ]
}

/// Rotary embeddings in rows of every length, of pairs that are whole vectors or not, with an odd rest or none, and beside all that
/// a prologue does.
#[allow(dead_code, reason = "a software adapter takes too long to compile all of them")]
pub(crate) fn rotaries() -> Vec<Problem> {
    use RotaryStyle::{HalfSplit, Interleaved};
    const ADD: Prologue = Prologue::Residual { input_scale: 0.75, residual_scale: 1.0 };
    let of = |shape: &[usize], style, dims, prologue| Problem {
        fusion: Fusion { prologue, epilogue: Epilogue::Rotary { style, dims }, ..Fusion::default() },
        ..Problem::new(shape, &[shape.len() - 1], &[shape.len() - 1], Statistic::Moments)
    };
    let none = Prologue::None;
    vec![
        of(&[5, 7, 128], HalfSplit, 128, none),
        of(&[40, 64], Interleaved, 48, none),
        Problem { statistic: Statistic::MeanSquare, ..of(&[35, 77], HalfSplit, 70, ADD) },
        Problem { dtype: DType::BF16, round: true, ..of(&[5, 7, 96], HalfSplit, 64, none) },
        Problem { dtype: DType::F16, other: DType::F16, ..of(&[9, 50], Interleaved, 50, Prologue::Gate) },
        Problem { mask: true, ..of(&[9, 33], Interleaved, 30, ADD) },
        Problem { mask: true, affine: vec![0, 1], ..of(&[9, 3, 40], HalfSplit, 36, none) },
        Problem { affine: vec![0], ..of(&[9, 3, 40], HalfSplit, 40, none) },
        Problem { order: vec![1, 0], ..of(&[40, 24], HalfSplit, 22, none) },
        Problem { order: vec![2, 0, 1], ..of(&[5, 9, 24], Interleaved, 20, none) },
        Problem { values: (0.0, 1e30), eps: 0.0, ..of(&[17, 64], HalfSplit, 64, none) },
        Problem { gradient: 1e-38, eps: 0.0, ..of(&[17, 64], Interleaved, 64, none) },
        of(&[3, 9001], HalfSplit, 9000, ADD),
        of(&[2, 9001], Interleaved, 5002, none),
        of(&[3, 3], HalfSplit, 2, none),
        Problem {
            fusion: Fusion {
                prologue: ADD,
                epilogue: Epilogue::Rotary { style: HalfSplit, dims: 48 },
                dropout: Some(Dropout { probability: 0.3, seed: 11, offset: 2 }),
                ..Fusion::default()
            },
            ..of(&[9, 50], HalfSplit, 48, ADD)
        },
        // Weights of heads, which are summed apart.
        Problem { affine: vec![1, 2], ..of(&[9, 3, 12], HalfSplit, 8, none) },
        Problem { affine: vec![1, 2], ..of(&[9, 3, 7], Interleaved, 6, none) },
        Problem {
            dtype: DType::F64,
            other: DType::F64,
            statistic: Statistic::Norm(2.0),
            eps_position: EpsPosition::Floor,
            ..of(&[6, 37], HalfSplit, 34, none)
        },
    ]
}

pub(crate) fn other_norms_and_long_rows() -> Vec<Problem> {
    vec![
        Problem::new(&[7, 50], &[1], &[0], Statistic::Norm(1.0)),
        Problem::new(&[7, 50], &[1], &[0], Statistic::Norm(f64::INFINITY)),
        Problem::new(&[3, 9001], &[1], &[1], Statistic::Moments),
        Problem { frozen: true, ..Problem::new(&[4, 6, 10], &[0, 2], &[1], Statistic::Moments) },
    ]
}

pub(crate) fn powers() -> Vec<Problem> {
    vec![
        Problem::new(&[6, 37], &[1], &[0], Statistic::Norm(3.0)),
        Problem { values: (0.0, 1e20), ..Problem::new(&[6, 5, 7], &[1], &[0], Statistic::Norm(2.5)) },
    ]
}
