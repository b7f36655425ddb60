//! One value describes a compiled shader; this module renders it as WGSL.

use super::unroll::unroll;
use crate::tensor::DType;
use smallvec::SmallVec;
use std::fmt::Write;

/// The kernels, one entry point each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Entry {
    RowForward,
    RowBackward,
    Affine,
    Finish,
    PointwiseForward,
    PointwiseBackward,
    Leaves,
    Total,
    Copy,
}

/// What a kernel does with an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Reads four columns of the current row.
    Load,
    /// Writes four columns of the current row.
    Store,
    /// Reads single float32 numbers by index.
    Get,
    /// Reads and writes single float32 numbers by index.
    Set,
}

/// Which of the launch's strides and offsets an operand uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// The n-th tensor of the input's shape.
    Full(u8),
    /// The n-th tensor of a row's shape.
    Row(u8),
    /// The n-th plain array.
    Flat(u8),
}

/// How an operand's elements are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// Four columns at once: they lie side by side and start at a multiple of four elements.
    Vector,
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
}

/// How the threads of a row combine their sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// By shuffles in a workgroup that is exactly one subgroup, without barriers.
    Subgroup,
    /// Through workgroup memory.
    Workgroup,
}

/// What distinguishes the specs that share a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Flags {
    /// The statistic is mean and variance, not the mean square.
    pub(crate) moments: bool,
    /// The statistic sees fewer columns than the row has.
    pub(crate) prefix: bool,
    /// eps is added to the root.
    pub(crate) outside: bool,
    /// A number is added to the weight.
    pub(crate) offset: bool,
    /// The normalized value is rounded to the input's dtype.
    pub(crate) round: bool,
    /// Sums of the weight's, the bias's and alpha's gradient are wanted.
    pub(crate) sums: [bool; 3],
}

/// How a row is shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
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
    pub(crate) slots: SmallVec<[Slot; 6]>,
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

/// What a browser wants before subgroup operations. Its check of their control flow knows the uniformity of workgroups
/// only, and so refuses branches on a `subgroupAny`; it must be switched off for the whole module, because what counts
/// is where the shuffle is written and not where the branch is.
const BROWSER_SUBGROUPS: &str = "enable subgroups;\ndiagnostic(off, subgroup_uniformity);\n";

macro_rules! shader {
    ($name:literal) => {
        include_str!(concat!("../../../shaders/", $name, ".wgsl"))
    };
}

impl Entry {
    /// The entry point's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Entry::RowForward => "row_forward",
            Entry::RowBackward => "row_backward",
            Entry::Affine => "affine",
            Entry::Finish => "finish",
            Entry::PointwiseForward => "pointwise_forward",
            Entry::PointwiseBackward => "pointwise_backward",
            Entry::Leaves => "leaves",
            Entry::Total => "total_of_leaves",
            Entry::Copy => "copy",
        }
    }

    /// Every operand that the kernel's text names.
    pub(super) fn operands(self) -> &'static [(&'static str, Role)] {
        use Role::{Get, Load, Set, Store};
        match self {
            Entry::RowForward => {
                &[("input", Load), ("weight", Load), ("bias", Load), ("output", Store), ("statistics", Set)]
            }
            Entry::RowBackward => &[
                ("grad_output", Load),
                ("input", Load),
                ("weight", Load),
                ("statistics", Get),
                ("grad_input", Store),
            ],
            Entry::Affine => {
                &[("grad_output", Load), ("input", Load), ("statistics", Get), ("partials", Set)]
            }
            Entry::Finish => &[("partials", Set), ("gradient", Store)],
            Entry::PointwiseForward => {
                &[("input", Load), ("weight", Load), ("bias", Load), ("alpha", Load), ("output", Store)]
            }
            Entry::PointwiseBackward => &[
                ("grad_output", Load),
                ("input", Load),
                ("weight", Load),
                ("alpha", Load),
                ("grad_input", Store),
                ("partials", Set),
            ],
            Entry::Leaves => &[("partials", Set)],
            Entry::Total => &[("partials", Get), ("gradient", Store)],
            Entry::Copy => &[("input", Load), ("output", Store)],
        }
    }

    /// The files that the kernel is made of, besides those that all kernels share.
    fn files(self) -> &'static [&'static str] {
        match self {
            Entry::RowForward => {
                &[shader!("row"), shader!("weight"), shader!("row_parameters"), shader!("row_forward")]
            }
            Entry::RowBackward => &[shader!("row"), shader!("weight"), shader!("row_backward")],
            Entry::Affine => &[shader!("columns"), shader!("affine")],
            Entry::Finish => &[shader!("columns"), shader!("finish")],
            Entry::PointwiseForward => &[shader!("tanh"), shader!("pointwise_forward")],
            Entry::PointwiseBackward => &[shader!("tanh"), shader!("columns"), shader!("pointwise_backward")],
            Entry::Leaves => &[shader!("row"), shader!("leaves")],
            Entry::Total => &[shader!("row"), shader!("total")],
            Entry::Copy => &[shader!("row"), shader!("copy")],
        }
    }

    /// Whether the kernel combines the numbers of several threads.
    fn folds(self) -> bool {
        matches!(self, Entry::RowForward | Entry::RowBackward | Entry::Leaves | Entry::Total | Entry::Copy)
    }
}

