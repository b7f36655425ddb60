//! A case's operands: which there are, where they lie and what is in them.

use super::arena::{Arena, Role};
use super::case::Case;
use super::data::{Fill, mix};
use super::mask::MaskKind;
use crate::oracle::Index;
use crate::spec::{Branch, STATISTICS, Spec};
use crate::tensor::DType;
use crate::{Error, Result};

/// Rows of tables that positions choose from.
const POSITIONS: usize = 23;

/// The operands of `case` in memory, outputs not yet written.
pub(super) fn arena(case: &Case) -> Result<Arena> {
    let spec = case.lower()?;
    let mut arena = Arena::new(case.placement, case.one_buffer);
    arena.add("input", case.dtype, &case.shape, Role::Input)?;
    arena.add("output", case.dtype, &case.shape, Role::Output)?;
    arena.add("grad_output", case.dtype, &case.shape, Role::Input)?;
    arena.add("grad_input", case.dtype, &case.shape, Role::Output)?;
    for (name, gradient, fill, _) in parameters(case) {
        if fill.is_some() {
            let shape = &spec.affine().shape;
            arena.add(name, case.weight_dtype, shape, Role::Parameter)?;
            arena.add(gradient, case.weight_dtype, shape, Role::ParameterGradient)?;
        }
    }
    if let Some(mask) = &case.mask {
        if !case.takes_mask() {
            return Err(Error::argument("mask", format!("none with {}", case.method), "one"));
        }
        let shape = mask.shape.as_ref().unwrap_or(&case.shape);
        arena.add("mask", case.weight_dtype, shape, Role::Input)?;
    }
    let others = [("before", "grad_before"), ("after", "grad_after")];
    for ((name, gradient), _) in others.into_iter().zip(case.has_others()).filter(|(_, has)| *has) {
        if !case.takes_fusion() {
            return Err(Error::argument("fusion", format!("none with {}", case.method), "one"));
        }
        arena.add(name, case.other_dtype, &case.shape, Role::Input)?;
        arena.add(gradient, case.other_dtype, &case.shape, Role::Output)?;
    }
    if let Some(pairs) = case.pairs() {
        if !case.takes_rotary() {
            return Err(Error::argument(
                "fusion",
                format!("no rotary embedding with {}", case.method),
                "one",
            ));
        }
        let (_, kept) = case.shape.split_last().unwrap_or((&0, &[]));
        let shape = match case.positions {
            Some(_) => vec![POSITIONS, pairs],
            None => [kept, &[pairs]].concat(),
        };
        if let Some(is_wide) = case.positions {
            let dtype = if is_wide { DType::I64 } else { DType::I32 };
            arena.add("positions", dtype, kept, Role::Input)?;
        }
        arena.add("cos", case.other_dtype, &shape, Role::Input)?;
        arena.add("sin", case.other_dtype, &shape, Role::Input)?;
    }
    if spec.fusion().inner.is_some() {
        let shape = [spec.rows(), STATISTICS];
        arena.add("inner_statistics", case.dtype.compute(), &shape, Role::Statistics)?;
        if spec.fusion().mix.is_some() {
            arena.add("mix_statistics", case.dtype.compute(), &shape, Role::Statistics)?;
        }
    }
    if case.has_hidden() {
        arena.add("hidden", case.hidden_dtype(), &case.shape, Role::Output)?;
        arena.add("grad_hidden", case.hidden_dtype(), &case.shape, Role::Input)?;
    }
    if matches!(spec, Spec::Pointwise(_)) {
        arena.add("alpha", case.weight_dtype, &[1], Role::Parameter)?;
        arena.add("grad_alpha", case.weight_dtype, &[1], Role::ParameterGradient)?;
    } else if case.frozen.is_some() {
        // Their arithmetic is done once, in the compute dtype of the input.
        arena.add("running_mean", case.dtype.compute(), &[spec.rows()], Role::Parameter)?;
        arena.add("running_var", case.dtype.compute(), &[spec.rows()], Role::Parameter)?;
    } else {
        arena.add("statistics", case.dtype.compute(), &[spec.rows(), STATISTICS], Role::Statistics)?;
    }
    arena.allocate();
    fill(&mut arena, case, &spec);
    Ok(arena)
}

/// The parameters that have the shape of a weight: their names, those of their gradients, what they are filled with if they are
/// there, and what tells them apart.
fn parameters(case: &Case) -> [(&'static str, &'static str, Option<Fill>, u64); 7] {
    let (Branch { bias, scale }, fills) = (case.branch(), case.branch_values);
    let mix = case.fusion().mix;
    let of_inner = case.fusion().inner.is_some() && mix.is_none();
    [
        ("weight", "grad_weight", case.weight, 2),
        ("bias", "grad_bias", case.bias, 3),
        ("branch_bias", "grad_branch_bias", bias.then_some(fills[0]), 13),
        ("branch_scale", "grad_branch_scale", scale.then_some(fills[1]), 14),
        ("inner_weight", "grad_inner_weight", case.weight.filter(|_| of_inner), 15),
        ("inner_bias", "grad_inner_bias", case.bias.filter(|_| of_inner), 16),
        ("mix_alpha", "grad_mix_alpha", mix.map(|_| fills[0]), 17),
    ]
}

