//! The list's shaders of norms that something surrounds.

use super::catalog::{DTYPES, without};
use super::fusion::{self, After, Before};
use super::variant::{Access, Entry, Flags, InnerFlags, Reduction, Role, Shape, Style, Variant};
use crate::backend::codes::Scaling;
use crate::backend::kind::Kind;
use crate::spec::Activation;
use crate::tensor::DType;

/// Everything that may surround a norm, with all operands and with those that most launches have.
pub(super) fn fusions(whole: &Variant) -> Vec<Variant> {
    if !matches!(whole.entry, Entry::NormForward | Entry::NormBackward | Entry::Affine) {
        return Vec::new();
    }
    let activations =
        [Activation::Relu, Activation::Silu, Activation::Gelu, Activation::GeluTanh].map(After::Activation);
    let afters = [After::None, After::Residual, After::Gate].into_iter().chain(activations);
    let befores = [Before::None, Before::Residual, Before::ScaledResidual, Before::Gate];
    let mut all = Vec::new();
    for (index, (after, before)) in afters.flat_map(|a| befores.map(|b| (a, b))).enumerate() {
        let bit = |n: usize| index >> n & 1 == 1;
        let half = if bit(0) { DType::BF16 } else { DType::F16 };
        let dropout = before == Before::ScaledResidual && bit(2);
        let flags = Flags { after, before, dropout, round: bit(1), ..whole.flags };
        let mut slots = whole.slots.clone();
        for slot in slots.iter_mut().filter(|slot| fusion::operands(whole.entry).contains(&slot.name)) {
            slot.dtype = if bit(2) { half } else { DType::F32 };
            slot.access = if bit(3) { Access::Element } else { slot.access };
        }
        let some = Variant { slots, flags, ..whole.clone() };
        let few = ["mask", "moments", "hidden", "grad_hidden", "grad_before", "grad_after"];
        all.push(without(&some, &few));
        all.push(without(&some, &["before", "bias"]));
        let fused = whole.entry == Entry::NormBackward && whole.shape.style == Style::Row;
        all.push(Variant { flags: Flags { fused, kept: fused, ..flags }, ..some.clone() });
        all.push(some);
    }
    all
}

/// Residuals whose branch is shifted and scaled, and the sums of those parameters' gradients.
pub(super) fn branches(whole: &Variant) -> Vec<Variant> {
    if !matches!(whole.entry, Entry::NormForward | Entry::NormBackward | Entry::Affine) {
        return Vec::new();
    }
    let kinds = [Kind::Moments, Kind::Largest, Kind::IntegerPower(3), Kind::Power];
    let mut all = Vec::new();
    for (index, kind) in kinds.into_iter().enumerate() {
        let bit = |n: usize| index >> n & 1 == 1;
        let before = if bit(0) { Before::ScaledResidual } else { Before::Residual };
        let after = if bit(1) { After::Gate } else { After::None };
        let flags = Flags { kind, before, after, dropout: bit(1), outer_weight: bit(0), ..whole.flags };
        let some = Variant { flags, ..without(whole, if bit(1) { &[] } else { &["after", "grad_after"] }) };
        all.push(without(&some, &["mask", "moments", "grad_hidden", "before", "branch_bias"]));
        if whole.entry != Entry::NormForward {
            let held = 0;
            let (shape, plain) = (Shape { held, ..whole.shape }, whole.entry == Entry::NormBackward);
            let flags = Flags { branch: true, plain, apply: false, prefix: bit(1), ..flags };
            let without_targets = ["grad_input", "grad_before", "grad_after", "partials"];
            let without_targets = if plain { &without_targets[..] } else { &[] };
            let sums = Variant { flags, shape, ..without(&some, without_targets) };
            all.push(without(&sums, &["mask", "grad_hidden", "branch_scale"]));
            all.push(with_few_bindings(&sums));
            all.push(sums);
        }
        all.push(with_few_bindings(&some));
        all.push(some);
    }
    all
}

