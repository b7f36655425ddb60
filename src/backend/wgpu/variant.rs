//! One value describes a compiled shader.

use super::fusion::{After, Before};
use crate::backend::codes::Scaling;
use crate::backend::kind::Kind;
use crate::tensor::DType;
use smallvec::SmallVec;

/// The kernels, one entry point each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Entry {
    NormForward,
    NormBackward,
    MergeMoments,
    MergeSums,
    FromRunning,
    UpdateRunning,
    Affine,
    Finish,
    PointwiseForward,
    PointwiseBackward,
    Leaves,
    Total,
    Copy,
    ZeroColumns,
    Shares,
    GradientOfShares,
}

/// What a kernel does with an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Reads four elements.
    Load,
    /// Writes four elements.
    Store,
    /// Reads and writes four elements.
    Update,
    /// Reads elements of any columns.
    Table,
    /// Reads integers of any columns.
    Position,
    /// Reads numbers of the current row.
    Number,
    /// Reads and writes numbers of the current row.
    SetNumber,
    /// Marks columns.
    Flag,
    /// Reads numbers of what a column belongs to.
    NumberOfColumn,
    /// Reads single float32 numbers by index.
    Get,
    /// Reads and writes single float32 numbers by index.
    Set,
}

/// Which of the launch's strides and offsets an operand uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// The n-th tensor with strides.
    Full(u8),
    /// The n-th plain array.
    Flat(u8),
}

/// How an operand's elements are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// Four at once: they lie side by side and start at a multiple of four elements.
    Vector,
    /// Likewise, though one quad of a row does not follow the other.
    Quad,
    /// One for four: they are the same element.
    Splat,
    /// One element at a time, wherever its strides say.
    Element,
}

/// An operand that a variant has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) place: Place,
    pub(crate) access: Access,
    pub(crate) dtype: DType,
    /// The operand whose binding it shares, which is read in the same way.
    pub(crate) host: Option<&'static str>,
}

/// How the threads of a row combine their sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// By shuffles in a workgroup that is exactly one subgroup, without barriers.
    Subgroup,
    /// Through workgroup memory.
    Workgroup,
}

/// Which four elements a thread works on at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Style {
    /// Neighbouring columns of a row that several threads share.
    #[default]
    Row,
    /// One column of neighbouring rows, which a thread has to itself.
    Column,
}

/// What distinguishes the specs that share a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Flags {
    pub(crate) kind: Kind,
    /// The statistic sees fewer columns than the row has.
    pub(crate) prefix: bool,
    /// eps is added to the root.
    pub(crate) outside: bool,
    /// A number is added to the weight.
    pub(crate) offset: bool,
    /// The normalized value is rounded to the input's dtype.
    pub(crate) round: bool,
    /// The statistics are constants.
    pub(crate) frozen: bool,
    /// Rows have several leaves, each of which is a task of its own.
    pub(crate) split: bool,
    /// The leaf's numbers are computed.
    pub(crate) compute: bool,
    /// They are finished to statistics.
    pub(crate) finish: bool,
    /// The elements are written.
    pub(crate) apply: bool,
    /// Sums of a parameter's gradient over a part of a row.
    pub(crate) plain: bool,
    /// And that parameter is what a residual's branch is shifted or scaled by.
    pub(crate) branch: bool,
    /// The weight is the same in all of a row.
    pub(crate) outer_weight: bool,
    /// Weight and bias are the same element for all of a row.
    pub(crate) constant: bool,
    /// Weight and bias are the same for all rows and stay in registers from one row to the next.
    pub(crate) kept: bool,
    /// The sums of the parameters' gradients are taken beside the input's gradient.
    pub(crate) fused: bool,
    /// What is there already is merged with one more part.
    pub(crate) accumulate: bool,
    /// Sums of the weight's, the bias's and alpha's gradient are wanted.
    pub(crate) sums: [bool; 3],
    /// The elementwise function is the inverse square root unit, not tanh.
    pub(crate) inverse_root: bool,
    /// What surrounds the norm.
    pub(crate) before: Before,
    pub(crate) after: After,
    /// Elements are left out, by their indices, which are a tensor without memory, the last one with strides.
    pub(crate) dropout: bool,
    /// What of the codes shares a scale, if the result becomes codes.
    pub(crate) scaling: Option<Scaling>,
    /// The norm of a residual's branch.
    pub(crate) inner: Option<InnerFlags>,
    /// What normalized values are rounded to, where that is not the input's dtype.
    pub(crate) rounded: Option<DType>,
}

