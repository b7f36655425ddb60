//! A launch of a norm's backward pass: set up, run, and the parameters' gradients finished.

use super::branch::Branch;
use super::chunks::{Chunks, Cut, NORMS, Rows};
use super::inner;
use super::launch::{Folded, Order, alone};
use super::norm::{TASK, choose, elements, kept, row_numbers, streaming};
use super::real::Real;
use super::rotary::{self, Angles, Tables};
use super::row_backward::{self, RowTerms};
use super::split::with_row_sums;
use super::statistics::Constants;
use super::{Cpu, Isa, Schedule, affine, column, column_backward, fused_backward, split};
use crate::backend::{Backward, params_per_column};
use crate::plan::tree::{LEAF, chunk_rows};
use crate::spec::{Norm, STATISTICS, SUMS, Spec};
use crate::tensor::{Overlap, View, ViewMut, overlap};
use crate::{Error, Result};

/// What a launch of a backward pass is for.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The gradients of tensors of the input's shape.
    pub(super) rows: bool,
    /// Those of the parameters.
    pub(super) params: bool,
    /// Sums of rows to use, and where to put those that are taken.
    pub(super) given: Option<&'a View<'a>>,
    pub(super) sums: Option<&'a ViewMut<'a>>,
}

impl<'a> Wanted<'a> {
    /// All that is asked for.
    pub(super) fn all(operands: &'a Backward<'_>) -> Self {
        let of_inner = operands.inner.as_ref();
        let params = operands.grad_weight.is_some()
            || operands.grad_bias.is_some()
            || operands.has_branch()
            || of_inner.is_some_and(|inner| inner.grad_weight.is_some() || inner.grad_bias.is_some())
            || operands.mix.as_ref().is_some_and(|mix| mix.grad_weight.is_some());
        Wanted { rows: true, params, given: operands.given.as_ref(), sums: operands.sums.as_ref() }
    }
}

impl Backward<'_> {
    /// Whether gradients are wanted of what shifts and scales a branch.
    pub(super) fn has_branch(&self) -> bool {
        self.grad_branch_bias.is_some() || self.grad_branch_scale.is_some()
    }
}

/// The index space of a launch, and what it is for.
pub(super) struct Space<'o> {
    order: &'o Order,
    wanted: Wanted<'o>,
    folded: Folded,
    /// What is walked over tables that rows choose from.
    tables: Option<Tables>,
}

/// A launch that only has to be run.
pub(super) struct Pass<'a, F> {
    job: row_backward::Backward<'a, F>,
    fused: Option<fused_backward::Backward<'a, F>>,
    cut: Cut,
    pub(super) schedule: Schedule,
}

/// A target, if a launch is for it.
fn wanted<'v, 'a>(is_wanted: bool, target: &'v Option<ViewMut<'a>>) -> Option<&'v ViewMut<'a>> {
    target.as_ref().filter(|_| is_wanted)
}

