//! Variants as C++: the files that their kernels are made of, then a struct of constants and an entry for each.

use super::variant::{Access, Entry, Flags, Shape, Slot, Style, Variant};
use crate::backend::codes::Scaling;
use crate::backend::kind::Kind;
use crate::backend::sources;
use crate::tensor::DType;
use std::fmt::{Display, Write};

/// A file of `kernels/`, by the name that others include it by.
macro_rules! kernel_file {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../kernels/", $name)))
    };
}

const FILES: &[(&str, &str)] = &[
    kernel_file!("columns.cuh"),
    kernel_file!("convert.cuh"),
    kernel_file!("device.cuh"),
    kernel_file!("device_cuda.cuh"),
    kernel_file!("device_host.cuh"),
    kernel_file!("dropout.cuh"),
    kernel_file!("exponential.cuh"),
    kernel_file!("fusion.cuh"),
    kernel_file!("host_fibers.cuh"),
    kernel_file!("host_launch.cuh"),
    kernel_file!("host_machine.cuh"),
    kernel_file!("host_meet.cuh"),
    kernel_file!("host_shared.cuh"),
    kernel_file!("inverse_root.cuh"),
    kernel_file!("leaf.cuh"),
    kernel_file!("math.cuh"),
    kernel_file!("mix.cu"),
    kernel_file!("moments.cuh"),
    kernel_file!("nearest.cuh"),
    kernel_file!("normal.cuh"),
    kernel_file!("norm_backward.cu"),
    kernel_file!("norm_backward_fused.cu"),
    kernel_file!("norm_forward.cu"),
    kernel_file!("numbers.cuh"),
    kernel_file!("outliers.cu"),
    kernel_file!("pairwise.cuh"),
    kernel_file!("params.cuh"),
    kernel_file!("pointwise.cu"),
    kernel_file!("power.cuh"),
    kernel_file!("quantize.cuh"),
    kernel_file!("rotary.cuh"),
    kernel_file!("row_gradient.cuh"),
    kernel_file!("row_sums.cuh"),
    kernel_file!("running.cu"),
    kernel_file!("sigmoid.cuh"),
    kernel_file!("split.cu"),
    kernel_file!("statistics.cuh"),
    kernel_file!("sums.cu"),
    kernel_file!("tanh.cuh"),
];

/// The device that a GPU is, and the one that the host is: a unit has one of them.
const OF_CUDA: &str = "device_cuda.cuh";
const OF_HOST: &str = "device_host.cuh";

/// Every operand that kernels name.
const OPERANDS: [&str; 36] = [
    "input",
    "output",
    "weight",
    "bias",
    "mask",
    "given",
    "moments",
    "statistics",
    "grad_output",
    "grad_input",
    "sums",
    "partials",
    "leaves",
    "running_mean",
    "running_var",
    "gradient",
    "alpha",
    "before",
    "after",
    "hidden",
    "scales",
    "flags",
    "element",
    "grad_hidden",
    "grad_before",
    "grad_after",
    "cos",
    "sin",
    "positions",
    "branch_bias",
    "branch_scale",
    "inner_weight",
    "inner_bias",
    "inner_statistics",
    "mix_weight",
    "mix_statistics",
];

/// A source to compile, and the names of its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) source: String,
    /// One for each variant, in their order.
    pub(super) names: Vec<String>,
}

/// The unit of these variants, for a GPU or for the host.
pub(super) fn render(variants: &[&Variant], is_host: bool) -> Unit {
    let mut text = Text::new(is_host);
    for variant in variants {
        text.include(file_of(variant.entry));
    }
    let mut names = Vec::with_capacity(variants.len());
    text.line("#line 1 \"variants\"");
    for (index, variant) in variants.iter().enumerate() {
        // An error of the host driver, or a profiler, says which kernel it was.
        let name = format!("{}_{index}", variant.entry.name());
        text.variant(index, variant);
        let kernel = if variant.problems > 1 { "KERNEL_TOGETHER" } else { "KERNEL" };
        text.line(format_args!("{kernel}({name}, {}, V{index})", variant.entry.name()));
        names.push(name);
    }
    Unit { source: text.source, names }
}

/// The unit of a file beside those of the variants, which defines the one entry `name`.
pub(super) fn render_file(name: &'static str, file: &'static str, is_host: bool) -> Unit {
    let mut text = Text::new(is_host);
    text.lines_of(name, file);
    Unit { source: text.source, names: vec![name.to_owned()] }
}

