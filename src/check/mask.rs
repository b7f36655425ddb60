//! Masks: which elements take part.

use super::data::{mix, unit};

/// A mask and its shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    /// Which elements it lets take part.
    pub kind: MaskKind,
    /// A shape that broadcasts to the input's; `None` for the input's own.
    pub shape: Option<Vec<usize>>,
}

/// Which elements take part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaskKind {
    /// All of them.
    All,
    /// Each with this probability.
    Random(f64),
    /// As `Random(0.5)`, but none of the first row's.
    EmptyRow,
    /// One in each row.
    One,
    /// The first of each row, fewer in each further row: sequences of different lengths, padded.
    Lengths,
}

impl Mask {
    /// A mask of the input's shape.
    pub fn of(kind: MaskKind) -> Self {
        Mask { kind, shape: None }
    }

    /// The mask of a shape of its own; its elements are one row to `kind`.
    pub fn broadcast(kind: MaskKind, shape: &[usize]) -> Self {
        Mask { kind, shape: Some(shape.to_vec()) }
    }
}

impl MaskKind {
    /// The number in the mask at `row` and `col` of `cols`.
    pub(super) fn at(self, seed: u64, row: usize, col: usize, cols: usize) -> f64 {
        let key = mix(seed ^ mix(row as u64 ^ mix(col as u64)));
        let takes_part = match self {
            MaskKind::All => true,
            MaskKind::Random(share) => unit(key) < share,
            MaskKind::EmptyRow => row != 0 && unit(key) < 0.5,
            MaskKind::One => col == mix(seed ^ row as u64) as usize % cols,
            MaskKind::Lengths => col < cols.saturating_sub(row * cols / 5).max(1),
        };
        // Whatever is not zero counts, and zero has two signs.
        let numbers = if takes_part { [1.0, 0.5, -2.0, 1.0] } else { [0.0, -0.0, 0.0, -0.0] };
        numbers[(mix(key) % 4) as usize]
    }
}
