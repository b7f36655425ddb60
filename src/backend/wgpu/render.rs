//! A variant as WGSL.

use super::fusion::{After, Before};
use super::text::{PARTS, each_part, halvings};
use super::unroll::unroll;
use super::variant::{Access, Entry, Flags, Place, Reduction, Role, Shape, Style, Target, Variant};
use crate::backend::kind::Kind;
use crate::plan::tree::LEAF;
use crate::spec::{MOMENTS, SUMS};
use crate::tensor::DType;
use std::fmt::Write;

/// What a browser wants before subgroup operations. Its check of their control flow knows the uniformity of workgroups
/// only, and so refuses branches on a `subgroupAny`; it must be switched off for the whole module, because what counts
/// is where the shuffle is written and not where the branch is.
const BROWSER_SUBGROUPS: &str = "enable subgroups;\ndiagnostic(off, subgroup_uniformity);\n";

impl Variant {
    /// The shader's text.
    pub(crate) fn render(&self, target: Target) -> String {
        let mut text = String::with_capacity(32 << 10);
        if target == Target::Browser && self.uses_subgroups() {
            text.push_str(BROWSER_SUBGROUPS);
        }
        self.render_constants(&mut text);
        text.push_str(&each_part(shader!("params"), self.parts()));
        PARTS[..self.parts()].iter().for_each(|part| text += &shader!("along").replace("PART", part));
        text.push_str(match self.entry {
            // Columns that have parameters may have statistics of their own.
            Entry::Affine => shader!("quad_columns"),
            _ => styled!(self.shape.style, "quad"),
        });
        text.push_str(shader!("convert"));
        text.push_str(shader!("math"));
        for &(name, role) in self.entry.operands() {
            match self.slots.iter().position(|slot| slot.name == name) {
                Some(index) => text.push_str(&self.render_slot(index)),
                None => text.push_str(&absent(role).replace("NAME", name)),
            }
        }
        if self.flags.dropout {
            let (part, along) = full(self.full() as u8);
            text.push_str(
                &with_bases(styled!(self.shape.style, "operand/element"), "start", &part)
                    .replace("ALONG", &along),
            );
        }
        if self.entry.folds() && self.shape.style == Style::Row {
            text.push_str(match self.shape.reduction {
                Reduction::Subgroup => shader!("fold_subgroup"),
                Reduction::Workgroup => shader!("fold_workgroup"),
            });
        }
        let invocation =
            if self.uses_subgroups() { "subgroup_invocation_id" } else { "local_invocation_index" };
        let Shape { threads, lanes, held, .. } = self.shape;
        let quads = lanes / 4 / threads;
        let bounds = [("QUADS", quads), ("HELD", held), ("HELD_QUADS", held * quads)];
        for file in self.files().into_iter().map(String::from).chain(self.texts_of_norms()) {
            let text_of = file.replace("INVOCATION", invocation).replace("    HALVE;\n", &halvings(quads));
            text.push_str(&unroll(&text_of, &bounds));
        }
        text
    }

