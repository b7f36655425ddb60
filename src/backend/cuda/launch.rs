//! From operands to launches: which addresses a kernel is given, how it reaches them, and what it is told.

use super::driver::{Function, Launch};
use super::params::{self, Axis, Scalars, Told};
use super::variant::{Access, Entry, Flags, Shape, Slot, Variant};
use super::{CudaStream, fault, geometry};
use crate::plan::{Grid, Walk, fold};
use crate::spec::Norm;
use crate::tensor::{DType, Dims, Layout, Memory, View};
use crate::{Error, Result};
use smallvec::{SmallVec, smallvec};
use std::ops::Range;

/// What a kernel does with an operand, as far as that decides how it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Reads neighbouring columns.
    Load,
    /// Writes neighbouring columns.
    Store,
    /// Reads or writes numbers of what a row or a column belongs to, one at a time.
    Number,
}

/// An operand of a problem.
#[derive(Debug)]
pub(super) struct Operand {
    name: &'static str,
    role: Role,
    /// Of the memory that the layout's offset is counted from.
    address: u64,
    dtype: DType,
    /// In the problem's shape; `None` for a plain array, which kernels index themselves.
    layout: Option<Layout>,
}

impl Operand {
    /// A tensor of the problem's shape; `None` where there is no view.
    pub(super) fn new(name: &'static str, role: Role, view: Option<&View<'_>>) -> Result<Option<Self>> {
        view.map(|view| Operand::laid_out(name, role, view, view.layout().clone())).transpose()
    }

    /// A tensor under a layout of the problem's shape that is known to be within its memory.
    pub(super) fn laid_out(name: &'static str, role: Role, view: &View<'_>, layout: Layout) -> Result<Self> {
        let address = address_of(name, view)?;
        Ok(Operand { name, role, address, dtype: view.dtype(), layout: Some(layout) })
    }

    /// The indices of elements of this shape, as if they were places in memory, where a norm has dropout.
    pub(super) fn element(spec: &Norm) -> Option<Self> {
        spec.fusion.dropout.map(|_| Operand {
            name: "element",
            role: Role::Number,
            address: 0,
            dtype: DType::F32,
            layout: Some(Layout::contiguous(&spec.shape)),
        })
    }

    /// A plain array of `dtype`, whatever the view says.
    pub(super) fn flat(name: &'static str, view: &View<'_>, dtype: DType) -> Result<Self> {
        Ok(Operand { name, role: Role::Number, address: address_of(name, view)?, dtype, layout: None })
    }

    /// `numbers` numbers for each row of `shape`, whose rows are made of the axes `reduced`.
    pub(super) fn per_row(
        name: &'static str,
        view: Option<&View<'_>>,
        shape: &[usize],
        reduced: &[usize],
        numbers: usize,
    ) -> Result<Option<Self>> {
        let Some(view) = view else { return Ok(None) };
        let mut strides: Dims<isize> = Dims::from_elem(0, shape.len());
        let mut stride = numbers as isize;
        for axis in (0..shape.len()).rev().filter(|axis| !reduced.contains(axis)) {
            strides[axis] = stride;
            stride = stride.wrapping_mul(shape[axis].max(1) as isize);
        }
        let layout = Layout::strided(shape, &strides, view.layout().offset())?;
        Operand::laid_out(name, Role::Number, view, layout).map(Some)
    }
}

fn address_of(name: &'static str, view: &View<'_>) -> Result<u64> {
    match &view.memory {
        Memory::Cuda(range) => Ok(range.address()),
        _ => Err(Error::argument(name, "memory on the cuda device", "memory elsewhere")),
    }
}

/// Operands over one index space.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) compute: DType,
    pub(super) grid: Grid,
    operands: Vec<(Operand, Option<Walk>)>,
    /// What the columns that a thread works on at a time divide; 0 where it does not matter.
    run: usize,
}

/// One launch over rows of a problem.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) entry: Entry,
    pub(super) shape: Shape,
    pub(super) flags: Flags,
    pub(super) rows: Range<usize>,
    pub(super) scalars: Scalars,
    pub(super) blocks: usize,
}

