//! Gradients of parameters: sums over rows, in chunks whose partial sums live in the workspace.

use super::fusion::{self, After, Before};
use super::inner;
use super::launch::{Operand, Planned, Problem, Role, Task};
use super::norm::rounds;
use super::params::Scalars;
use super::variant::{Entry, Flags};
use super::{CudaStream, geometry};
use crate::backend::{Backward, params_per_column};
use crate::plan::tree;
use crate::spec::{Affine, Epilogue, Norm, STATISTICS, SUMS, Spec};
use crate::tensor::{DType, Dims, Layout, View};
use crate::{Result, Workspace};

/// How the sums over rows are cut. Partial sums lie as [parameter][chunk][column], then come the leaves' sums of a
/// parameter that columns share.
pub(super) struct Sums {
    compute: DType,
    wanted: [bool; 3],
    chunk_rows: usize,
    chunks: usize,
    cols: usize,
    leaves: usize,
}

/// What the terms of a norm's gradients are made of.
pub(super) enum Source<'s> {
    /// The tensors, whose elements have a parameter each.
    Tensors {
        operands: &'s Backward<'s>,
        statistics: &'s View<'s>,
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
    pub(super) compute: DType,
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
        stream: &CudaStream<'_>,
    ) -> Result<Vec<Planned>> {
        let (shape, affine) = (&self.spec.shape[..], &self.spec.affine);
        // The axes that were summed are gone: each place of the others has one sum.
        let summed: &[usize] = if let Source::Sums { reduced, .. } = &source { reduced } else { &[] };
        let left: Dims = (0..shape.len()).filter(|axis| !summed.contains(axis)).collect();
        let sizes: Dims = left.iter().map(|&axis| shape[axis]).collect();
        let (at, others): (Dims, Dims) = (0..left.len()).partition(|&at| affine.axes.contains(&left[at]));
        let count = |axes: &Dims| -> usize { axes.iter().map(|&at| sizes[at]).product() };
        let sums = self.sums(count(&others));
        let scratch = stream.workspace(workspace, sums.bytes())?;
        let per_row = |name, view, reduced, numbers| {
            Operand::per_row(name, Some(view), if reduced { shape } else { &sizes }, &[], numbers)
        };
        let partials = Some(Operand::flat("partials", &scratch, self.compute)?);
        let run = match &source {
            Source::Tensors { operands, .. } => {
                fusion::run(operands.rotary.as_ref(), shape.last().copied().unwrap_or(0))
            }
            Source::Sums { .. } => 0,
        };
        let (operands, flags, dtype) = match &source {
            Source::Tensors { operands, statistics, given } => {
                let (tensors, flags) = self.tensors(operands, statistics, *given, partials)?;
                (tensors, flags, operands.grad_output.dtype())
            }
            Source::Sums { view, .. } => {
                // What decides how sums of tensors are made says nothing about those of rows.
                let flags = Flags { from_sums: true, ..Flags::default() };
                (vec![per_row("sums", *view, false, SUMS)?, partials], flags, self.compute)
            }
        };
        let problem = Problem::new(self.compute, &sizes, &at, operands).in_runs(run);
        let mut planned = vec![sums.partials(&problem, Entry::Affine, flags, self.scalars, stream, dtype)?];
        planned.extend(self.finish(&sums, &scratch)?);
        Ok(planned)
    }

    /// What the terms are made of where elements have a parameter each, and how.
    fn tensors(
        &self,
        operands: &Backward<'_>,
        statistics: &View<'_>,
        given: Option<&View<'_>>,
        partials: Option<Operand>,
    ) -> Result<(Vec<Option<Operand>>, Flags)> {
        let Backward { grad_output, input, weight, bias, before, after, rotary, mask, .. } = operands;
        let Norm { shape, reduced, fusion: around, .. } = self.spec;
        let [cos, sin, positions] = fusion::tables(rotary.as_ref(), shape.last().copied().unwrap_or(0))?;
        // What the norm gave is made again where the gradient depends on it.
        let gives = around.epilogue.is_curved();
        let normalizes = gives || self.wanted[0].is_some() || self.branch;
        let statistics = Some(statistics).filter(|_| normalizes);
        let before = before.as_ref().filter(|_| normalizes);
        let after = after.as_ref().filter(|_| around.epilogue == Epilogue::Gate);
        let weight = weight.as_ref().filter(|_| gives || self.branch);
        let again =
            if before.is_some() { inner::Again::of(self.spec, operands)? } else { inner::Again::default() };
        let [inner_weight, inner_bias, inner_statistics, ..] = again.operands;
        let Backward { grad_hidden, branch_bias, branch_scale, .. } = operands;
        let tensors = vec![
            Operand::new("grad_output", Role::Load, Some(grad_output))?,
            Operand::new("input", Role::Load, Some(input).filter(|_| normalizes))?,
            Operand::new("before", Role::Load, before)?,
            Operand::new("after", Role::Load, after)?,
            Operand::new("weight", Role::Load, weight)?,
            Operand::new("bias", Role::Load, bias.as_ref().filter(|_| gives))?,
            Operand::new("mask", Role::Load, mask.as_ref())?,
            Operand::per_row("statistics", statistics, shape, reduced, STATISTICS)?,
            cos,
            sin,
            positions,
            Operand::element(self.spec).filter(|_| before.is_some() || self.branch),
            Operand::new("branch_bias", Role::Load, branch_bias.as_ref().filter(|_| before.is_some()))?,
            Operand::new(
                "branch_scale",
                Role::Load,
                branch_scale.as_ref().filter(|_| before.is_some() || self.branch),
            )?,
            Operand::new("grad_hidden", Role::Load, grad_hidden.as_ref().filter(|_| self.branch))?,
            Operand::per_row("given", given, shape, reduced, SUMS)?,
            inner_weight,
            inner_bias,
            inner_statistics,
            partials,
        ];
        let flags = Flags {
            round: normalizes && rounds(self.spec, input.dtype()),
            offset: weight.is_some() && self.spec.weight_offset != 0.0,
            inner: again.flags,
            before: if before.is_some() || self.branch { Before::of(*around) } else { Before::None },
            after: if gives || after.is_some() || rotary.is_some() {
                After::of(around.epilogue)
            } else {
                After::None
            },
            ..match self.branch {
                // The norm's own gradient.
                true => self.flags,
                false => Flags { kind: self.flags.kind.applied(), ..Flags::default() },
            }
        };
        Ok((tensors, flags))
    }

    /// The launches of which the first, which `launch` makes, computes the input's gradient as well; `None` if it makes none.
    /// Each of a row's columns has its own parameters, the same in all `rows` rows.
    pub(super) fn fused(
        &self,
        rows: usize,
        workspace: &mut Workspace,
        stream: &CudaStream<'_>,
        launch: impl FnOnce(&Sums, &View<'_>) -> Result<Option<Planned>>,
    ) -> Result<Option<Vec<Planned>>> {
        let sums = self.sums(rows);
        let scratch = stream.workspace(workspace, sums.bytes())?;
        let Some(first) = launch(&sums, &scratch)? else { return Ok(None) };
        Ok(Some([vec![first], self.finish(&sums, &scratch)?].concat()))
    }

    /// How the sums over `rows` rows are cut.
    fn sums(&self, rows: usize) -> Sums {
        let cols = self.spec.affine.axes.iter().map(|&axis| self.spec.shape[axis]).product();
        let wanted = [self.wanted[0].is_some(), self.wanted[1].is_some(), false];
        Sums::new(self.compute, wanted, params_per_column(&Spec::Norm(self.spec.clone())), rows, cols)
    }

    /// The launches that add the chunks and write the gradients.
    fn finish(&self, sums: &Sums, scratch: &View<'_>) -> Result<Vec<Planned>> {
        let wanted = self.wanted.iter().enumerate().filter_map(|(index, view)| Some((index, (*view)?)));
        wanted.map(|(index, view)| sums.finish(scratch, Some((view, &self.spec.affine)), index)).collect()
    }
}