/// The file that defines the kernel.
fn file_of(entry: Entry) -> &'static str {
    match entry {
        Entry::NormForward => "norm_forward.cu",
        Entry::NormBackward => "norm_backward.cu",
        Entry::NormBackwardFused => "norm_backward_fused.cu",
        Entry::MergeMoments | Entry::MergeSums => "split.cu",
        Entry::FromRunning | Entry::UpdateRunning => "running.cu",
        Entry::Shares | Entry::GradientOfShares => "mix.cu",
        Entry::Affine | Entry::Finish | Entry::Leaves | Entry::Total => "sums.cu",
        Entry::PointwiseForward | Entry::PointwiseBackward => "pointwise.cu",
        Entry::ZeroColumns => "outliers.cu",
    }
}

/// The file that a line includes, if it is one of ours.
fn included(line: &str) -> Option<&'static (&'static str, &'static str)> {
    let name = line.strip_prefix("#include \"")?.trim_end().strip_suffix('"')?;
    FILES.iter().find(|(known, _)| *known == name)
}

/// A unit in the making.
struct Text {
    source: String,
    /// Files that are in it, or shall not be.
    included: Vec<&'static str>,
}

impl Text {
    fn new(is_host: bool) -> Self {
        let other = if is_host { OF_CUDA } else { OF_HOST };
        Text { source: String::with_capacity(96 << 10), included: vec![other] }
    }

    fn line(&mut self, line: impl Display) {
        writeln!(self.source, "{line}").expect("a String takes any text");
    }

    /// The file of this name with those that it includes, each where it is wanted first. Compilers name the file's own lines
    /// in their messages.
    fn include(&mut self, name: &'static str) {
        let Some(&(name, embedded)) = FILES.iter().find(|(known, _)| *known == name) else { return };
        if self.included.contains(&name) {
            return;
        }
        self.included.push(name);
        self.lines_of(name, sources::text(&format!("kernels/{name}"), embedded));
    }

    fn lines_of(&mut self, name: &str, text: &str) {
        self.line(format_args!("#line 1 \"{name}\""));
        for (number, line) in text.lines().enumerate() {
            if let Some((other, _)) = included(line) {
                self.include(other);
                self.line(format_args!("#line {} \"{name}\"", number + 2));
            } else if line.trim_end() == "#pragma once" {
                self.line("");
            } else {
                self.line(line);
            }
        }
    }

    fn variant(&mut self, index: usize, variant: &Variant) {
        let Variant { axes, wide, shape, flags, compute, .. } = variant;
        let Shape { style, lanes, threads, width, steps, leaves, cluster, teams } = *shape;
        self.line(format_args!("struct V{index} {{"));
        self.line(format_args!("using F = {};", type_name(*compute)));
        let (kind, power) = kind_name(flags.kind);
        self.line(format_args!("static constexpr Kind KIND = Kind::{kind};"));
        let inner = flags.inner;
        let (inner_kind, _) = kind_name(inner.map_or(Kind::MeanSquare, |inner| inner.kind));
        self.line(format_args!("static constexpr Kind INNER_KIND = Kind::{inner_kind};"));
        self.line(format_args!("static constexpr Before BEFORE = Before::{};", flags.before.name()));
        self.line(format_args!("static constexpr After AFTER = After::{};", flags.after.name()));
        let scaling = match flags.scaling {
            None => "None",
            Some(Scaling::Static) => "Static",
            Some(Scaling::Row) => "Row",
            Some(Scaling::Block) => "Block",
        };
        self.line(format_args!("static constexpr Scaling SCALING = Scaling::{scaling};"));
        let numbers = [
            ("SLOTS", variant.slots.len() as u32),
            ("OUTER", axes.0),
            ("INNER", axes.1),
            ("PROBLEMS", variant.problems),
            ("LANES", lanes),
            ("THREADS", threads),
            ("WIDTH", width),
            ("STEPS", steps),
            ("LEAVES", leaves),
            ("CLUSTER", cluster),
            ("TEAMS", teams),
            ("POWER", power),
        ];
        for (name, value) in numbers {
            self.line(format_args!("static constexpr int {name} = {value};"));
        }
        let Flags { prefix, outside, offset, round, frozen, split, compute, finish, apply, plain, .. } =
            *flags;
        let Flags { outer_weight, accumulate, sums, from_sums, branch, inverse_root, .. } = *flags;
        let constants = [
            ("WIDE", *wide),
            ("COLUMN", style == Style::Column),
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
            ("OUTER_WEIGHT", outer_weight),
            ("ACCUMULATE", accumulate),
            ("SUM_WEIGHT", sums[0]),
            ("SUM_BIAS", sums[1]),
            ("SUM_ALPHA", sums[2]),
            ("FROM_SUMS", from_sums),
            ("BRANCH", branch),
            ("INVERSE_ROOT", inverse_root),
            ("IS_INNER", false),
            ("HAS_INNER", inner.is_some()),
            ("HAS_MIX", inner.is_some_and(|inner| inner.mix)),
            ("INNER_PREFIX", inner.is_some_and(|inner| inner.prefix)),
            ("INNER_OUTSIDE", inner.is_some_and(|inner| inner.outside)),
            ("INNER_OFFSET", inner.is_some_and(|inner| inner.offset)),
            ("INNER_ROUND", inner.is_some_and(|inner| inner.round)),
        ];
        for (name, value) in constants {
            self.line(format_args!("static constexpr bool {name} = {value};"));
        }
        for name in OPERANDS {
            match variant.slots.iter().enumerate().find(|(_, slot)| slot.name == name) {
                Some((at, Slot { dtype, access, .. })) => {
                    let access = match access {
                        Access::Vector => "Vector",
                        Access::Splat => "Splat",
                        Access::Element => "Element",
                    };
                    let dtype = type_name(*dtype);
                    self.line(format_args!("using {name} = Operand<{at}, {dtype}, Access::{access}>;"));
                }
                None => self.line(format_args!("using {name} = Absent;")),
            }
        }
        self.line("};");
    }
}

