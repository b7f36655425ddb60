//! The shaders that plans can produce, listed for whoever wants to look at them or to validate them.

use super::catalog_fused::{branches, codes, fusions, mixes, outliers, rotaries, sandwiches};
use super::fusion;
use super::variant::{Access, Entry, Flags, Place, Reduction, Role, Shape, Slot, Style, Target, Variant};
use crate::backend::kind::Kind;
use crate::tensor::DType;
use smallvec::SmallVec;

/// A shader as text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shader {
    /// The entry point.
    pub entry: &'static str,
    /// The whole WGSL module.
    pub source: String,
    /// Whether it uses subgroup operations.
    pub subgroups: bool,
}

const ENTRIES: [Entry; 16] = [
    Entry::NormForward,
    Entry::NormBackward,
    Entry::MergeMoments,
    Entry::MergeSums,
    Entry::FromRunning,
    Entry::UpdateRunning,
    Entry::Affine,
    Entry::Finish,
    Entry::PointwiseForward,
    Entry::PointwiseBackward,
    Entry::Leaves,
    Entry::Total,
    Entry::Copy,
    Entry::ZeroColumns,
    Entry::Shares,
    Entry::GradientOfShares,
];
pub(super) const DTYPES: [DType; 3] = [DType::F16, DType::BF16, DType::F32];

/// Every constant that a plan can put into a shader, each beside a plain choice of the others: all operands, dtypes
/// and accesses; all ways to share a row, for subgroups of 4 to 128, or to have four to oneself; all flags of the specs;
/// all lengths of the axes' tables. `browser` adds the directives that browsers want and native compilers refuse.
pub fn shaders(browser: bool) -> Vec<Shader> {
    let target = if browser { Target::Browser } else { Target::Native };
    let mut variants = Vec::new();
    for entry in ENTRIES {
        for whole in whole(entry) {
            variants.extend(mixes(&whole));
            let of_mix = ["mix_weight", "mix_statistics"];
            let is_of_mix = matches!(entry, Entry::Shares | Entry::GradientOfShares);
            let whole = if is_of_mix { whole } else { without(&whole, &of_mix) };
            variants.extend(outliers(&whole));
            let whole = if entry == Entry::NormForward { without(&whole, &["flags"]) } else { whole };
            let plain = without(&whole, fusion::operands(entry));
            let of_branch = ["branch_bias", "branch_scale"];
            variants.extend(sandwiches(&without(&whole, &of_branch)));
            let whole = without(&whole, &["inner_weight", "inner_bias", "inner_statistics"]);
            variants.extend(rotaries(&without(&whole, &of_branch)));
            let whole = without(&whole, &["cos", "sin", "positions"]);
            variants.extend(branches(&whole));
            let whole = without(&whole, &of_branch);
            variants.extend(fusions(&whole));
            variants.extend(codes(&whole));
            variants.extend(operands(&plain));
            variants.extend(shapes(&plain));
            variants.extend(flags(&plain));
            for axes in [(1, 2), (2, 1), (4, 4), (8, 8), (11, 13)] {
                let mut slots = plain.slots.clone();
                slots.iter_mut().for_each(|slot| slot.access = Access::Element);
                variants.push(Variant { axes, slots, ..plain.clone() });
            }
            variants.push(Variant { shared: true, ..plain.clone() });
        }
    }
    (variants.iter())
        .map(|variant| Shader {
            entry: variant.entry.name(),
            source: variant.render(target),
            subgroups: variant.uses_subgroups(),
        })
        .collect()
}

fn is_parameter(name: &str) -> bool {
    matches!(name, "weight" | "bias" | "alpha" | "gradient" | "running_mean" | "running_var" | "mask")
}

/// The kernel with all of its operands, in each style that it has.
fn whole(entry: Entry) -> Vec<Variant> {
    let styles: &[Style] = match entry {
        Entry::NormForward | Entry::NormBackward => &[Style::Row, Style::Column],
        Entry::MergeMoments | Entry::MergeSums | Entry::FromRunning | Entry::UpdateRunning => {
            &[Style::Column]
        }
        Entry::Shares | Entry::GradientOfShares => &[Style::Column],
        _ => &[Style::Row],
    };
    // What is given and what is computed exclude each other.
    let excluded = match entry {
        Entry::NormForward | Entry::NormBackward => "given",
        Entry::Affine => "sums",
        _ => "",
    };
    let (mut full, mut flat) = (0, 0);
    let next = |counter: &mut u8| {
        *counter += 1;
        *counter - 1
    };
    let slots: SmallVec<[Slot; 8]> = (entry.operands().iter())
        .filter(|(name, _)| *name != excluded)
        .map(|&(name, role)| {
            let place = match role {
                Role::Get | Role::Set => Place::Flat(next(&mut flat)),
                _ => Place::Full(next(&mut full)),
            };
            let access = match role {
                Role::Load | Role::Store => Access::Vector,
                _ => Access::Element,
            };
            Slot { name, role, place, access, dtype: DType::F32, host: None }
        })
        .collect();
    let of = |style| {
        let (reduction, lanes) = (Reduction::Subgroup, 256);
        let shape = match style {
            Style::Row => Shape { style, reduction, group: 32, threads: 32, lanes, held: 4, exact: true },
            Style::Column => Shape { style, reduction, group: 64, threads: 1, lanes, held: 0, exact: false },
        };
        let flags = Flags { compute: true, finish: true, apply: true, sums: [true; 3], ..Flags::default() };
        Variant { entry, slots: slots.clone(), axes: (1, 1), shape, flags, shared: false }
    };
    styles.iter().copied().map(of).collect()
}