/// What distinguishes the norms of a residual's branch, as [`Flags`] does those around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct InnerFlags {
    pub(crate) kind: Kind,
    pub(crate) prefix: bool,
    pub(crate) outside: bool,
    pub(crate) offset: bool,
    pub(crate) round: bool,
    /// Its statistics are computed from the row, or else they are given.
    pub(crate) computed: bool,
    /// The residual has the same norm, likewise.
    pub(crate) mix: bool,
}

/// How a row is shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    pub(crate) style: Style,
    pub(crate) reduction: Reduction,
    /// Invocations of a workgroup.
    pub(crate) group: u32,
    /// Threads that share a row.
    pub(crate) threads: u32,
    /// Logical lanes of a row.
    pub(crate) lanes: u32,
    /// Steps of `lanes` columns that a thread keeps in registers; 0 where the row is read again instead.
    pub(crate) held: u32,
    /// Whether the columns are a multiple of `lanes`.
    pub(crate) exact: bool,
}

/// A shader: everything that is constant when it is compiled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Variant {
    pub(crate) entry: Entry,
    pub(crate) slots: SmallVec<[Slot; 8]>,
    /// Length of the tables of outer and inner axes.
    pub(crate) axes: (u32, u32),
    pub(crate) shape: Shape,
    pub(crate) flags: Flags,
    /// An output lies in the buffer of an input, so every binding must be writable.
    pub(crate) shared: bool,
}

/// Whose WGSL is asked for: naga refuses `enable subgroups;`, browsers insist on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Native,
    Browser,
}

/// Parts of an axis of `tensors` tensors: see [`Variant::parts`]. Most launches have less than eight, and no more than two
/// lengths are compiled for them.
pub(super) fn parts(tensors: usize) -> usize {
    (tensors + 1).div_ceil(4).max(2)
}

impl Role {
    /// Whether the operand is written.
    pub(crate) fn writes(self) -> bool {
        matches!(self, Role::Store | Role::Update | Role::SetNumber | Role::Set | Role::Flag)
    }
}

