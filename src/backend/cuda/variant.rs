//! One value describes a compiled kernel.

use super::fusion::{After, Before};
use crate::backend::codes::Scaling;
use crate::backend::kind::Kind;
use crate::tensor::DType;
use smallvec::SmallVec;

/// The kernels, one template each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Entry {
    NormForward,
    NormBackward,
    NormBackwardFused,
    MergeMoments,
    MergeSums,
    FromRunning,
    UpdateRunning,
    Shares,
    GradientOfShares,
    Affine,
    Finish,
    Leaves,
    Total,
    PointwiseForward,
    PointwiseBackward,
    ZeroColumns,
}

/// How the elements that a thread works on at a time are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Access {
    /// At once: they lie side by side, aligned to all of them.
    Vector,
    /// They are one element.
    Splat,
    /// One by one, wherever the strides say.
    Element,
}

/// An operand that a variant has; its place in the list is its number in `Params`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    pub(super) name: &'static str,
    pub(super) dtype: DType,
    pub(super) access: Access,
}

/// How the elements of rows are given to the threads of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Style {
    /// Several threads share a row, each with neighbouring columns of it.
    #[default]
    Row,
    /// The threads of a warp have neighbouring rows; a row is shared by the warps of a block.
    Column,
}

/// What distinguishes the specs and passes that share a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Flags {
    pub(super) kind: Kind,
    /// The statistic sees fewer columns than the row has.
    pub(super) prefix: bool,
    /// eps is added to the root.
    pub(super) outside: bool,
    /// A number is added to the weight.
    pub(super) offset: bool,
    /// The normalized value is rounded to the input's dtype.
    pub(super) round: bool,
    /// The statistics are constants.
    pub(super) frozen: bool,
    /// Each leaf of a row is a task of its own.
    pub(super) split: bool,
    /// The leaf's numbers are computed.
    pub(super) compute: bool,
    /// They are finished to statistics.
    pub(super) finish: bool,
    /// The elements are written.
    pub(super) apply: bool,
    /// Sums of a parameter's gradient over a part of a row.
    pub(super) plain: bool,
    /// The weight is the same in all of a row.
    pub(super) outer_weight: bool,
    /// What is there already is merged with one more part.
    pub(super) accumulate: bool,
    /// Sums of the weight's, the bias's and alpha's gradient are wanted.
    pub(super) sums: [bool; 3],
    /// The terms of those are sums of parts of rows.
    pub(super) from_sums: bool,
    /// What is summed are the gradients of a branch's scale and bias, in the places of the weight's and the bias's.
    pub(super) branch: bool,
    /// The elementwise function is the inverse square root unit, not tanh.
    pub(super) inverse_root: bool,
    /// What is done to elements before the norm, and after it.
    pub(super) before: Before,
    pub(super) after: After,
    /// What of the codes shares a scale, if the result becomes codes.
    pub(super) scaling: Option<Scaling>,
    /// The norm of the branch that a residual is added to.
    pub(super) inner: Option<InnerFlags>,
}

/// The same of the norm of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct InnerFlags {
    pub(super) kind: Kind,
    pub(super) prefix: bool,
    pub(super) outside: bool,
    pub(super) offset: bool,
    pub(super) round: bool,
    /// The residual is normalized, too.
    pub(super) mix: bool,
}

/// How a row is shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) style: Style,
    /// Logical lanes of a row.
    pub(super) lanes: u32,
    /// Threads that share a leaf.
    pub(super) threads: u32,
    /// Neighbouring columns that a thread works on at a time.
    pub(super) width: u32,
    /// The most steps of `lanes` columns that a leaf has, all kept in registers; 0 where the leaf is read again instead.
    pub(super) steps: u32,
    /// The most leaves of a row, each with threads of its own in one block.
    pub(super) leaves: u32,
    /// Blocks that share a row, each with as many leaves of it.
    pub(super) cluster: u32,
    /// Rows, or leaves that are tasks, that a block takes side by side.
    pub(super) teams: u32,
}

