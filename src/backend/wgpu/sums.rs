//! Gradients of parameters: sums over rows, in chunks whose partial sums live in the workspace.

use super::launch::{Dispatch, Launch, Problem, Scalars};
use super::operand::Operand;
use super::variant::{Entry, Flags, Role, Shape};
use super::{WgpuDevice, WgpuStream, fusion, geometry, inner};
use crate::backend::{Backward, params_per_column};
use crate::plan::tree;
use crate::spec::{Affine, Norm, STATISTICS, SUMS, Spec};
use crate::tensor::{Dims, Layout, View};
use crate::{Result, Workspace};
use std::ops::Range;

/// How the sums over rows are cut. Partial sums are laid out as [parameter][chunk][column], then the leaves' sums of a
/// parameter that columns share.
pub(super) struct Sums {
    wanted: [bool; 3],
    chunk_rows: usize,
    chunks: usize,
    /// Columns that are summed at a time: all, unless a single chunk of them exceeds the workspace.
    block: usize,
    leaves: usize,
}

/// What the terms of a norm's gradients are made of.
pub(super) enum Source<'s> {
    /// The tensors, whose elements have a parameter each.
    Tensors {
        operands: &'s Backward<'s>,
        statistics: Option<&'s View<'s>>,
        /// The sums of rows, for the terms of a branch.
        given: Option<&'s View<'s>>,
    },
    /// Sums over the elements that share a parameter in a row, which are those of the axes `reduced`.
    Sums { view: &'s View<'s>, reduced: &'s [usize] },
}

/// The gradients of a norm's weight and bias, or of a branch's scale and bias.
#[derive(Clone, Copy)]
pub(super) struct Parameters<'s> {
    pub(super) spec: &'s Norm,
    pub(super) flags: Flags,
    pub(super) scalars: Scalars,
    pub(super) wanted: [Option<&'s View<'s>>; 2],
    pub(super) branch: bool,
}

impl Parameters<'_> {
    pub(super) fn launches(
        &self,
        source: Source<'_>,
        workspace: &mut Workspace,
        stream: &WgpuStream<'_>,
    ) -> Result<Vec<Dispatch>> {
        let device = stream.device();
        let (shape, affine) = (&self.spec.shape[..], &self.spec.affine);
        let cols = self.cols();
        let summed: &[usize] = if let Source::Sums { reduced, .. } = &source { reduced } else { &[] };
        let sums = self.sums(summed);
        let scratch = device.scratch(workspace, sums.bytes())?;
        // The axes that were summed are gone: each place of the others has one sum.
        let gone = |axis: usize| source.sums_over(axis);
        let left: Dims = (0..shape.len()).filter(|&axis| !gone(axis)).collect();
        let sizes: Dims = left.iter().map(|&axis| shape[axis]).collect();
        let at =
            |axes: &[usize]| -> Dims { (0..left.len()).filter(|&at| axes.contains(&left[at])).collect() };
        let mut dispatches = Vec::new();
        for cols in sums.blocks(cols) {
            let partials = Operand::flat("partials", Role::Set, &scratch)?;
            let operands = match &source {
                Source::Tensors { operands, statistics, given } => {
                    let after = self.flags.after;
                    let weight = operands.weight.as_ref().filter(|_| after.is_curved() || self.branch);
                    let grad_hidden = operands.grad_hidden.as_ref().filter(|_| self.branch);
                    let per_row = |name, view, numbers| {
                        let (role, reduced) = (Role::NumberOfColumn, &self.spec.reduced[..]);
                        Operand::per_row(name, role, view, shape, reduced, [numbers, numbers])
                    };
                    let mut all = vec![
                        Operand::new("grad_output", Role::Load, Some(&operands.grad_output))?,
                        Operand::new("input", Role::Load, Some(&operands.input))?,
                        Operand::new("mask", Role::Load, operands.mask.as_ref())?,
                        per_row("statistics", *statistics, STATISTICS)?,
                        per_row("given", *given, SUMS)?,
                        Operand::new("grad_hidden", Role::Load, grad_hidden)?,
                        Operand::new("weight", Role::Load, weight)?,
                        partials,
                    ];
                    let value = after.is_curved();
                    all.extend(fusion::of_terms(self.spec, operands, after, value, self.branch)?);
                    all.extend(inner::of_backward(self.spec, operands, Role::NumberOfColumn)?);
                    all
                }
                Source::Sums { view, .. } => {
                    let role = Role::NumberOfColumn;
                    vec![Operand::per_row("sums", role, Some(view), &sizes, &[], [SUMS, SUMS])?, partials]
                }
            };
            let is_tensors = matches!(source, Source::Tensors { .. });
            let is_counted = is_tensors && self.spec.fusion.dropout.is_some();
            let rotation = fusion::Rotation::of(self.spec).filter(|_| is_tensors);
            let problem = Problem::counted(device, &sizes, &at(&affine.axes), operands, is_counted)?;
            let problem = problem.rotated(rotation);
            let scalars = sums.scalars(&cols, self.scalars);
            let flags = Flags { branch: self.branch && is_tensors, ..self.flags };
            dispatches.extend(sums.partials(&problem, Entry::Affine, flags, &cols, scalars)?);
            dispatches.extend(self.finish(&sums, device, &scratch, &cols)?);
        }
        Ok(dispatches)
    }

    fn cols(&self) -> usize {
        self.spec.affine.axes.iter().map(|&axis| self.spec.shape[axis]).product()
    }

    /// How the sums are cut, where those over the axes `summed` have been taken.
    pub(super) fn sums(&self, summed: &[usize]) -> Sums {
        let kept = |axis: &usize| !self.spec.affine.axes.contains(axis) && !summed.contains(axis);
        let rows = (0..self.spec.shape.len()).filter(kept).map(|axis| self.spec.shape[axis]).product();
        let params = params_per_column(&Spec::Norm(self.spec.clone()));
        Sums::new([self.wanted[0].is_some(), self.wanted[1].is_some(), false], params, rows, self.cols())
    }

    /// The launches that write the gradients of the columns `cols`.
    pub(super) fn finish(
        &self,
        sums: &Sums,
        device: &WgpuDevice,
        scratch: &View<'_>,
        cols: &Range<usize>,
    ) -> Result<Vec<Dispatch>> {
        let wanted = self.wanted.iter().enumerate().filter_map(|(index, view)| Some((index, (*view)?)));
        wanted
            .map(|(index, view)| sums.finish(device, scratch, Some((view, &self.spec.affine)), index, cols))
            .collect()
    }
}