impl Sums {
    /// `params` is the number of sums per column that the chunks are planned for.
    pub(super) fn new(compute: DType, wanted: [bool; 3], params: usize, rows: usize, cols: usize) -> Self {
        let chunk_rows = tree::chunk_rows(rows, cols, params, compute.size());
        let leaves = if wanted[2] { cols.div_ceil(tree::LEAF) } else { 0 };
        Sums { compute, wanted, chunk_rows, chunks: rows.div_ceil(chunk_rows), cols, leaves }
    }

    /// Chunks that the rows are cut into.
    pub(super) fn chunks(&self) -> usize {
        self.chunks
    }

    /// Which of weight, bias and alpha are summed.
    pub(super) fn wanted(&self) -> [bool; 3] {
        self.wanted
    }

    /// `scalars` with how the sums are cut.
    pub(super) fn cut(&self, scalars: Scalars) -> Scalars {
        let Scalars { chunk_rows, chunks, partial_cols, .. } = self.scalars(0);
        Scalars { chunk_rows, chunks, partial_cols, leaves: 1, ..scalars }
    }

    fn count(&self) -> usize {
        self.wanted.iter().filter(|&&wanted| wanted).count()
    }

    fn leaf_base(&self) -> usize {
        self.count() * self.chunks.max(1) * self.cols
    }