    fn render_constants(&self, text: &mut String) {
        let Shape { style, group, threads, lanes, held, exact, .. } = self.shape;
        let Flags { kind, prefix, outside, offset, round, frozen, constant, kept, fused, .. } = self.flags;
        let Flags { split, compute, finish, apply, plain, outer_weight, accumulate, sums, .. } = self.flags;
        let Flags { before, after, dropout, branch, inner, rounded, .. } = self.flags;
        let of_inner = inner.unwrap_or_default();
        let (is_rotary, halves, whole) = match after {
            After::Rotary { halves, whole } => (true, halves, whole),
            _ => (false, false, false),
        };
        let is_affine = self.entry == Entry::Affine;
        let squares = matches!(kind, Kind::Moments | Kind::MeanSquare | Kind::Norm2);
        let (low, high): (u32, u32) = if squares { (127 - 80, 127 + 100) } else { (127 - 40, 127 + 50) };
        let number = [
            ("OUTER", self.axes.0),
            ("INNER", self.axes.1),
            ("GROUP", group),
            ("THREADS", threads),
            ("LANES", lanes),
            ("LANE_BITS", lanes.trailing_zeros()),
            ("LEAF", LEAF as u32),
            ("HELD", held),
            ("HELD_QUADS", held * (lanes / 4 / threads)),
            ("MOMENTS_SIZE", MOMENTS as u32),
            ("SUMS_SIZE", SUMS as u32),
            // A statistic within these bits is regular.
            ("LOW", low << 23),
            ("HIGH", high << 23),
        ];
        let has = |name| self.slot(name).is_some();
        let needs_starts = |slot: &super::variant::Slot| {
            slot.access == Access::Element && matches!(slot.place, Place::Full(_))
        };
        let dtype = rounded.or(self.slot("input").map(|slot| slot.dtype)).unwrap_or(DType::F32);
        let flag = [
            ("EXACT", exact || style == Style::Column),
            // No operand's four rows need to be found apart.
            ("EVEN", style == Style::Column && !dropout && !self.slots.iter().any(needs_starts)),
            ("MOMENTS", kind == Kind::Moments),
            ("NORM", !matches!(kind, Kind::Moments | Kind::MeanSquare)),
            ("POWERS", matches!(kind, Kind::IntegerPower(_) | Kind::Power)),
            ("LARGEST_ONE", kind == Kind::Largest),
            // The gradient's direction has the sign of the input.
            ("SIGNED", !squares),
            ("PREFIX", prefix),
            ("OUTSIDE", outside),
            ("OFFSET", offset),
            ("ROUND", round),
            ("FROZEN", frozen),
            ("SPLIT", split),
            ("COMPUTE", compute),
            ("FINISH", finish),
            ("APPLY", apply),
            ("PLAIN", plain),
            ("BRANCH", branch),
            ("KEPT", kept),
            ("FUSED", fused),
            ("CONSTANT_IN_ROW", constant),
            ("OUTER_WEIGHT", has("weight") && outer_weight && (!plain || branch)),
            ("INNER_WEIGHT", has("weight") && !outer_weight && (!plain || branch)),
            ("ACCUMULATE", accumulate),
            ("SUM_WEIGHT", sums[0]),
            ("SUM_BIAS", sums[1]),
            ("SUM_ALPHA", sums[2]),
            ("FROM_SUMS", has("sums")),
            ("HAS_WEIGHT", has("weight")),
            ("HAS_BIAS", has("bias")),
            ("HAS_MASK", has("mask")),
            ("HAS_GIVEN", has("given")),
            ("HAS_MOMENTS", has("moments")),
            ("HAS_STATISTICS", has("statistics")),
            ("HAS_SUMS", has("sums")),
            ("HAS_GRAD_INPUT", has("grad_input")),
            ("HAS_GRADIENT", has("gradient")),
            ("HAS_BEFORE", has("before")),
            ("HAS_HIDDEN", has("hidden")),
            ("HAS_BRANCH_BIAS", has("branch_bias")),
            ("HAS_BRANCH_SCALE", has("branch_scale")),
            ("HAS_GRAD_HIDDEN", has("grad_hidden")),
            ("HAS_GRAD_AFTER", has("grad_after")),
            ("HAS_EPILOGUE", after != After::None),
            ("SCALED", before == Before::ScaledResidual),
            // Pairs of columns that are rotated: what they are, whether both are in one quad, whether they are written together,
            // and whether columns are those of several heads.
            ("HALVES", halves),
            ("WITHIN", is_rotary && !halves && style == Style::Row && (whole || !is_affine)),
            ("PAIRS", after.has_pairs_apart(style)),
            ("HEADS", is_affine),
            ("HAS_POSITIONS", has("positions")),
            ("DROPOUT", dropout),
            // The norm of a residual's branch.
            ("HAS_INNER", inner.is_some()),
            ("INNER_COMPUTED", of_inner.computed),
            ("MOMENTS_OF_INNER", of_inner.kind == Kind::Moments),
            ("PREFIX_OF_INNER", of_inner.prefix),
            ("OUTSIDE_OF_INNER", of_inner.outside),
            ("OFFSET_OF_INNER", of_inner.offset),
            ("ROUND_OF_INNER", of_inner.round),
            ("HAS_WEIGHT_OF_INNER", has("inner_weight")),
            ("HAS_BIAS_OF_INNER", has("inner_bias")),
            ("HAS_INNER_STATISTICS", has("inner_statistics")),
            ("HAS_MIX_STATISTICS", has("mix_statistics")),
            ("OUTLIERS", has("flags")),
        ];
        for (name, value) in number {
            writeln!(text, "const {name} = {value}u;").expect("a String takes any text");
        }
        for (name, value) in flag {
            writeln!(text, "const {name} = {value};").expect("a String takes any text");
        }
        // The power of the elements that a statistic is.
        let degree = match kind {
            Kind::IntegerPower(p) => p,
            _ if squares => 2,
            _ => 1,
        };
        writeln!(text, "const DEGREE = {degree};").expect("a String takes any text");
        let round =
            "fn round_input(x: vec4<f32>) -> vec4<f32> {\n    return bits_DTYPE(narrow_DTYPE(x));\n}\n";
        text.push_str(&round.replace("DTYPE", dtype.name()));
    }