impl Source<'_> {
    fn sums_over(&self, axis: usize) -> bool {
        matches!(self, Source::Sums { reduced, .. } if reduced.contains(&axis))
    }
}

impl Sums {
    /// `params` is the number of sums per column that the chunks are planned for.
    pub(super) fn new(wanted: [bool; 3], params: usize, rows: usize, cols: usize) -> Self {
        let chunk_rows = tree::chunk_rows(rows, cols, params, 4);
        let chunks = rows.div_ceil(chunk_rows);
        let most = tree::PARTIALS_LIMIT / (4 * params) / tree::LEAF * tree::LEAF;
        let block = if chunks <= 1 { cols.min(most) } else { cols };
        let leaves = if wanted[2] { cols.div_ceil(tree::LEAF) } else { 0 };
        Sums { wanted, chunk_rows, chunks, block, leaves }
    }

    /// Whether there is any sum to take.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.contains(&true)
    }

    fn count(&self) -> usize {
        self.wanted.iter().filter(|&&wanted| wanted).count()
    }

    fn leaf_base(&self) -> usize {
        self.count() * self.chunks.max(1) * self.block
    }

    /// Bytes of workspace.
    pub(super) fn bytes(&self) -> usize {
        4 * (self.leaf_base() + self.leaves)
    }

    /// The ranges of columns that are summed one after the other.
    pub(super) fn blocks(&self, cols: usize) -> Vec<Range<usize>> {
        (0..cols).step_by(self.block.max(1)).map(|at| at..cols.min(at + self.block)).collect()
    }

    /// `base` with the numbers of a block.
    pub(super) fn scalars(&self, cols: &Range<usize>, base: Scalars) -> Scalars {
        let col_groups = cols.len().div_ceil(4 * geometry::columns().group as usize);
        Scalars {
            first_col: cols.start as u32,
            end_col: cols.end as u32,
            chunk_rows: self.chunk_rows as u32,
            chunks: self.chunks as u32,
            partial_cols: self.block as u32,
            col_groups: col_groups as u32,
            leaf_base: self.leaf_base() as u32,
            first_leaf: (cols.start / tree::LEAF) as u32,
            turns: 1,
            ..base
        }
    }

    /// The launches that write a block's partial sums.
    pub(super) fn partials(
        &self,
        problem: &Problem<'_>,
        entry: Entry,
        flags: Flags,
        cols: &Range<usize>,
        scalars: Scalars,
    ) -> Result<Vec<Dispatch>> {
        let flags = Flags { sums: self.wanted, ..flags };
        let parts = problem.split(0..problem.grid.rows, cols, tree::ROW_LEAF)?;
        (parts.into_iter())
            .map(|rows| {
                let first_chunk = rows.start / self.chunk_rows;
                let chunks = rows.end.div_ceil(self.chunk_rows) - first_chunk;
                problem.prepare(Launch {
                    entry,
                    shape: geometry::columns(),
                    flags,
                    groups: chunks * scalars.col_groups as usize,
                    rows,
                    cols: cols.clone(),
                    scalars: Scalars { first_chunk: first_chunk as u32, ..scalars },
                })
            })
            .collect()
    }

    /// The launches of a kernel that takes a chunk of whole rows, which `shape` says how to share out; `None` where a
    /// chunk exceeds a binding.
    pub(super) fn fused(
        &self,
        problem: &Problem<'_>,
        shape: Shape,
        flags: Flags,
        scalars: Scalars,
    ) -> Result<Option<Vec<Dispatch>>> {
        let cols = 0..problem.grid.cols;
        let (flags, scalars) = (Flags { sums: self.wanted, ..flags }, self.scalars(&cols, scalars));
        let Ok(parts) = problem.split(0..problem.grid.rows, &cols, self.chunk_rows) else { return Ok(None) };
        (parts.into_iter())
            .map(|rows| {
                let chunks = rows.len().div_ceil(self.chunk_rows);
                let first_chunk = (rows.start / self.chunk_rows) as u32;
                problem.prepare(Launch {
                    entry: Entry::NormBackward,
                    shape,
                    flags,
                    groups: chunks.div_ceil((shape.group / shape.threads) as usize),
                    rows,
                    cols: cols.clone(),
                    scalars: Scalars { first_chunk, ..scalars },
                })
            })
            .collect::<Result<_>>()
            .map(Some)
    }

    /// The launch that adds the chunks of the `index`-th parameter and writes its gradient, or the columns' sums where
    /// there is no gradient to write.
    pub(super) fn finish(
        &self,
        device: &WgpuDevice,
        scratch: &View<'_>,
        gradient: Option<(&View<'_>, &Affine)>,
        index: usize,
        cols: &Range<usize>,
    ) -> Result<Dispatch> {
        let partials = Operand::flat("partials", Role::Set, scratch)?;
        let mut sizes = Dims::from_slice(&[cols.end]);
        let mut own = None;
        if let Some((view, affine)) = gradient {
            let layout = affine.contract(view.layout())?;
            sizes = Dims::from_slice(layout.shape());
            own = Some(view.clone().with_own_layout(layout));
        }
        let gradient = Operand::new("gradient", Role::Store, own.as_ref())?;
        let axes: Dims = (0..sizes.len()).collect();
        let problem = Problem::new(device, &sizes, &axes, [partials, gradient])?;
        let scalars = Scalars { parameter: self.position(index), ..self.scalars(cols, Scalars::default()) };
        problem.prepare(Launch {
            entry: Entry::Finish,
            shape: geometry::columns(),
            flags: Flags { sums: self.wanted, ..Flags::default() },
            rows: 0..1,
            cols: cols.clone(),
            scalars,
            groups: scalars.col_groups as usize,
        })
    }

    /// The launch that sums a block's column sums of the `index`-th parameter to leaves.
    pub(super) fn leaves(
        &self,
        device: &WgpuDevice,
        row: Shape,
        scratch: &View<'_>,
        index: usize,
        cols: &Range<usize>,
    ) -> Result<Dispatch> {
        let leaves = cols.len().div_ceil(tree::LEAF);
        let partials = Operand::flat("partials", Role::Set, scratch)?;
        let problem = Problem::new(device, &[cols.len()], &[0], [partials])?;
        let scalars = self.scalars(cols, Scalars::default());
        let scalars = Scalars { parameter: self.position(index), leaves: leaves as u32, ..scalars };
        problem.prepare(Launch {
            entry: Entry::Leaves,
            shape: Shape { held: 0, exact: false, ..row },
            flags: Flags { split: true, ..Flags::default() },
            rows: 0..1,
            cols: 0..cols.len(),
            groups: geometry::groups(&row, 1, leaves),
            scalars,
        })
    }

    /// The launch that adds all leaves and writes the gradient, one element.
    pub(super) fn total(
        &self,
        device: &WgpuDevice,
        scratch: &View<'_>,
        gradient: &View<'_>,
    ) -> Result<Dispatch> {
        let own = gradient.clone().with_layout(Layout::strided(&[1], &[1], gradient.layout().offset())?)?;
        let operands = [
            Operand::flat("partials", Role::Get, scratch)?,
            Operand::new("gradient", Role::Store, Some(&own))?,
        ];
        let problem = Problem::new(device, &[1], &[0], operands)?;
        problem.prepare(Launch {
            entry: Entry::Total,
            shape: Shape { group: 1, ..geometry::columns() },
            flags: Flags::default(),
            rows: 0..1,
            cols: 0..1,
            scalars: Scalars {
                leaves: self.leaves as u32,
                leaf_base: self.leaf_base() as u32,
                ..Scalars::default()
            },
            groups: 1,
        })
    }

    /// Where the `index`-th parameter is among those that are summed.
    fn position(&self, index: usize) -> u32 {
        self.wanted[..index].iter().filter(|&&wanted| wanted).count() as u32
    }
}