/// Residuals whose branch has a norm of its own: its statistics are computed or given, of either kind beside either.
pub(super) fn sandwiches(whole: &Variant) -> Vec<Variant> {
    if !matches!(whole.entry, Entry::NormForward | Entry::NormBackward | Entry::Affine) {
        return Vec::new();
    }
    let around =
        ["mask", "moments", "scales", "after", "grad_after", "cos", "sin", "positions", "given", "sums"];
    let whole = without(whole, &around);
    let kind = |is_layer| if is_layer { Kind::Moments } else { Kind::MeanSquare };
    let mut all = Vec::new();
    for index in 0..16usize {
        let bit = |n: usize| index >> n & 1 == 1;
        let computed = whole.entry == Entry::NormForward && !bit(2);
        let (prefix, outside) = (bit(3) && computed, bit(2) && computed);
        let inner = InnerFlags {
            kind: kind(bit(0)),
            prefix,
            outside,
            offset: bit(1),
            round: bit(3),
            computed,
            mix: false,
        };
        let (before, inner) = (Before::Residual, Some(inner));
        let kind = kind(bit(1));
        let split = whole.entry == Entry::NormForward && !computed;
        let flags = Flags { kind, before, inner, split, prefix: bit(2), outside: bit(3), ..whole.flags };
        let mut slots = whole.slots.clone();
        for slot in slots.iter_mut() {
            match (slot.name, slot.role) {
                ("inner_statistics", Role::SetNumber) if !computed => slot.role = Role::Number,
                (_, Role::Load | Role::Store) => {
                    slot.dtype = DTYPES[index % 3];
                    slot.access = if bit(2) { Access::Element } else { slot.access };
                }
                _ => {}
            }
        }
        // Rows of a kind of element accesses are read again.
        let held = if bit(2) { 0 } else { whole.shape.held };
        let reduction = [Reduction::Subgroup, Reduction::Workgroup][index % 2];
        let shape = Shape { held, reduction, exact: whole.shape.exact && !bit(3), ..whole.shape };
        let some = Variant { slots, flags, shape, ..whole.clone() };
        let wanted: &[&str] =
            if computed { &["inner_statistics", "hidden"] } else { &["grad_hidden", "hidden"] };
        all.push(without(&some, wanted));
        all.push(without(&some, &["inner_bias"]));
        if whole.entry == Entry::NormBackward && whole.shape.style == Style::Row && held > 0 {
            all.push(Variant { flags: Flags { fused: true, kept: true, ..flags }, ..some.clone() });
        }
        all.push(with_few_bindings(&some));
        all.push(some);
    }
    all
}

/// Mixes of two norms: their statistics are computed or given, with as many operands as launches have and with fewer.
pub(super) fn mixes(whole: &Variant) -> Vec<Variant> {
    let (is_forward, kind) = (whole.entry == Entry::NormForward, Kind::Norm2);
    if !is_forward && whole.entry != Entry::NormBackward {
        return Vec::new();
    }
    let own = ["input", "output", "before", "grad_output", "grad_input", "statistics"];
    let others: Vec<&str> = (whole.slots.iter().map(|slot| slot.name))
        .filter(|name| !own.contains(name) && !MIXED.contains(name))
        .collect();
    let whole = without(whole, &others);
    let mut all = Vec::new();
    for index in 0..12usize {
        let bit = |n: usize| index >> n & 1 == 1;
        let computed = is_forward && !bit(2);
        let inner = Some(InnerFlags { kind, computed, mix: true, ..InnerFlags::default() });
        let (before, split) = (Before::Residual, is_forward && !computed);
        let mut slots = whole.slots.clone();
        for slot in slots.iter_mut() {
            match slot.role {
                Role::SetNumber if !computed && MIXED.contains(&slot.name) => slot.role = Role::Number,
                Role::Load if MIXED.contains(&slot.name) => {}
                Role::Load | Role::Store => slot.dtype = DTYPES[index % 3],
                _ => {}
            }
            let is_tensor = matches!(slot.role, Role::Load | Role::Store);
            slot.access = if bit(2) && is_tensor { Access::Element } else { slot.access };
        }
        // As those of sandwiches.
        let held = if bit(2) { 0 } else { whole.shape.held };
        let reduction = [Reduction::Subgroup, Reduction::Workgroup][index % 2];
        let shape = Shape { held, reduction, exact: whole.shape.exact && !bit(3), ..whole.shape };
        let kept = computed && held > 0 && bit(1);
        let flags = Flags { kind, before, inner, split, kept, ..whole.flags };
        let some = Variant { slots, flags, shape, ..whole.clone() };
        all.push(without(&some, if computed { &["inner_statistics", "mix_statistics"] } else { &[] }));
        all.push(with_few_bindings(&some));
        all.push(some);
    }
    all
}

/// The operands of a mix.
const MIXED: [&str; 4] = ["inner_weight", "inner_statistics", "mix_weight", "mix_statistics"];

