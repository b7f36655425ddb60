//! The shaders that plans can produce, listed for whoever wants to look at them or to validate them.

use super::variant::{Access, Entry, Flags, Place, Reduction, Role, Shape, Slot, Target, Variant};
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

const ENTRIES: [Entry; 9] = [
    Entry::RowForward,
    Entry::RowBackward,
    Entry::Affine,
    Entry::Finish,
    Entry::PointwiseForward,
    Entry::PointwiseBackward,
    Entry::Leaves,
    Entry::Total,
    Entry::Copy,
];
const DTYPES: [DType; 3] = [DType::F16, DType::BF16, DType::F32];

/// Every constant that a plan can put into a shader, each beside a plain choice of the others: all operands, dtypes
/// and accesses; all ways to share a row, for subgroups of 4 to 128; all flags of the specs; all lengths of the axes'
/// tables. `browser` adds the directives that browsers want and native compilers refuse.
pub fn shaders(browser: bool) -> Vec<Shader> {
    let target = if browser { Target::Browser } else { Target::Native };
    let mut variants = Vec::new();
    for entry in ENTRIES {
        let plain = plain(entry);
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
    (variants.iter())
        .map(|variant| Shader {
            entry: variant.entry.name(),
            source: variant.render(target),
            subgroups: variant.uses_subgroups(),
        })
        .collect()
}

fn is_parameter(name: &str) -> bool {
    matches!(name, "weight" | "bias" | "alpha" | "gradient")
}

fn plain(entry: Entry) -> Variant {
    let (mut full, mut row, mut flat) = (0, 0, 0);
    let next = |counter: &mut u8| {
        *counter += 1;
        *counter - 1
    };
    let slots = (entry.operands().iter())
        .map(|&(name, role)| {
            let place = match role {
                Role::Get | Role::Set => Place::Flat(next(&mut flat)),
                _ if is_parameter(name) => Place::Row(next(&mut row)),
                _ => Place::Full(next(&mut full)),
            };
            Slot { name, role, place, access: Access::Vector, dtype: DType::F32 }
        })
        .collect();
    let shape =
        Shape { reduction: Reduction::Subgroup, group: 32, threads: 32, lanes: 256, held: 4, exact: true };
    let flags = Flags { moments: true, sums: [true; 3], ..Flags::default() };
    Variant { entry, slots, axes: (1, 1), shape, flags, shared: false }
}

/// All dtypes and accesses of the tensors and of the parameters, and every operand that may be absent.
fn operands(plain: &Variant) -> Vec<Variant> {
    let mut all = Vec::new();
    for (dtype, parameter) in DTYPES.iter().flat_map(|a| DTYPES.map(|b| (*a, b))) {
        for bits in 0..8u32 {
            let access = |bit: u32| if bits >> bit & 1 == 1 { Access::Element } else { Access::Vector };
            let mut slots = plain.slots.clone();
            for slot in slots.iter_mut().filter(|slot| matches!(slot.role, Role::Load | Role::Store)) {
                let is_parameter = is_parameter(slot.name);
                slot.dtype = if is_parameter { parameter } else { dtype };
                slot.access = match (is_parameter, slot.role) {
                    (true, _) => access(2),
                    (false, Role::Load) => access(0),
                    (false, _) => access(1),
                };
            }
            all.push(Variant { slots, ..plain.clone() });
        }
    }
    for absent in ["weight", "bias", "statistics", "grad_input", "gradient"] {
        let slots: SmallVec<[Slot; 6]> =
            plain.slots.iter().copied().filter(|slot| slot.name != absent).collect();
        if slots.len() < plain.slots.len() {
            all.push(Variant { slots, ..plain.clone() });
        }
    }
    all
}

/// All ways to share a row.
fn shapes(plain: &Variant) -> Vec<Variant> {
    let mut all = Vec::new();
    let subgroups = [4, 8, 16, 32, 64, 128].map(|size| (Reduction::Subgroup, size));
    let workgroups = [4, 16, 64, 256].map(|size| (Reduction::Workgroup, size));
    for (reduction, group) in subgroups.into_iter().chain(workgroups) {
        for (lanes, held) in [(32, 1), (32, 3), (32, 8), (256, 0), (256, 2), (256, 16)] {
            for exact in [false, true] {
                let shape = Shape { reduction, group, threads: group.min(lanes / 4), lanes, held, exact };
                all.push(Variant { shape, ..plain.clone() });
            }
        }
    }
    all
}

/// All flags of the specs.
fn flags(plain: &Variant) -> Vec<Variant> {
    (0..64u32)
        .map(|bits| {
            let bit = |n: u32| bits >> n & 1 == 1;
            let flags = Flags {
                moments: bit(0),
                prefix: bit(1),
                outside: bit(2),
                offset: bit(3),
                round: bit(4),
                sums: [bit(5), !bit(5), bit(0)],
            };
            Variant { flags, ..plain.clone() }
        })
        .collect()
}