fn fill(arena: &mut Arena, case: &Case, spec: &Spec) {
    let seed = |tensor: u64| mix(case.seed.wrapping_mul(8).wrapping_add(tensor));
    let (index, cols) = (Index::of_elements(spec), spec.cols());
    let tensors = [
        ("input", case.input, 0),
        ("grad_output", case.grad_output, 1),
        ("before", case.others[0], 7),
        ("after", case.others[1], 8),
        ("grad_hidden", case.grad_output, 9),
    ];
    for (name, fill, tensor) in tensors {
        if arena.slot(name).is_none() {
            continue;
        }
        let mut values = vec![0.0; case.shape.iter().product()];
        for (row, col) in index.grid() {
            values[index.at((row, col))] = fill.at(seed(tensor), case.first_row + row, col, cols);
        }
        arena.fill(name, |at| values[at]);
    }
    if let Some(pairs) = case.pairs() {
        // Tables that are chosen from are the same in any company.
        let first_row = if case.positions.is_some() { 0 } else { case.first_row };
        for (name, fill, tensor) in [("cos", case.angles[0], 10), ("sin", case.angles[1], 11)] {
            arena.fill(name, |at| fill.at(seed(tensor), first_row + at / pairs, at % pairs, pairs));
        }
        arena
            .fill("positions", |at| (mix(seed(12) ^ (case.first_row + at) as u64) % POSITIONS as u64) as f64);
    }
    let index = Index::of_parameters(spec);
    for (name, _, fill, tensor) in parameters(case) {
        let Some(fill) = fill else { continue };
        let mut values = vec![0.0; crate::oracle::parameters(spec)];
        for (parameter, (row, col)) in index.firsts() {
            // Where each row has its own, they move with the rows.
            let first_row = if case.has_parameters_of_rows() { case.first_row } else { 0 };
            let row = first_row + row;
            values[parameter] = fill.at(seed(tensor), row, col, cols);
        }
        arena.fill(name, |at| values[at]);
    }
    if let Some(mask) = &case.mask {
        fill_mask(arena, case, spec, mask.kind, mask.shape.as_deref(), seed(4));
    }
    if let Some(given) = case.frozen {
        let near = |tensor, row: usize| Fill::Uniform(1.0).at(seed(tensor), case.first_row + row, 0, 1);
        arena.fill("running_mean", |row| given.mean * near(5, row));
        arena.fill("running_var", |row| given.var * (1.0 + 0.5 * near(6, row)));
    }
    arena.fill("alpha", |_| case.alpha);
}

/// A mask of the input's shape is filled along the spec's rows; one of another shape, along its own last axis.
fn fill_mask(
    arena: &mut Arena,
    case: &Case,
    spec: &Spec,
    kind: MaskKind,
    shape: Option<&[usize]>,
    seed: u64,
) {
    if let Some(shape) = shape {
        let cols = shape.last().copied().unwrap_or(1).max(1);
        return arena.fill("mask", |at| kind.at(seed, at / cols, at % cols, cols));
    }
    let (index, cols) = (Index::of_elements(spec), spec.cols());
    let mut values = vec![0.0; case.shape.iter().product()];
    for (row, col) in index.grid() {
        values[index.at((row, col))] = kind.at(seed, case.first_row + row, col, cols);
    }
    arena.fill("mask", |at| values[at]);
}

/// The elements of a mask of `shape` as those of a tensor of the input's shape, in row-major order.
pub(super) fn broadcast<T: Copy>(mask: &[T], shape: &[usize], input: &[usize]) -> Vec<T> {
    let leading = input.len() - shape.len();
    let mut strides = vec![0; input.len()];
    shape.iter().enumerate().rev().fold(1, |stride, (axis, &size)| {
        strides[leading + axis] = if size == 1 { 0 } else { stride };
        stride * size
    });
    let of_index = |mut index: usize| {
        (input.iter().zip(&strides)).rev().fold(0, |at, (&size, &stride)| {
            let step = index % size;
            index /= size;
            at + step * stride
        })
    };
    (0..input.iter().product()).map(|index| mask[of_index(index)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_repeat_along_axes_of_size_one() {
        assert_eq!(broadcast(&[1, 2], &[2], &[2, 2]), [1, 2, 1, 2]);
        assert_eq!(broadcast(&[1, 2], &[2, 1], &[2, 3]), [1, 1, 1, 2, 2, 2]);
        assert_eq!(broadcast(&[1, 2, 3, 4], &[2, 1, 2], &[2, 2, 2]), [1, 2, 1, 2, 3, 4, 3, 4]);
    }
}