/// A kernel: everything that is constant when it is compiled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Variant {
    pub(super) entry: Entry,
    /// F32 or F64.
    pub(super) compute: DType,
    pub(super) slots: SmallVec<[Slot; 8]>,
    /// Length of the tables of outer and inner axes.
    pub(super) axes: (u32, u32),
    /// Columns are counted in 64 bits.
    pub(super) wide: bool,
    /// Problems of a launch.
    pub(super) problems: u32,
    pub(super) shape: Shape,
    pub(super) flags: Flags,
}

/// Neighbouring rows that a block works on where a row's elements do not lie side by side: one for each lane of a warp.
pub(super) const ROWS_ACROSS: u32 = 32;
/// Sums of a row that threads fold at a time.
const FOLDED_SUMS: u32 = 2;
/// Numbers that the leaves of a row hand to each other when they merge.
const MERGED_NUMBERS: u32 = 6;

impl Entry {
    /// The template's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Entry::NormForward => "norm_forward",
            Entry::NormBackward => "norm_backward",
            Entry::NormBackwardFused => "norm_backward_fused",
            Entry::MergeMoments => "merge_moments",
            Entry::MergeSums => "merge_sums_of_rows",
            Entry::FromRunning => "from_running",
            Entry::UpdateRunning => "update_running",
            Entry::Shares => "shares",
            Entry::GradientOfShares => "gradient_of_shares",
            Entry::Affine => "affine",
            Entry::Finish => "finish_sums",
            Entry::Leaves => "leaves",
            Entry::Total => "total_of_leaves",
            Entry::PointwiseForward => "pointwise_forward",
            Entry::PointwiseBackward => "pointwise_backward",
            Entry::ZeroColumns => "zero_columns",
        }
    }
}

impl Shape {
    /// Threads of a block.
    pub(super) fn block(&self) -> u32 {
        match self.style {
            Style::Row => self.threads * self.leaves * self.teams,
            Style::Column => ROWS_ACROSS * self.threads,
        }
    }

    /// Whether the threads of a row meet in registers, as parts of a warp.
    fn is_within_warp(&self) -> bool {
        self.style == Style::Row && self.threads <= 32 && self.leaves == 1
    }

    /// Bytes of shared memory that a block needs to fold numbers of `size` bytes: two buffers, so that one can be read
    /// while the other is written, and the numbers of each leaf.
    pub(super) fn shared_bytes(&self, size: u32) -> u32 {
        if self.is_within_warp() {
            return 0;
        }
        let folds = 2 * self.block() * FOLDED_SUMS * self.width;
        // A block's leaves, and all of them for the other blocks to read.
        let merged = (self.leaves + u32::from(self.cluster > 1)) * MERGED_NUMBERS;
        ((folds + merged) * size).next_multiple_of(16)
    }
}

impl Variant {
    /// Bytes of shared memory that a block needs.
    pub(super) fn shared_bytes(&self) -> u32 {
        let (shape, size) = (&self.shape, self.compute.size() as u32);
        let is_alone = shape.leaves == 1;
        let sums = || self.flags.sums.iter().filter(|&&wanted| wanted).count() as u32;
        let numbers = match self.entry {
            Entry::NormForward | Entry::NormBackward => return shape.shared_bytes(size),
            // What folds take whether or not there are any, and the sums of a chunk of rows.
            Entry::NormBackwardFused => {
                2 * shape.block() * FOLDED_SUMS * shape.width + shape.steps * shape.lanes * sums()
            }
            // A number of each lane.
            Entry::Leaves => shape.threads,
            // The warps that merge the leaves of a row meet there.
            Entry::MergeMoments | Entry::MergeSums | Entry::Total if !is_alone => {
                shape.leaves * MERGED_NUMBERS
            }
            // The sums of each thread's columns.
            Entry::Affine | Entry::PointwiseBackward if !is_alone => shape.block() * shape.width * sums(),
            Entry::Finish if !is_alone => shape.block(),
            _ => 0,
        };
        (numbers * size).next_multiple_of(16)
    }
}
