//! How the rows of a norm's pass are worked on: which threads take them, whole or leaf by leaf, in which launches.

use super::CudaStream;
use super::fusion::{After, Before};
use super::geometry::{self, MOST_WIDTH};
use super::launch::{Planned, Problem, Task};
use super::params::Scalars;
use super::stream::Scratch;
use super::sums::Sums;
use super::variant::{Entry, Flags, Shape, Style};
use crate::Result;
use crate::backend::kind::Kind;
use crate::plan::tree;
use crate::spec::Norm;
use crate::tensor::{DType, View};

/// How a norm's rows, those of the axes `reduced`, are worked on.
pub(super) struct Schedule<'s> {
    stream: &'s CudaStream<'s>,
    pub(super) compute: DType,
    style: Style,
    pub(super) rows: usize,
    cols: usize,
    /// Each leaf of a row is a task of its own, however much a block could take.
    is_split: bool,
}

/// A kernel over rows.
pub(super) struct Pass<'a> {
    pub(super) problem: &'a Problem,
    pub(super) entry: Entry,
    pub(super) flags: Flags,
    pub(super) scalars: Scalars,
    /// The tensors whose elements it needs more than once, or needs to make such, by their dtypes; the first is the input.
    pub(super) read: &'a [DType],
}

impl<'s> Schedule<'s> {
    /// What becomes of an element of a row that `is_whole` needs all of it.
    pub(super) fn new(
        spec: &Norm,
        reduced: &[usize],
        is_whole: bool,
        input: &View<'_>,
        stream: &'s CudaStream<'s>,
    ) -> Self {
        let overrides = stream.overrides();
        let size = |wanted: bool| -> usize {
            let axes = (0..spec.shape.len()).filter(|axis| reduced.contains(axis) == wanted);
            axes.map(|axis| spec.shape[axis]).product()
        };
        let (rows, cols) = (size(false), size(true));
        let style = match geometry::style(&overrides, &spec.shape, reduced, input.layout()) {
            // Threads of its blocks have one leaf of a row.
            Style::Column if is_whole && cols > tree::LEAF => Style::Row,
            style => style,
        };
        let is_split =
            !is_whole && geometry::is_split(stream.device().limits(), &overrides, style, [rows, cols]);
        Schedule { stream, compute: input.dtype().compute(), style, rows, cols, is_split }
    }

    /// The same, computed in another dtype than the input asks for.
    pub(super) fn in_dtype(self, compute: DType) -> Self {
        Schedule { compute, ..self }
    }

    /// Columns of a row.
    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    /// Leaves of a row.
    pub(super) fn leaves(&self) -> usize {
        self.cols.div_ceil(tree::LEAF)
    }

    /// `numbers` numbers of scratch for each of `parts` parts of each row.
    pub(super) fn scratch(&self, parts: usize, numbers: usize) -> Result<Scratch> {
        let numbers = self.rows.saturating_mul(parts.max(1)).saturating_mul(numbers);
        self.stream.scratch(numbers.saturating_mul(self.compute.size()))
    }

    /// The launches over all rows, each a task; `None` where rows are split instead.
    pub(super) fn whole(&self, pass: &Pass<'_>) -> Result<Option<Vec<Planned>>> {
        let shape = if self.is_split { None } else { self.shape(pass, false) };
        shape.map(|shape| self.launches(pass, shape, false)).transpose()
    }

    /// The launches over all leaves of all rows, each a task.
    pub(super) fn leaf_by_leaf(&self, pass: &Pass<'_>) -> Result<Vec<Planned>> {
        let shape = self.shape(pass, true);
        shape.map_or(Ok(Vec::new()), |shape| self.launches(pass, shape, true))
    }

    /// The launches that apply what is known of each row, to each leaf by itself where it has several.
    pub(super) fn apply(&self, pass: &Pass<'_>) -> Result<Vec<Planned>> {
        let split = self.is_split || self.cols > tree::LEAF;
        let shape = self.shape(pass, split);
        shape.map_or(Ok(Vec::new()), |shape| self.launches(pass, shape, split))
    }

    /// The launch that also takes the parameters' `sums` over rows; `None` where a kernel of its own does.
    pub(super) fn fused(&self, pass: &Pass<'_>, sums: &Sums) -> Result<Option<Planned>> {
        let Some(rows) = self.geometry(pass, self.is_split) else { return Ok(None) };
        let (limits, overrides) = (self.stream.device().limits(), self.stream.overrides());
        let Some(shape) = geometry::fused(limits, &overrides, &rows, sums.chunks()) else { return Ok(None) };
        let &Pass { problem, entry, flags, scalars, .. } = pass;
        let scalars = sums.cut(scalars);
        let task = Task { entry, shape, flags, rows: 0..self.rows, scalars, blocks: sums.chunks() };
        problem.plan(task).map(Some)
    }

    /// How rows or leaves are shared out.
    fn shape(&self, pass: &Pass<'_>, split: bool) -> Option<Shape> {
        let rows = self.geometry(pass, split)?;
        geometry::norm(self.stream.device().limits(), &self.stream.overrides(), &rows)
    }

    /// What that depends on.
    fn geometry<'p>(&self, pass: &Pass<'p>, split: bool) -> Option<geometry::Rows<'p>> {
        let most = geometry::most_width(&self.stream.overrides(), *pass.read.first()?, MOST_WIDTH);
        // What is only applied is read once; powers of each kept element would be written out one after the other.
        let is_kept = pass.flags.compute && pass.flags.kind != Kind::Power;
        Some(geometry::Rows {
            style: self.style,
            compute: self.compute,
            cols: self.cols,
            split,
            width: if self.style == Style::Row { pass.problem.width(most) } else { 1 },
            read: if is_kept { pass.read } else { &[] },
            bends: !matches!(pass.flags.after, After::None | After::Residual),
            joins: pass.flags.before != Before::None,
        })
    }

    fn launches(&self, pass: &Pass<'_>, shape: Shape, split: bool) -> Result<Vec<Planned>> {
        let &Pass { problem, entry, flags, scalars, .. } = pass;
        let leaves = if split { self.leaves() } else { 1 };
        let flags = Flags { split, ..flags };
        let scalars = Scalars { leaves: leaves as i64, ..scalars };
        // Rows without columns have nothing to do.
        let end = if self.cols > 0 { self.rows } else { 0 };
        let step = geometry::rows_at_once(&shape, leaves.max(1)).max(1);
        (0..end)
            .step_by(step)
            .map(|first| {
                let rows = first..end.min(first.saturating_add(step));
                let blocks = geometry::blocks(&shape, rows.len(), leaves);
                problem.plan(Task { entry, shape, flags, rows, scalars, blocks })
            })
            .collect()
    }
}