/// The kernel with operands in the bindings of others.
fn with_few_bindings(variant: &Variant) -> Variant {
    let mut slots = variant.slots.clone();
    let has_weight = variant.slot("weight").is_some();
    for slot in slots.iter_mut() {
        slot.host = match slot.name {
            "branch_scale" => Some("branch_bias"),
            "given" => Some("statistics"),
            "bias" | "inner_weight" | "inner_bias" if has_weight => Some("weight"),
            "mix_weight" => Some("inner_weight"),
            _ => None,
        };
    }
    Variant { slots, ..variant.clone() }
}

/// Rotary embeddings, in each style of pairs, with all operands and with those that most launches have.
pub(super) fn rotaries(whole: &Variant) -> Vec<Variant> {
    if !matches!(whole.entry, Entry::NormForward | Entry::NormBackward | Entry::Affine) {
        return Vec::new();
    }
    let whole = without(whole, &["after", "grad_after"]);
    let mut all = Vec::new();
    for index in 0..8usize {
        let bit = |n: usize| index >> n & 1 == 1;
        let after = After::Rotary { halves: bit(0), whole: bit(1) };
        let before = if bit(2) { Before::Gate } else { Before::None };
        let flags = Flags { after, before, ..whole.flags };
        let mut slots = whole.slots.clone();
        for slot in slots.iter_mut() {
            if slot.role == Role::Position {
                slot.dtype = if bit(2) { DType::I64 } else { DType::I32 };
            } else if slot.role == Role::Table {
                slot.dtype = if bit(2) { DType::BF16 } else { DType::F32 };
            } else if !bit(1) && whole.shape.style == Style::Row {
                slot.access = Access::Element;
            }
        }
        let some = Variant { slots, flags, ..whole.clone() };
        let few = ["mask", "moments", "hidden", "grad_hidden", "grad_before", "before", "bias"];
        all.push(without(&some, &few));
        let fused = whole.entry == Entry::NormBackward && whole.shape.style == Style::Row;
        all.push(Variant { flags: Flags { fused, kept: fused, ..flags }, ..some.clone() });
        all.push(Variant { flags: Flags { compute: false, ..flags }, shared: true, ..some.clone() });
        all.push(some);
    }
    all
}

/// Every kind of codes, with a residual and without.
pub(super) fn codes(whole: &Variant) -> Vec<Variant> {
    if whole.entry != Entry::NormForward || whole.shape.style != Style::Row {
        return Vec::new();
    }
    let mut all = Vec::new();
    for (at, dtype) in DType::CODES.into_iter().enumerate() {
        for scaling in [Scaling::Static, Scaling::Row, Scaling::Block] {
            for access in [Access::Vector, Access::Element] {
                let held = if access == Access::Vector { whole.shape.held } else { 0 };
                let reduction = [Reduction::Subgroup, Reduction::Workgroup][at % 2];
                let shape = Shape { held, reduction, ..whole.shape };
                let flags = Flags { scaling: Some(scaling), before: Before::Residual, ..whole.flags };
                let mut slots = whole.slots.clone();
                for slot in slots.iter_mut().filter(|slot| slot.name == "output") {
                    (slot.dtype, slot.access) = (dtype, access);
                }
                let some = Variant { slots, shape, flags, ..whole.clone() };
                let few = ["mask", "moments", "statistics", "after"];
                let few = without(&some, &few);
                let flags = Flags { before: Before::None, split: scaling != Scaling::Row, ..flags };
                all.push(Variant { flags, ..without(&few, &["before", "hidden", "bias"]) });
                all.push(few);
            }
        }
    }
    all
}

/// Codes that outliers are set apart from, and the zeroing of their columns.
pub(super) fn outliers(whole: &Variant) -> Vec<Variant> {
    let coded = |access: Access, whole: &Variant| {
        let mut slots = whole.slots.clone();
        for slot in slots.iter_mut().filter(|slot| slot.name == "output") {
            (slot.dtype, slot.access) = (DType::I8, access);
        }
        Variant { slots, ..whole.clone() }
    };
    let flags = Flags { scaling: Some(Scaling::Row), before: Before::Residual, ..whole.flags };
    let own = ["cos", "sin", "positions", "branch_bias", "branch_scale"];
    let inner = ["inner_weight", "inner_bias", "inner_statistics", "mask", "moments", "after"];
    let each = [Access::Vector, Access::Element].into_iter();
    match whole.entry {
        Entry::ZeroColumns => each.map(|access| coded(access, whole)).collect(),
        Entry::NormForward if whole.shape.style == Style::Row => each
            .map(|access| {
                let held = if access == Access::Vector { whole.shape.held } else { 0 };
                let some = without(&without(&coded(access, whole), &own), &inner);
                Variant { flags, shape: Shape { held, ..whole.shape }, ..some }
            })
            .collect(),
        _ => Vec::new(),
    }
}