impl Entry {
    /// The entry point's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Entry::NormForward => "norm_forward",
            Entry::NormBackward => "norm_backward",
            Entry::MergeMoments => "merge_moments",
            Entry::MergeSums => "merge_sums_of_rows",
            Entry::FromRunning => "from_running",
            Entry::UpdateRunning => "update_running",
            Entry::Affine => "affine",
            Entry::Finish => "finish",
            Entry::PointwiseForward => "pointwise_forward",
            Entry::PointwiseBackward => "pointwise_backward",
            Entry::Leaves => "leaves",
            Entry::Total => "total_of_leaves",
            Entry::Copy => "copy",
            Entry::ZeroColumns => "zero_columns",
            Entry::Shares => "shares",
            Entry::GradientOfShares => "gradient_of_shares",
        }
    }

    /// Every operand that the kernel's text names.
    pub(super) fn operands(self) -> &'static [(&'static str, Role)] {
        use Role::{Flag, Get, Load, Number, NumberOfColumn, Position, Set, SetNumber, Store, Table, Update};
        match self {
            Entry::NormForward => &[
                ("input", Load),
                ("output", Store),
                ("weight", Load),
                ("bias", Load),
                ("mask", Load),
                ("given", Number),
                ("moments", SetNumber),
                ("statistics", SetNumber),
                ("before", Load),
                ("after", Load),
                ("hidden", Store),
                ("scales", SetNumber),
                ("flags", Flag),
                ("cos", Table),
                ("sin", Table),
                ("positions", Position),
                ("branch_bias", Load),
                ("branch_scale", Load),
                ("inner_weight", Load),
                ("inner_bias", Load),
                ("inner_statistics", SetNumber),
                ("mix_weight", Load),
                ("mix_statistics", SetNumber),
            ],
            Entry::NormBackward => &[
                ("grad_output", Load),
                ("input", Load),
                ("grad_input", Store),
                ("weight", Load),
                ("mask", Load),
                ("statistics", Number),
                ("given", Number),
                ("sums", SetNumber),
                ("partials", Set),
                ("bias", Load),
                ("before", Load),
                ("after", Load),
                ("grad_hidden", Load),
                ("grad_before", Store),
                ("grad_after", Store),
                ("cos", Table),
                ("sin", Table),
                ("positions", Position),
                ("branch_bias", Load),
                ("branch_scale", Load),
                ("inner_weight", Load),
                ("inner_bias", Load),
                ("inner_statistics", Number),
                ("mix_weight", Load),
                ("mix_statistics", Number),
            ],
            Entry::MergeMoments => &[("leaves", Number), ("moments", SetNumber), ("statistics", SetNumber)],
            Entry::MergeSums => &[("leaves", Number), ("sums", SetNumber)],
            Entry::FromRunning => &[("running_mean", Load), ("running_var", Load), ("statistics", SetNumber)],
            Entry::UpdateRunning => &[("moments", Number), ("running_mean", Update), ("running_var", Update)],
            Entry::Affine => &[
                ("grad_output", Load),
                ("input", Load),
                ("mask", Load),
                ("statistics", NumberOfColumn),
                ("given", NumberOfColumn),
                ("sums", NumberOfColumn),
                ("partials", Set),
                ("weight", Load),
                ("bias", Load),
                ("before", Load),
                ("after", Load),
                ("grad_hidden", Load),
                ("cos", Table),
                ("sin", Table),
                ("positions", Position),
                ("branch_bias", Load),
                ("branch_scale", Load),
                ("inner_weight", Load),
                ("inner_bias", Load),
                ("inner_statistics", NumberOfColumn),
            ],
            Entry::Finish => &[("partials", Set), ("gradient", Store)],
            Entry::PointwiseForward => {
                &[("input", Load), ("output", Store), ("weight", Load), ("bias", Load), ("alpha", Load)]
            }
            Entry::PointwiseBackward => &[
                ("grad_output", Load),
                ("input", Load),
                ("grad_input", Store),
                ("weight", Load),
                ("alpha", Load),
                ("partials", Set),
            ],
            Entry::Leaves => &[("partials", Set)],
            Entry::Total => &[("partials", Get), ("gradient", Store)],
            Entry::Copy => &[("input", Load), ("output", Store)],
            Entry::ZeroColumns => &[("output", Store), ("flags", Position)],
            Entry::Shares => &[("alpha", Load), ("inner_weight", Store), ("mix_weight", Store)],
            Entry::GradientOfShares => {
                &[("alpha", Load), ("inner_weight", Load), ("mix_weight", Load), ("gradient", Store)]
            }
        }
    }

    /// Whether threads may combine their numbers in it.
    pub(super) fn folds(self) -> bool {
        matches!(self, Entry::NormForward | Entry::NormBackward | Entry::Leaves | Entry::Copy)
    }
}

impl Variant {
    /// The slot of an operand, if it is there.
    pub(crate) fn slot(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.name == name)
    }

    /// How many parts, each of four numbers, hold an axis' size and its stride in each tensor.
    pub(crate) fn parts(&self) -> usize {
        parts(self.full() + usize::from(self.flags.dropout))
    }

    /// Tensors with strides and memory.
    pub(super) fn full(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot.place, Place::Full(_))).count()
    }

    /// Whether binding `index + 1` may be written.
    pub(crate) fn is_writable(&self, index: usize) -> bool {
        self.shared || self.slots[index].role.writes()
    }

    /// Whether the shader needs subgroup operations.
    pub(crate) fn uses_subgroups(&self) -> bool {
        self.entry.folds() && self.shape.style == Style::Row && self.shape.reduction == Reduction::Subgroup
    }
}