    /// Bytes of workspace.
    pub(super) fn bytes(&self) -> usize {
        self.compute.size() * (self.leaf_base() + self.leaves)
    }

    /// The numbers that say how the sums are cut, for those of the `index`-th parameter.
    fn scalars(&self, index: usize) -> Scalars {
        let before = self.wanted[..index].iter().filter(|&&wanted| wanted).count();
        Scalars {
            leaves: self.leaves as i64,
            chunk_rows: self.chunk_rows as i64,
            chunks: self.chunks as i64,
            partial_cols: self.cols as i64,
            leaf_base: self.leaf_base() as i64,
            turns: 1,
            parameter: before as u32,
            ..Scalars::default()
        }
    }

    /// The launch that writes the partial sums; `dtype` is that of the tensors that are read.
    pub(super) fn partials(
        &self,
        problem: &Problem,
        entry: Entry,
        flags: Flags,
        scalars: Scalars,
        stream: &CudaStream<'_>,
        dtype: DType,
    ) -> Result<Planned> {
        let most = geometry::most_width(&stream.overrides(), dtype, geometry::MOST_SUMMED);
        let width = if flags.from_sums { 1 } else { problem.width(most) };
        let runs = self.cols.div_ceil(width as usize).saturating_mul(self.chunks);
        let shape = geometry::columns(stream.device().limits(), width, runs, self.chunk_rows);
        problem.plan(Task {
            entry,
            shape,
            flags: Flags { sums: self.wanted, ..flags },
            rows: 0..problem.grid.rows,
            scalars: self.cut(scalars),
            blocks: runs.div_ceil(shape.teams as usize),
        })
    }

    /// The launch that adds the chunks of the `index`-th parameter and writes its gradient, or the columns' sums where
    /// there is no gradient to write.
    pub(super) fn finish(
        &self,
        scratch: &View<'_>,
        gradient: Option<(&View<'_>, &Affine)>,
        index: usize,
    ) -> Result<Planned> {
        let partials = Operand::flat("partials", scratch, self.compute)?;
        let mut sizes = Dims::from_slice(&[self.cols]);
        let mut target = None;
        if let Some((view, affine)) = gradient {
            let own = affine.contract(view.layout())?;
            sizes = Dims::from_slice(own.shape());
            target = Some(Operand::laid_out("gradient", Role::Store, view, own)?);
        }
        let axes: Dims = (0..sizes.len()).collect();
        let problem = Problem::new(self.compute, &sizes, &axes, [Some(partials), target]);
        let shape = geometry::chunks(self.chunks);
        problem.plan(Task {
            entry: Entry::Finish,
            shape,
            flags: Flags::default(),
            rows: 0..1,
            scalars: self.scalars(index),
            blocks: self.cols.div_ceil(shape.teams as usize),
        })
    }

    /// The launches that add the columns' sums of the `index`-th parameter and write its gradient, one element.
    pub(super) fn total(
        &self,
        scratch: &View<'_>,
        gradient: &View<'_>,
        index: usize,
    ) -> Result<[Planned; 2]> {
        let partials = Operand::flat("partials", scratch, self.compute)?;
        let problem = Problem::new(self.compute, &[self.cols], &[0], [Some(partials)]);
        let leaves = problem.plan(Task {
            entry: Entry::Leaves,
            shape: geometry::lanes(self.cols),
            flags: Flags::default(),
            rows: 0..1,
            scalars: self.scalars(index),
            blocks: self.leaves,
        })?;
        let own = Layout::strided(&[1], &[1], gradient.layout().offset())?;
        let operands = [
            Some(Operand::flat("partials", scratch, self.compute)?),
            Some(Operand::laid_out("gradient", Role::Number, gradient, own)?),
        ];
        let problem = Problem::new(self.compute, &[1], &[0], operands);
        let total = problem.plan(Task {
            entry: Entry::Total,
            shape: geometry::adding(self.leaves),
            flags: Flags::default(),
            rows: 0..1,
            scalars: self.scalars(index),
            blocks: 1,
        })?;
        Ok([leaves, total])
    }
}