impl<'o> Space<'o> {
    pub(super) fn new(
        spec: &Norm,
        operands: &Backward<'_>,
        order: &'o Order,
        of: Wanted<'o>,
        isa: Isa,
    ) -> Result<Self> {
        let Backward { grad_output, input, weight, mask, statistics, .. } = operands;
        let Backward { bias, before, after, rotary, grad_hidden, inner, mix, .. } = operands;
        let (of_inner, mix) = (inner.as_ref(), mix.as_ref());
        let statistics = saved(statistics)?;
        let statistics = row_numbers(spec, STATISTICS, Some(statistics.layout()));
        let given = row_numbers(spec, SUMS, of.given.map(View::layout));
        let sums = row_numbers(spec, SUMS, of.sums.map(ViewMut::layout));
        let [cos, sin, positions] = rotary::layouts(spec, rotary.as_ref());
        let elements = elements(spec);
        let inner_statistics = row_numbers(spec, STATISTICS, of_inner.map(|inner| inner.statistics.layout()));
        let mix_statistics = row_numbers(spec, STATISTICS, mix.map(|mix| mix.statistics.layout()));
        let tensors = [
            Some(grad_output.layout()),
            Some(input.layout()),
            wanted(of.rows, &operands.grad_input).map(ViewMut::layout),
            weight.as_ref().map(View::layout),
            mask.as_ref().map(View::layout),
            statistics.as_ref(),
            given.as_ref(),
            sums.as_ref(),
            bias.as_ref().map(View::layout),
            before.as_ref().map(View::layout),
            after.as_ref().map(View::layout),
            grad_hidden.as_ref().map(View::layout),
            wanted(of.rows, &operands.grad_before).map(ViewMut::layout),
            wanted(of.rows, &operands.grad_after).map(ViewMut::layout),
            elements.as_ref(),
            cos.as_ref(),
            sin.as_ref(),
            positions.as_ref(),
            operands.branch_bias.as_ref().map(View::layout),
            operands.branch_scale.as_ref().map(View::layout),
            of_inner.and_then(|inner| inner.weight.as_ref()).map(View::layout),
            of_inner.and_then(|inner| inner.bias.as_ref()).map(View::layout),
            inner_statistics.as_ref(),
            of_inner.and_then(|inner| inner.hidden.as_ref()).map(View::layout),
            mix.and_then(|mix| mix.weight.as_ref()).map(View::layout),
            mix_statistics.as_ref(),
        ];
        let folded = Folded::new(isa, order, &tensors);
        Ok(Space { order, wanted: of, folded, tables: Tables::of(isa, rotary.as_ref()) })
    }