    fn render_slot(&self, index: usize) -> String {
        let slot = &self.slots[index];
        let style = self.shape.style;
        let half = slot.dtype.size() == 2;
        let bits = match slot.dtype.size() {
            2 => shader!("operand/bits_16"),
            8 => shader!("operand/bits_64"),
            _ => shader!("operand/bits_32"),
        };
        let (put, words) = match slot.dtype.size() {
            1 => (shader!("operand/put_8"), "u32"),
            2 => (shader!("operand/put_16"), "vec2<u32>"),
            _ => (shader!("operand/put_32"), "vec4<u32>"),
        };
        let read = if half { shader!("operand/atomic_bits_16") } else { shader!("operand/read_bits_32") };
        let (load, store) = (styled!(style, "operand/load_element"), styled!(style, "operand/store_element"));
        let files: &[&str] = match (slot.role, slot.access) {
            (Role::Load, Access::Vector | Access::Quad) => &[shader!("operand/load_vector")],
            (Role::Load, Access::Splat) => &[bits, shader!("operand/load_splat")],
            (Role::Load, Access::Element) => &[bits, load],
            (Role::Store, Access::Vector | Access::Quad) => &[shader!("operand/store_vector")],
            (Role::Store, _) => &[put, store],
            (Role::Update, _) => &[put, read, load, store],
            (Role::Table, _) => &[bits, styled!(style, "operand/table")],
            (Role::Position, _) => &[bits, styled!(style, "operand/position")],
            (Role::Number, _) => &[styled!(style, "operand/number")],
            (Role::SetNumber, _) => &[styled!(style, "operand/number"), styled!(style, "operand/number_set")],
            (Role::Flag, _) => &[shader!("operand/flag")],
            (Role::NumberOfColumn, Access::Splat) => &[shader!("operand/number_splat")],
            (Role::NumberOfColumn, _) => &[shader!("operand/number_each")],
            (Role::Get, _) => &[shader!("operand/flat")],
            (Role::Set, _) => &[shader!("operand/flat"), shader!("operand/flat_set")],
        };
        let (part, along) = match slot.place {
            Place::Full(n) => full(n),
            Place::Flat(n) => (component(n).to_owned(), String::new()),
        };
        let base = match slot.place {
            Place::Full(_) => "start",
            Place::Flat(_) => "params.flat_start",
        };
        // Where a thread's columns begin: within the row for a load, which all threads do.
        let first =
            if self.shape.exact || style == Style::Column { "col" } else { "min(col, params.cols - 4u)" };
        let side_by_side = style == Style::Row && slot.access == Access::Vector;
        let (quad, safe_quad) = if side_by_side {
            (first.to_owned(), "col")
        } else {
            (along.replace("(col)", &format!("({first})")), "ALONG")
        };
        let number = 1 + self.slots[..index].iter().filter(|slot| slot.host.is_none()).count();
        let mut text = files.concat();
        if let Some(host) = slot.host {
            // Without the first line, which declares the binding.
            text = text.split_once('\n').map_or("", |(_, rest)| rest).replace("NAME[", &format!("{host}["));
        }
        with_bases(&text, base, &part)
            .replace("NAME", slot.name)
            .replace("BINDING", &number.to_string())
            .replace("ACCESS", if self.is_writable(index) { "read_write" } else { "read" })
            .replace("WORDS", words)
            .replace("DTYPE", slot.dtype.name())
            .replace("SAFE_QUAD", safe_quad)
            .replace("QUAD", &quad)
            .replace("ALONG", &along)
    }
}

fn component(n: u8) -> &'static str {
    ["x", "y", "z", "w"][usize::from(n)]
}

/// What of a table's parts belongs to the n-th tensor with strides, and how it goes along column `col`.
fn full(n: u8) -> (String, String) {
    // An axis' first number is its size.
    let (part, component) = (PARTS[usize::from(n + 1) / 4], component((n + 1) % 4));
    (format!("{part}.{component}"), format!("along_{part}(col).{component}"))
}

/// The text with the places where rows begin.
fn with_bases(text: &str, base: &str, part: &str) -> String {
    text.replace("BASE_0", &format!("{base}.{part}"))
        .replace("BASE_1", &format!("start_1.{part}"))
        .replace("BASE_2", &format!("start_2.{part}"))
        .replace("BASE_3", &format!("start_3.{part}"))
}

/// What stands in for an operand that a launch does not have; the kernel's constants keep it from being called.
fn absent(role: Role) -> &'static str {
    match role {
        Role::Load => shader!("operand/absent_load"),
        Role::Table => shader!("operand/absent_table"),
        Role::Position => shader!("operand/absent_position"),
        Role::Store | Role::Update => shader!("operand/absent_store"),
        Role::Number | Role::SetNumber | Role::NumberOfColumn => shader!("operand/absent_number"),
        Role::Flag => shader!("operand/absent_flag"),
        Role::Get | Role::Set => shader!("operand/absent_flat"),
    }
}