/// A launch, but for its compiled kernel.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) variant: Variant,
    /// What each of its problems is told, usually of one.
    pub(super) problems: SmallVec<[Told; 1]>,
}

impl Planned {
    /// Blocks of all of its problems.
    pub(super) fn blocks(&self) -> usize {
        self.problems.iter().map(|told| told.blocks).sum()
    }
}

impl Problem {
    /// Folds `shape` with its axes `reduced` as rows of the operands.
    pub(super) fn new(
        compute: DType,
        shape: &[usize],
        reduced: &[usize],
        operands: impl IntoIterator<Item = Option<Operand>>,
    ) -> Self {
        let operands: Vec<Operand> = operands.into_iter().flatten().collect();
        let layouts: SmallVec<[&Layout; 8]> = operands.iter().filter_map(|op| op.layout.as_ref()).collect();
        let (grid, walks) = fold(shape, reduced, &layouts);
        drop(layouts);
        let mut walks = walks.into_iter();
        let with_walk = |op: Operand| {
            let walk = op.layout.as_ref().and_then(|_| walks.next());
            (op, walk)
        };
        let operands = operands.into_iter().map(with_walk).collect();
        Problem { compute, grid, operands, run: 0 }
    }

    /// The same, where the columns that a thread works on at a time must divide `run`.
    pub(super) fn in_runs(self, run: usize) -> Self {
        Problem { run, ..self }
    }

    /// The most columns at a time, up to `most`, at which no tensor has to be reached element by element.
    pub(super) fn width(&self, most: u32) -> u32 {
        let tensors = || self.operands.iter().filter(|(op, _)| op.role != Role::Number);
        let mut width = most;
        while width > 1 {
            let fits = self.grid.cols.is_multiple_of(width as usize)
                && self.run.is_multiple_of(width as usize)
                && tensors().all(|(op, walk)| self.access(op, walk.as_ref(), width) != Access::Element);
            if fits {
                break;
            }
            width /= 2;
        }
        width
    }

    /// How an operand's elements of `width` neighbouring columns are reached, wherever in the problem they are.
    fn access(&self, op: &Operand, walk: Option<&Walk>, width: u32) -> Access {
        let Some(walk) = walk.filter(|_| width > 1) else { return Access::Element };
        let width = width as usize;
        let in_runs = self.grid.inner.last().is_some_and(|size| size.is_multiple_of(width));
        let last = walk.inner.last();
        if op.role != Role::Store && (walk.is_constant_in_row() || in_runs && last == Some(&0)) {
            return Access::Splat;
        }
        let size = op.dtype.size();
        // Elements of one access, of which several may make up the width.
        let at_once = width.min(16 / size);
        let first = (op.address as usize).wrapping_add(walk.offset.wrapping_mul(size));
        let is_aligned = |stride: &isize| stride.unsigned_abs().is_multiple_of(at_once);
        let others = walk.inner.iter().rev().skip(1);
        let is_vector = op.role != Role::Number
            && first.is_multiple_of(at_once * size)
            && walk.outer.iter().all(is_aligned)
            && (walk.contiguous && self.grid.cols.is_multiple_of(width)
                || in_runs && last == Some(&1) && others.into_iter().all(is_aligned));
        if is_vector { Access::Vector } else { Access::Element }
    }