    pub(super) fn pass<'a, F: Real>(
        &'a self,
        spec: &Norm,
        operands: &'a Backward<'_>,
        cpu: &Cpu,
    ) -> Result<Pass<'a, F>> {
        let Space { order, wanted: of, folded, tables } = self;
        let Backward { grad_output, input, before, after, rotary, grad_hidden, .. } = operands;
        let of_inner = operands.inner.as_ref();
        let [grad_input, grad_before, grad_after] =
            [&operands.grad_input, &operands.grad_before, &operands.grad_after]
                .map(|target| wanted(of.rows, target));
        let [wants_weight, wants_bias, branch_bias, branch_scale] = [
            &operands.grad_weight,
            &operands.grad_bias,
            &operands.grad_branch_bias,
            &operands.grad_branch_scale,
        ]
        .map(|target| wanted(of.params, target).is_some());
        let in_place = grad_input.is_some_and(|to| overlap(grad_output, &to.as_view()) == Overlap::Same);
        let constants = Constants::<F>::new(cpu.isa, spec, folded.grid.cols, input.dtype());
        let axes = &spec.affine.axes[..];
        let is_outer = !axes.iter().any(|axis| spec.reduced.contains(axis));
        let terms = match (of.params, is_outer && constants.rounded.is_none()) {
            (false, _) => RowTerms::None,
            (true, true) => RowTerms::Sums,
            (true, false) => RowTerms::SubRows(order.row_len(&spec.shape, axes, true)),
        };
        let mut job = row_backward::Backward {
            constants,
            rows: folded.grid.rows,
            streamed: streaming(cpu.isa, grad_input),
            grad_output: folded.source("grad_output", grad_output, 0, in_place)?,
            input: folded.source("input", input, 1, false)?,
            grad_input: folded.optional_sink("grad_input", grad_input, 2)?,
            weight: folded.optional("weight", operands.weight.as_ref(), 3)?,
            mask: folded.optional("mask", operands.mask.as_ref(), 4)?,
            statistics: folded.source("statistics", saved(&operands.statistics)?, 5, false)?,
            given: folded.optional("sums", of.given, 6)?,
            sums: folded.optional_sink("sums", of.sums, 7)?,
            is_outer,
            terms,
            wants_weight,
            wants_bias,
            wants_branch: [branch_bias, branch_scale],
        };
        let inner = match of_inner.zip(spec.inner()) {
            None => None,
            Some((inner, norm)) => Some(inner::Backward {
                bias: folded.optional("inner bias", inner.bias.as_ref(), 21)?,
                job: row_backward::Backward {
                    constants: Constants::new(cpu.isa, &norm, folded.grid.cols, input.dtype()),
                    weight: folded.optional("inner weight", inner.weight.as_ref(), 20)?,
                    statistics: folded.source("inner statistics", &inner.statistics, 22, false)?,
                    wants_weight: inner.grad_weight.is_some(),
                    wants_bias: inner.grad_bias.is_some(),
                    wants_branch: [false; 2],
                    ..job
                },
            }),
        };
        let residual = match (&operands.mix, &inner, before) {
            (Some(mix), Some(inner), Some(before)) => Some(inner::Backward {
                bias: None,
                job: row_backward::Backward {
                    input: folded.source("before", before, 9, false)?,
                    weight: folded.optional("weight of the residual's norm", mix.weight.as_ref(), 24)?,
                    statistics: folded.source("residual statistics", &mix.statistics, 25, false)?,
                    grad_input: folded.optional_sink("grad_before", grad_before, 12)?,
                    streamed: streaming(cpu.isa, grad_before),
                    wants_weight: mix.grad_weight.is_some(),
                    wants_bias: false,
                    ..inner.job
                },
            }),
            _ => None,
        };
        if let Some(hidden) = of_inner.and_then(|inner| inner.hidden.as_ref()) {
            job.input = folded.source("hidden", hidden, 23, false)?;
        }
        let fused = match spec.fusion.is_none() {
            true => None,
            false => Some(fused_backward::Backward {
                fusion: spec.fusion,
                inner,
                residual,
                bias: folded.optional("bias", operands.bias.as_ref(), 8)?,
                before: folded.optional("before", before.as_ref(), 9)?,
                after: folded.optional("after", after.as_ref(), 10)?,
                angles: Angles::of(rotary.as_ref(), folded, tables.as_ref(), 15)?,
                grad_hidden: folded.replaced("grad_hidden", grad_hidden.as_ref(), 11, grad_before)?,
                grad_before: folded.optional_sink("grad_before", grad_before, 12)?,
                grad_after: folded.optional_sink("grad_after", grad_after, 13)?,
                kept: kept(spec, folded, 14),
                branch: Branch {
                    bias: folded.optional("branch_bias", operands.branch_bias.as_ref(), 18)?,
                    scale: folded.optional("branch_scale", operands.branch_scale.as_ref(), 19)?,
                },
                job,
            }),
        };
        let (rows, cols) = (folded.grid.rows, folded.grid.cols);
        let is_column = column_backward::is_possible(&job, folded.grid.adjacent());
        let schedule = if fused.is_some() { Schedule::Row } else { choose(cpu, [rows, cols], is_column) };
        let mut cut = Cut { rows, kept: 1, per_row: 0, chunk: TASK.div_ceil(cols.max(1)).min(rows.max(1)) };
        if of.params {
            cut.rows = order.kept_len(&spec.shape, axes, false);
            cut.kept = order.kept_len(&spec.shape, axes, true);
            cut.per_row = job.params_per_row();
            let per_column = params_per_column(&Spec::Norm(spec.clone()));
            cut.chunk = chunk_rows(cut.rows, cut.params(), per_column, size_of::<F>());
        }
        Ok(Pass { job, fused, cut, schedule })
    }

    /// Adds the chunks of a pass that has run, and writes the gradients of the parameters.
    pub(super) fn finish<F: Real>(
        &self,
        spec: &Norm,
        operands: &Backward<'_>,
        pass: &Pass<'_, F>,
        partials: &[F],
        cpu: &Cpu,
    ) -> Result<()> {
        let is_wanted = self.wanted.params;
        let of_norm = [
            ("grad_weight", &operands.grad_weight),
            ("grad_bias", &operands.grad_bias),
            ("grad_branch_bias", &operands.grad_branch_bias),
            ("grad_branch_scale", &operands.grad_branch_scale),
        ]
        .map(|(name, target)| (name, wanted(is_wanted, target)));
        let of_inner = operands.inner.as_ref();
        let of_inner = [
            ("inner grad_weight", of_inner.and_then(|inner| wanted(is_wanted, &inner.grad_weight))),
            ("inner grad_bias", of_inner.and_then(|inner| wanted(is_wanted, &inner.grad_bias))),
        ];
        let of_residual = operands.mix.as_ref().and_then(|mix| wanted(is_wanted, &mix.grad_weight));
        let of_residual = [("grad_weight of the residual's norm", of_residual)];
        let mut left = partials;
        for (sums, targets) in pass.sums().into_iter().zip([&of_norm[..], &of_inner, &of_residual]) {
            let (partials, others) = left.split_at(pass.each() * sums);
            left = others;
            let targets = targets.iter().filter_map(|&(name, target)| Some((name, target?)));
            for (index, (name, target)) in targets.enumerate() {
                let params = pass.cut.params();
                let (stride, offset) = (params * sums, index * params);
                let layout = self.order.parameter(&spec.affine.axes, target.layout());
                let alone = alone(cpu.isa, &layout, 0);
                affine::finish(&alone.sink(name, target, 0)?, partials, stride, offset, params, cpu);
            }
        }
        Ok(())
    }
}