impl Variant {
    /// The slot of an operand, if it is there.
    pub(crate) fn slot(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.name == name)
    }

    /// Whether binding `index + 1` may be written.
    pub(crate) fn is_writable(&self, index: usize) -> bool {
        self.shared || matches!(self.slots[index].role, Role::Store | Role::Set)
    }

    /// The shader's text.
    pub(crate) fn render(&self, target: Target) -> String {
        let mut text = String::with_capacity(16 << 10);
        if target == Target::Browser && self.uses_subgroups() {
            text.push_str(BROWSER_SUBGROUPS);
        }
        self.render_constants(&mut text);
        text.push_str(shader!("params"));
        text.push_str(shader!("convert"));
        text.push_str(shader!("math"));
        for &(name, role) in self.entry.operands() {
            match self.slots.iter().position(|slot| slot.name == name) {
                Some(index) => text.push_str(&self.render_slot(index)),
                None => text.push_str(&absent(role).replace("NAME", name)),
            }
        }
        if self.entry.folds() {
            text.push_str(match self.shape.reduction {
                Reduction::Subgroup => shader!("fold_subgroup"),
                Reduction::Workgroup => shader!("fold_workgroup"),
            });
        }
        let invocation = match self.shape.reduction {
            Reduction::Subgroup => "subgroup_invocation_id",
            Reduction::Workgroup => "local_invocation_index",
        };
        let Shape { threads, lanes, held, .. } = self.shape;
        let bounds = [("QUADS", lanes / 4 / threads), ("HELD", held)];
        for file in self.entry.files() {
            text.push_str(&unroll(&file.replace("INVOCATION", invocation), &bounds));
        }
        text
    }

    /// Whether the shader needs subgroup operations.
    pub(crate) fn uses_subgroups(&self) -> bool {
        self.entry.folds() && self.shape.reduction == Reduction::Subgroup
    }

    fn render_constants(&self, text: &mut String) {
        let Shape { group, threads, lanes, held, exact, .. } = self.shape;
        let Flags { moments, prefix, outside, offset, round, sums } = self.flags;
        let (low, high): (u32, u32) = if outside { (127 - 40, 127 + 50) } else { (127 - 80, 127 + 100) };
        let number = [
            ("OUTER", self.axes.0),
            ("INNER", self.axes.1),
            ("GROUP", group),
            ("THREADS", threads),
            ("LANES", lanes),
            ("HELD", held),
            // A divisor within these bits is regular.
            ("LOW", low << 23),
            ("HIGH", high << 23),
        ];
        let has = |name| self.slot(name).is_some();
        let dtype = self.slot("input").map_or(DType::F32, |slot| slot.dtype);
        let flag = [
            ("EXACT", exact),
            ("MOMENTS", moments),
            ("PREFIX", prefix),
            ("OUTSIDE", outside),
            ("OFFSET", offset),
            ("ROUND", round),
            // The result is rounded to 16 bits.
            ("SHORT", dtype.size() == 2),
            ("SUM_WEIGHT", sums[0]),
            ("SUM_BIAS", sums[1]),
            ("SUM_ALPHA", sums[2]),
            ("HAS_WEIGHT", has("weight")),
            ("HAS_BIAS", has("bias")),
            ("HAS_STATISTICS", has("statistics")),
            ("HAS_GRAD_INPUT", has("grad_input")),
            ("HAS_GRADIENT", has("gradient")),
        ];
        for (name, value) in number {
            writeln!(text, "const {name} = {value}u;").expect("a String takes any text");
        }
        for (name, value) in flag {
            writeln!(text, "const {name} = {value};").expect("a String takes any text");
        }
        let round =
            "fn round_input(x: vec4<f32>) -> vec4<f32> {\n    return bits_DTYPE(narrow_DTYPE(x));\n}\n";
        text.push_str(&round.replace("DTYPE", dtype.name()));
    }

    fn render_slot(&self, index: usize) -> String {
        let slot = &self.slots[index];
        let half = slot.dtype.size() == 2;
        let files: &[&str] = match (slot.role, slot.access) {
            (Role::Load, Access::Vector) => &[shader!("operand/load_vector")],
            (Role::Store, Access::Vector) => &[shader!("operand/store_vector")],
            (Role::Load, Access::Element) if half => {
                &[shader!("operand/load_element_16"), shader!("operand/load_element")]
            }
            (Role::Load, Access::Element) => {
                &[shader!("operand/load_element_32"), shader!("operand/load_element")]
            }
            (Role::Store, Access::Element) if half => {
                &[shader!("operand/store_element_16"), shader!("operand/store_element")]
            }
            (Role::Store, Access::Element) => {
                &[shader!("operand/store_element_32"), shader!("operand/store_element")]
            }
            (Role::Get, _) => &[shader!("operand/get")],
            (Role::Set, _) => &[shader!("operand/get"), shader!("operand/set")],
        };
        let component = |n: u8| ["x", "y", "z", "w"][usize::from(n)];
        let (start, along) = match slot.place {
            Place::Full(n) => {
                (format!("start.{}", component(n)), format!("along_full(col).{}", component(n)))
            }
            Place::Row(n) => {
                (format!("params.row_start.{}", component(n)), format!("along_row(col).{}", component(n)))
            }
            Place::Flat(n) => (format!("params.flat_start.{}", component(n)), String::new()),
        };
        files
            .concat()
            .replace("NAME", slot.name)
            .replace("BINDING", &(index + 1).to_string())
            .replace("ACCESS", if self.is_writable(index) { "read_write" } else { "read" })
            .replace("WORDS", if half { "vec2<u32>" } else { "vec4<u32>" })
            .replace("DTYPE", slot.dtype.name())
            .replace("START", &start)
            .replace("ALONG", &along)
    }
}

/// What stands in for an operand that a launch does not have; the kernel's constants keep it from being called.
fn absent(role: Role) -> &'static str {
    match role {
        Role::Load => shader!("operand/absent_load"),
        Role::Store => shader!("operand/absent_store"),
        Role::Get | Role::Set => shader!("operand/absent_flat"),
    }
}