/// A kind in C++, and its power.
fn kind_name(kind: Kind) -> (&'static str, u32) {
    match kind {
        Kind::Moments => ("Moments", 0),
        Kind::MeanSquare => ("MeanSquare", 0),
        Kind::Norm2 => ("Norm2", 0),
        Kind::Norm1 => ("Norm1", 0),
        Kind::Largest => ("Largest", 0),
        Kind::IntegerPower(power) => ("IntegerPower", power),
        Kind::Power => ("Power", 0),
    }
}

/// The type of numbers that memory holds.
fn type_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "f16",
        DType::BF16 => "bf16",
        DType::F32 => "float",
        DType::F64 => "double",
        DType::I8 => "i8",
        DType::F8E4M3 => "f8e4m3",
        DType::F8E5M2 => "f8e5m2",
        DType::I32 => "int",
        DType::I64 => "long long",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variant(entry: Entry) -> Variant {
        let shape = Shape {
            style: Style::Row,
            lanes: 128,
            threads: 32,
            width: 4,
            steps: 8,
            leaves: 1,
            cluster: 1,
            teams: 4,
        };
        let slot = Slot { name: "input", dtype: DType::BF16, access: Access::Vector };
        Variant {
            entry,
            compute: DType::F32,
            slots: [slot].into_iter().collect(),
            axes: (1, 2),
            wide: false,
            problems: 1,
            shape,
            flags: Flags { compute: true, ..Flags::default() },
        }
    }

    #[test]
    fn units_are_deterministic_and_have_what_they_include() {
        let all = [variant(Entry::NormForward), variant(Entry::Affine), variant(Entry::NormForward)];
        let all: Vec<&Variant> = all.iter().collect();
        for is_host in [false, true] {
            let unit = render(&all, is_host);
            assert_eq!(unit, render(&all, is_host));
            assert_eq!(unit.names, ["norm_forward_0", "affine_1", "norm_forward_2"]);
            assert!(unit.source.contains("KERNEL(affine_1, affine, V1)"));
            assert!(unit.source.contains("using input = Operand<0, bf16, Access::Vector>;"));
            assert!(unit.source.contains("using weight = Absent;"));
            // Files of ours are in the text, once, and the other device is not.
            assert!(!unit.source.contains("#include \"") && !unit.source.contains("#pragma once"));
            assert_eq!(unit.source.matches("#line 1 \"params.cuh\"\n").count(), 1);
            assert_eq!(unit.source.contains("#line 1 \"device_host.cuh\""), is_host);
            assert_eq!(unit.source.contains("#line 1 \"device_cuda.cuh\""), !is_host);
        }
        assert!(!render(&all[..1], true).source.contains("sums.cu"));
    }

    #[test]
    fn includes_name_files_that_are_there() {
        for (name, text) in FILES {
            for line in text.lines().filter(|line| line.starts_with("#include \"")) {
                assert!(included(line).is_some(), "{name}: {line}");
            }
        }
    }
}