impl<'a, F: Real> Pass<'a, F> {
    /// Sums of each parameter that are wanted, by the norm, by that of a branch and by that of a residual.
    fn sums(&self) -> [usize; NORMS] {
        let [inner, residual] = self.fused.as_ref().map_or([None, None], fused_backward::Backward::inners);
        [self.job.wanted(), inner.map_or(0, |job| job.wanted()), residual.map_or(0, |job| job.wanted())]
    }

    /// Parameters of all chunks.
    fn each(&self) -> usize {
        self.cut.chunks() * self.cut.params()
    }

    /// Numbers of the chunks' sums.
    pub(super) fn numbers(&self) -> usize {
        self.each() * self.sums().iter().sum::<usize>()
    }

    /// Its tasks where its schedule is that for rows.
    pub(super) fn chunks<'j>(&'j self, partials: &'j mut [F]) -> Chunks<'j, 'a, F> {
        let [of_norm, of_inner, _] = self.sums();
        let (of_norm, others) = partials.split_at_mut(self.each() * of_norm);
        let (of_inner, of_residual) = others.split_at_mut(self.each() * of_inner);
        Chunks::new(&self.job, self.cut, [of_norm, of_inner, of_residual], Rows::of(self.fused.as_ref()))
    }

    /// Runs all rows by another schedule.
    pub(super) fn run(&self, partials: &mut [F], cpu: &Cpu) {
        let Pass { job, cut, .. } = self;
        let (rows, cols, adjacent) = (job.rows, job.constants.cols, job.input.grid().adjacent());
        match self.schedule {
            Schedule::Column if cols <= LEAF => {
                let width = column_backward::backward_width(cpu, job, adjacent);
                with_row_sums(job, job.terms == RowTerms::Sums, |sums| {
                    cpu.for_each(column::Rows::blocks(rows, adjacent, width), width * cols, |block| {
                        let block = column::Rows::block(block, adjacent, width);
                        column_backward::backward(job, block, |i, s| sums.put(block.first + i, s));
                    });
                    split::add_sums(job, *cut, sums, partials);
                });
            }
            Schedule::Column => split::backward_columns(job, adjacent, *cut, partials, cpu),
            Schedule::Split => split::backward(job, *cut, partials, cpu),
            Schedule::Row => cpu.run_all(&[self.chunks(partials)]),
        }
    }
}

/// The statistics, without which no gradient can be had.
fn saved<'v, 'a>(statistics: &'v Option<View<'a>>) -> Result<&'v View<'a>> {
    statistics
        .as_ref()
        .ok_or_else(|| Error::argument("statistics", "those that the forward pass saved", "none"))
}