/// The kernel without some of its operands.
pub(super) fn without(variant: &Variant, names: &[&str]) -> Variant {
    let mut slots = variant.slots.clone();
    slots.retain(|slot| !names.contains(&slot.name));
    let mut full = 0;
    for slot in slots.iter_mut() {
        if let Place::Full(n) = &mut slot.place {
            (*n, full) = (full, full + 1);
        }
    }
    Variant { slots, ..variant.clone() }
}

/// All dtypes and accesses of the tensors and of the parameters, and every operand that may be absent.
fn operands(plain: &Variant) -> Vec<Variant> {
    let mut all = Vec::new();
    for (dtype, parameter) in DTYPES.iter().flat_map(|a| DTYPES.map(|b| (*a, b))) {
        for bits in 0..16u32 {
            let bit = |n: u32| bits >> n & 1 == 1;
            let access = |n: u32| if bit(n) { Access::Element } else { Access::Vector };
            let mut slots = plain.slots.clone();
            for slot in slots.iter_mut() {
                let is_parameter = is_parameter(slot.name);
                slot.access = match (is_parameter, slot.role) {
                    (true, Role::Load) if bit(3) => Access::Splat,
                    (true, Role::Load | Role::Store) => access(2),
                    (false, Role::Load) => access(0),
                    (false, Role::Store) => access(1),
                    (_, Role::NumberOfColumn) if bit(3) => Access::Splat,
                    _ => continue,
                };
                if matches!(slot.role, Role::Load | Role::Store | Role::Update) {
                    slot.dtype = if is_parameter { parameter } else { dtype };
                }
            }
            all.push(Variant { slots, ..plain.clone() });
        }
    }
    let optional =
        ["weight", "bias", "mask", "statistics", "moments", "sums", "output", "grad_input", "gradient"];
    for absent in optional {
        let slots: SmallVec<[Slot; 8]> =
            plain.slots.iter().copied().filter(|slot| slot.name != absent).collect();
        if slots.len() < plain.slots.len() {
            all.push(Variant { slots, ..plain.clone() });
        }
    }
    // Numbers that are given take the place of those that are computed.
    for (computed, given, role) in [
        ("moments", "given", Role::Number),
        ("sums", "given", Role::Number),
        ("statistics", "sums", Role::NumberOfColumn),
    ] {
        if !plain.entry.operands().contains(&(given, role)) {
            continue;
        }
        let mut slots = plain.slots.clone();
        for slot in slots.iter_mut().filter(|slot| slot.name == computed) {
            (slot.name, slot.role) = (given, role);
        }
        all.push(Variant { flags: Flags { compute: false, ..plain.flags }, slots, ..plain.clone() });
    }
    all
}

/// All ways to share a row.
fn shapes(plain: &Variant) -> Vec<Variant> {
    let mut all = Vec::new();
    if plain.shape.style == Style::Column {
        for lanes in [32, 128, 256] {
            all.push(Variant { shape: Shape { lanes, ..plain.shape }, ..plain.clone() });
        }
        return all;
    }
    let subgroups = [4, 8, 16, 32, 64, 128].map(|size| (Reduction::Subgroup, size));
    let workgroups = [4, 16, 64, 256].map(|size| (Reduction::Workgroup, size));
    for (reduction, group) in subgroups.into_iter().chain(workgroups) {
        for (lanes, held) in [(32, 1), (32, 3), (32, 8), (256, 0), (256, 2), (256, 16)] {
            for exact in [false, true] {
                let threads = group.min(lanes / 4);
                let shape = Shape { reduction, group, threads, lanes, held, exact, ..plain.shape };
                all.push(Variant { shape, ..plain.clone() });
            }
        }
    }
    all
}

/// All flags of the specs.
fn flags(plain: &Variant) -> Vec<Variant> {
    let kinds = [
        Kind::Moments,
        Kind::MeanSquare,
        Kind::Norm1,
        Kind::Norm2,
        Kind::Largest,
        Kind::IntegerPower(3),
        Kind::Power,
    ];
    let all = |bits: u32| {
        let bit = |n: u32| bits >> n & 1 == 1;
        let flags = Flags {
            kind: kinds[bits as usize % kinds.len()],
            prefix: bit(0),
            outside: bit(1),
            offset: bit(2),
            round: bit(3),
            frozen: bit(4),
            split: bit(5),
            compute: bit(6),
            finish: bit(7),
            apply: bit(0) ^ bit(6),
            plain: bit(1) ^ bit(5),
            outer_weight: bit(2) ^ bit(4),
            accumulate: bit(3),
            constant: bit(3),
            kept: bit(4) && plain.shape.style == Style::Row,
            fused: bit(4) && plain.entry == Entry::NormBackward && plain.shape.style == Style::Row,
            sums: [bit(5), !bit(5), bit(0)],
            inverse_root: bit(1),
            ..Flags::default()
        };
        Variant { flags, ..plain.clone() }
    };
    (0..256).map(all).collect()
}