    /// What is to be launched.
    pub(super) fn plan(&self, task: Task) -> Result<Planned> {
        let Task { entry, shape, flags, rows, mut scalars, blocks } = task;
        if blocks > geometry::MOST_BLOCKS {
            return Err(fault::limit("blocks", geometry::MOST_BLOCKS, blocks));
        }
        scalars.first_row = rows.start as i64;
        scalars.rows = rows.len() as i64;
        scalars.cols = self.grid.cols as i64;
        let strides = |walk: fn(&Walk) -> &Dims<isize>| -> Vec<Option<&Dims<isize>>> {
            self.operands.iter().map(|(_, of)| of.as_ref().map(walk)).collect()
        };
        let outer = table(&self.grid.outer, &strides(|walk| &walk.outer));
        let inner = table(&self.grid.inner, &strides(|walk| &walk.inner));
        let slots = self.operands.iter().map(|(op, walk)| Slot {
            name: op.name,
            dtype: op.dtype,
            access: self.access(op, walk.as_ref(), shape.width),
        });
        let variant = Variant {
            entry,
            compute: self.compute,
            slots: slots.collect(),
            axes: (outer.len() as u32, inner.len() as u32),
            wide: self.grid.cols > i32::MAX as usize,
            problems: 1,
            shape,
            flags,
        };
        let address = |(op, walk): &(Operand, Option<Walk>)| {
            let offset = walk.as_ref().map_or(0, |walk| walk.offset);
            op.address.wrapping_add((offset as u64).wrapping_mul(op.dtype.size() as u64))
        };
        let addresses: SmallVec<[u64; 8]> = self.operands.iter().map(address).collect();
        let told = Told { scalars, addresses, outer, inner, blocks };
        Ok(Planned { variant, problems: smallvec![told] })
    }
}

/// Axes as `Params` has them, slowest first, in few lengths, so that few kernels are compiled: axes of one index come
/// before the others.
fn table(sizes: &[usize], strides: &[Option<&Dims<isize>>]) -> Vec<Axis> {
    let length = [1, 2, 4, 8].into_iter().find(|&length| sizes.len() <= length).unwrap_or(sizes.len());
    let missing = length - sizes.len();
    let mut axes = vec![Axis::single(strides.len()); length];
    for (at, (axis, &size)) in axes[missing..].iter_mut().zip(sizes).enumerate() {
        axis.size = size as i64;
        for (to, from) in axis.strides.iter_mut().zip(strides) {
            *to = from.map_or(0, |strides| strides[at] as i64);
        }
    }
    axes
}

/// Compiles what has not been compiled yet, and enqueues the launches in their order.
pub(super) fn enqueue(stream: &CudaStream<'_>, what: &str, planned: Vec<Planned>) -> Result<()> {
    let planned: Vec<Planned> = planned.into_iter().filter(|planned| planned.blocks() > 0).collect();
    if planned.is_empty() {
        return Ok(());
    }
    let variants: Vec<&Variant> = planned.iter().map(|planned| &planned.variant).collect();
    if stream.list(&variants) {
        return Ok(());
    }
    let functions: Vec<Function> = stream.device().functions().get(stream, &variants)?;
    let launch = |(planned, function): (Planned, Function)| Launch {
        function,
        grid: planned.blocks() as u64,
        block: planned.variant.shape.block(),
        shared: planned.variant.shared_bytes(),
        cluster: planned.variant.shape.cluster,
        params: params::bytes(planned.variant.compute, &planned.problems),
    };
    let launches: Vec<Launch> = planned.into_iter().zip(functions).map(launch).collect();
    stream.run(what, &launches)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An operand of bf16 elements at `address`.
    fn operand(name: &'static str, role: Role, address: u64, layout: Layout) -> Option<Operand> {
        Some(Operand { name, role, address, dtype: DType::BF16, layout: Some(layout) })
    }

    fn strided(shape: &[usize], strides: &[isize], offset: usize) -> Layout {
        Layout::strided(shape, strides, offset).unwrap()
    }

    /// The width at which a tensor of one row layout can be read, beside nothing else.
    fn width_of(shape: &[usize], reduced: &[usize], address: u64, layout: Layout) -> u32 {
        let problem =
            Problem::new(DType::F32, shape, reduced, [operand("input", Role::Load, address, layout)]);
        problem.width(8)
    }

    #[test]
    fn columns_are_read_together_as_far_as_addresses_and_strides_allow() {
        let matrix = || Layout::contiguous(&[3, 64]);
        assert_eq!(width_of(&[3, 64], &[1], 256, matrix()), 8);
        assert_eq!(width_of(&[3, 64], &[1], 264, matrix()), 4);
        assert_eq!(width_of(&[3, 64], &[1], 258, matrix()), 1);
        assert_eq!(width_of(&[3, 64], &[1], 256, strided(&[3, 64], &[66, 1], 0)), 2);
        assert_eq!(width_of(&[3, 64], &[1], 256, strided(&[3, 64], &[64, 1], 4)), 4);
        assert_eq!(width_of(&[3, 64], &[1], 256, strided(&[3, 64], &[-64, 1], 128)), 8);
        assert_eq!(width_of(&[3, 63], &[1], 256, strided(&[3, 63], &[64, 1], 0)), 1);
        assert_eq!(width_of(&[3, 64], &[0], 256, matrix()), 1);
        // The same element everywhere.
        assert_eq!(width_of(&[3, 64], &[1], 258, strided(&[3, 64], &[1, 0], 0)), 8);
        // Several axes: runs of four.
        assert_eq!(width_of(&[3, 5, 4], &[1, 2], 256, strided(&[3, 5, 4], &[40, 8, 1], 0)), 4);
        assert_eq!(width_of(&[3, 5, 4], &[1, 2], 256, strided(&[3, 5, 4], &[40, 6, 1], 0)), 2);
    }

    #[test]
    fn wide_elements_need_the_alignment_of_one_access() {
        let shape = [2, 64];
        let weight = |address| Operand {
            name: "weight",
            role: Role::Load,
            address,
            dtype: DType::F32,
            layout: Some(strided(&shape, &[0, 1], 0)),
        };
        for (address, width) in [(512 + 16, 8), (512 + 8, 2)] {
            let input = operand("input", Role::Load, 256, Layout::contiguous(&shape));
            let problem = Problem::new(DType::F32, &shape, &[1], [input, Some(weight(address))]);
            assert_eq!(problem.width(8), width);
        }
    }

    #[test]
    fn launches_are_told_where_index_zero_lies() {
        let shape = [4, 6];
        let output = strided(&shape, &[-6, 1], 18);
        let operands = [
            operand("input", Role::Load, 1024, Layout::contiguous(&shape)),
            operand("output", Role::Store, 2048, output),
        ];
        let problem = Problem::new(DType::F32, &shape, &[1], operands);
        let shape = geometry::apart(2);
        let planned = problem
            .plan(Task {
                entry: Entry::NormForward,
                shape,
                flags: Flags::default(),
                rows: 1..4,
                scalars: Scalars::default(),
                blocks: 1,
            })
            .unwrap();
        let params = params::bytes(planned.variant.compute, &planned.problems);
        let number = |at: usize| i64::from_ne_bytes(params[at..at + 8].try_into().unwrap());
        assert_eq!((number(0), number(8), number(16)), (1, 3, 6));
        assert_eq!((number(256), number(264)), (1024, 2048 + 2 * 18));
        // The axis of rows, then that of columns: size and strides.
        assert_eq!([272, 280, 288, 296, 304, 312].map(number), [4, 6, -6, 6, 1, 1]);
        assert_eq!(params.len(), 320);
        let Variant { axes, wide, slots, .. } = planned.variant;
        assert_eq!(
            (axes, wide, slots[0].access, slots[1].access),
            ((1, 1), false, Access::Vector, Access::Vector)
        );
    }

    #[test]
    fn tables_of_axes_have_few_lengths() {
        let strides = Dims::from_slice(&[12, 4, 1]);
        let axes = table(&[2, 3, 4], &[Some(&strides), None]);
        let sizes: Vec<i64> = axes.iter().map(|axis| axis.size).collect();
        assert_eq!(sizes, [1, 2, 3, 4]);
        assert_eq!(axes[0].strides, [0, 0]);
        assert_eq!(axes[3].strides, [1, 0]);
        assert_eq!(table(&[], &[None]).len(), 1);
        assert_eq!(table(&[2; 9], &[]).len(), 9);
    }
}
