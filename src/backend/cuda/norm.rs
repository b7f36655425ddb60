//! Norms: the kernels of `kernels/norm_forward.cu` and `kernels/norm_backward.cu` in the order that a spec asks for. A row
//! that a block can take is one launch; the leaves of others are computed side by side, merged, and applied.

use super::CudaStream;
use super::between::{merge_moments, merge_sums};
use super::constants::{flags, scalars};
use super::fault::limit;
use super::fusion::{self, After, Before};
use super::launch::{Operand, Planned, Problem, Role, enqueue};
use super::params::Scalars;
use super::schedule::{Pass, Schedule};
use super::stream::Scratch;
use super::sums::{Parameters, Source};
use super::variant::{Entry, Flags};
use crate::backend::codes::Scaling;
use crate::backend::{Backward, Forward};
use crate::spec::{Epilogue, MOMENTS, Norm, STATISTICS, SUMS};
use crate::tensor::{DType, Layout, View};
use crate::{Error, Result, Workspace};
use smallvec::SmallVec;

/// Those of the tensors that a pass keeps.
type Dtypes = SmallVec<[DType; 4]>;

pub(super) fn forward(spec: &Norm, operands: &Forward<'_>, stream: &CudaStream<'_>) -> Result<()> {
    let output = operands.output.as_ref().map(|view| view.as_view());
    let hidden = operands.hidden.as_ref().map(|view| view.as_view());
    let statistics = operands.statistics.as_ref().map(|view| view.as_view());
    let moments = operands.moments.as_ref().map(|view| view.as_view());
    let (shape, reduced, dtype) = (&spec.shape[..], &spec.reduced[..], operands.input.dtype());
    let schedule = Schedule::new(spec, reduced, &operands.input, stream);
    let Schedule { compute, rows, .. } = schedule;
    let scalars = fusion::chosen(scalars(spec, compute), operands.rotary.as_ref());
    let apply = output.is_some();
    let quantization = spec.fusion.quantization;
    let scales = operands.scales.as_ref().map(|view| view.as_view());
    let per_scales = quantization.and_then(|codes| codes.scales(schedule.cols())).unwrap_or(0);
    let weight = operands.weight.as_ref().filter(|_| apply);
    let bias = operands.bias.as_ref().filter(|_| apply);
    let after = operands.after.as_ref().filter(|_| apply);
    let of_spec = Flags { before: Before::of(spec.fusion), ..flags(spec)? };
    let applying = Flags {
        apply,
        before: of_spec.before,
        after: After::of(spec.fusion.epilogue),
        scaling: Scaling::of(quantization),
        round: apply && rounds(spec, dtype),
        offset: weight.is_some() && spec.weight_offset != 0.0,
        ..Flags::default()
    };
    let per_row =
        |name, view: Option<&View<'_>>, numbers| Operand::per_row(name, view, shape, reduced, numbers);
    let read = || -> Result<[Option<Operand>; 4]> {
        Ok([
            Operand::new("input", Role::Load, Some(&operands.input))?,
            Operand::new("before", Role::Load, operands.before.as_ref())?,
            Operand::new("mask", Role::Load, operands.mask.as_ref())?,
            Operand::element(spec),
        ])
    };
    let rotary = operands.rotary.as_ref().filter(|_| apply);
    let head = shape.last().copied().unwrap_or(0);
    let written = || -> Result<Vec<Option<Operand>>> {
        let [cos, sin, positions] = fusion::tables(rotary, head)?;
        Ok(vec![
            cos,
            sin,
            positions,
            Operand::new("output", Role::Store, output.as_ref())?,
            Operand::new("hidden", Role::Store, hidden.as_ref())?,
            Operand::new("weight", Role::Load, weight)?,
            Operand::new("bias", Role::Load, bias)?,
            Operand::new("after", Role::Load, after)?,
            per_row("scales", scales.as_ref(), per_scales)?,
        ])
    };
    let problem = |numbers: [Option<Operand>; 2], written: Vec<Option<Operand>>| -> Result<Problem> {
        let operands = read()?.into_iter().chain(numbers).chain(written);
        Ok(Problem::new(compute, shape, reduced, operands).in_runs(fusion::run(rotary, head)))
    };
    let kept = |after: Option<&View<'_>>| -> Dtypes {
        let all = [Some(&operands.input), operands.before.as_ref(), after];
        all.into_iter().flatten().map(View::dtype).collect()
    };
    let (entry, read_again) = (Entry::NormForward, &kept(after)[..]);
    let with_given = |given: &View<'_>, statistics: Option<&View<'_>>| {
        let given = per_row("given", Some(given), STATISTICS)?;
        let statistics = per_row("statistics", statistics, STATISTICS)?;
        let flags = Flags { kind: of_spec.kind.applied(), ..applying };
        let problem = &problem([given, statistics], written()?)?;
        schedule.apply(&Pass { problem, entry, flags, scalars, read: read_again })
    };
    if let Some(given) = &operands.given {
        return enqueue(stream, "norm forward", with_given(given, statistics.as_ref())?);
    }
    let finish = apply || statistics.is_some();
    let Flags { kind, prefix, outside, .. } = of_spec;
    let flags = Flags { kind, prefix, outside: outside && finish, compute: true, finish, ..applying };
    let of_row = per_row("moments", moments.as_ref(), MOMENTS)?;
    let finished = per_row("statistics", statistics.as_ref(), STATISTICS)?;
    let whole = &problem([of_row, finished], written()?)?;
    if let Some(planned) =
        schedule.whole(&Pass { problem: whole, entry, flags, scalars, read: read_again })?
    {
        return enqueue(stream, "norm forward", planned);
    }
    if flags.scaling == Some(Scaling::Row) {
        return Err(limit(
            "scale of a row",
            "as many columns as the blocks that meet can take",
            schedule.cols(),
        ));
    }
    let leaves = schedule.leaves();
    let parts = schedule.scratch(leaves, MOMENTS)?;
    let parts = parts.view(compute, Layout::contiguous(&[rows, leaves.max(1) * MOMENTS]))?;
    let of_leaves = per_row("moments", Some(&parts), leaves * MOMENTS)?;
    let flags = Flags { kind, prefix, compute: true, before: of_spec.before, ..Flags::default() };
    let of_leaves = &problem([of_leaves, None], Vec::new())?;
    let mut planned =
        schedule.leaf_by_leaf(&Pass { problem: of_leaves, entry, flags, scalars, read: &kept(None) })?;
    // Applying needs statistics, asked for or not.
    let own = if apply && statistics.is_none() { Some(schedule.scratch(1, STATISTICS)?) } else { None };
    let layout = Layout::contiguous(&[rows, STATISTICS]);
    let own = own.as_ref().map(|own| own.view(compute, layout)).transpose()?;
    let statistics = statistics.or(own);
    let (moments, finished) = (moments.as_ref(), statistics.as_ref());
    planned.push(merge_moments(spec, compute, [rows, leaves], &parts, moments, finished)?);
    if let Some(statistics) = finished.filter(|_| apply) {
        planned.extend(with_given(statistics, None)?);
    }
    enqueue(stream, "norm forward", planned)
}

/// Whether normalized values are rounded before a weight multiplies them.
pub(super) fn rounds(spec: &Norm, dtype: DType) -> bool {
    spec.round_normalized && dtype != dtype.compute()
}

/// The passes of the backward kernel, over the axes of `schedule`, which for PLAIN sums make a part of a row.
struct Passes<'s> {
    spec: &'s Norm,
    operands: &'s Backward<'s>,
    statistics: &'s View<'s>,
    scalars: Scalars,
    schedule: Schedule<'s>,
    reduced: &'s [usize],
}

/// The gradients that have the input's shape.
#[derive(Default, Clone, Copy)]
struct Targets<'v> {
    input: Option<&'v View<'v>>,
    before: Option<&'v View<'v>>,
    after: Option<&'v View<'v>>,
}

impl Targets<'_> {
    /// Whether the gradient of what is normalized is wanted.
    fn are_of_hidden(&self) -> bool {
        self.input.is_some() || self.before.is_some()
    }

    fn are_any(&self) -> bool {
        self.are_of_hidden() || self.after.is_some()
    }
}

/// What a backward pass takes or gives of each row, besides the tensors that it reads.
#[derive(Default)]
struct Ends<'v> {
    targets: Targets<'v>,
    given: Option<&'v View<'v>>,
    /// With the number of leaves of a row that they are for.
    sums: Option<(&'v View<'v>, usize)>,
    /// Sums of the parameters' gradients over chunks of rows.
    partials: Option<&'v View<'v>>,
}

impl<'s> Passes<'s> {
    /// Calls `launches` with the pass of what `flags` say.
    fn pass(
        &self,
        flags: Flags,
        ends: &Ends<'_>,
        launches: impl FnOnce(&Pass<'_>) -> Result<Option<Vec<Planned>>>,
    ) -> Result<Option<Vec<Planned>>> {
        let (shape, reduced) = (&self.spec.shape[..], self.reduced);
        let Backward { grad_output, input, weight, bias, before, after, rotary, grad_hidden, mask, .. } =
            self.operands;
        let (around, Targets { input: to_input, before: to_before, after: to_after }) =
            (self.spec.fusion, ends.targets);
        let head = shape.last().copied().unwrap_or(0);
        let [cos, sin, positions] = fusion::tables(rotary.as_ref(), head)?;
        // What the norm gave is made again where gradients depend on it.
        let is_gate = around.epilogue == Epilogue::Gate;
        let gives = around.epilogue.is_curved() || is_gate && to_after.is_some();
        // A weight that is the same in all of a row does not enter the sums.
        let enters = !flags.plain && (flags.apply || !flags.outer_weight);
        let weight = weight.as_ref().filter(|_| gives || enters);
        let changes_gradient = around.epilogue.is_curved() || is_gate || rotary.is_some();
        let flags = Flags {
            outer_weight: flags.outer_weight && weight.is_some(),
            offset: weight.is_some() && self.spec.weight_offset != 0.0,
            round: (flags.round || gives) && rounds(self.spec, input.dtype()),
            before: if before.is_some() || flags.apply { Before::of(around) } else { Before::None },
            after: if changes_gradient || to_after.is_some() {
                After::of(around.epilogue)
            } else {
                After::None
            },
            ..flags
        };
        let after = after.as_ref().filter(|_| is_gate);
        let grad_hidden = grad_hidden.as_ref().filter(|_| ends.targets.are_of_hidden());
        let (sums, leaves) = (ends.sums.map(|(view, _)| view), ends.sums.map_or(1, |(_, leaves)| leaves));
        let per_row = |name, view, reduced, numbers| Operand::per_row(name, view, shape, reduced, numbers);
        let operands = [
            Operand::new("grad_output", Role::Load, Some(grad_output))?,
            Operand::new("input", Role::Load, Some(input))?,
            Operand::new("grad_input", Role::Store, to_input)?,
            Operand::new("before", Role::Load, before.as_ref())?,
            Operand::new("after", Role::Load, after)?,
            Operand::new("grad_hidden", Role::Load, grad_hidden)?,
            Operand::new("grad_before", Role::Store, to_before)?,
            Operand::new("grad_after", Role::Store, to_after)?,
            Operand::new("weight", Role::Load, weight)?,
            Operand::new("bias", Role::Load, bias.as_ref().filter(|_| gives))?,
            Operand::new("mask", Role::Load, mask.as_ref())?,
            per_row("statistics", Some(self.statistics), &self.spec.reduced, STATISTICS)?,
            per_row("given", ends.given, reduced, SUMS)?,
            per_row("sums", sums, reduced, SUMS * leaves)?,
            cos,
            sin,
            positions,
            Operand::element(self.spec),
            ends.partials.map(|view| Operand::flat("partials", view, self.schedule.compute)).transpose()?,
        ];
        let problem = &Problem::new(self.schedule.compute, shape, reduced, operands)
            .in_runs(fusion::run(rotary.as_ref(), head));
        // What an activation was given is made of the parameters, too, which are asked for beside the elements.
        let of_value = weight.filter(|_| around.epilogue.is_curved());
        let kept = [Some(input), Some(grad_output), before.as_ref(), after, of_value];
        let mut read: Dtypes = kept.into_iter().flatten().map(View::dtype).collect();
        // Beside no more than the two tensors and no sums, there are registers for what is used last.
        if ends.partials.is_some() || read.len() > 2 {
            read.extend(grad_hidden.map(View::dtype));
        }
        let read = &read[..];
        let entry = if ends.partials.is_some() { Entry::NormBackwardFused } else { Entry::NormBackward };
        launches(&Pass { problem, entry, flags, scalars: self.scalars, read })
    }

    /// The gradients of the input and of the parameters, and the sums of rows if somebody wants them, from one reading; `None`
    /// where it takes two.
    fn fused(
        &self,
        flags: Flags,
        targets: Targets<'_>,
        sums: Option<&View<'_>>,
        parameters: &Parameters<'_>,
        (workspace, stream): (&mut Workspace, &CudaStream<'_>),
    ) -> Result<Option<Vec<Planned>>> {
        let is_known = flags.frozen || self.operands.given.is_some();
        if is_known || !targets.are_any() || self.spec.affine.axes != self.spec.reduced {
            return Ok(None);
        }
        parameters.fused(self.schedule.rows, workspace, stream, |of_parameters, scratch| {
            let sums = sums.map(|view| (view, 1));
            let ends = Ends { targets, given: None, sums, partials: Some(scratch) };
            let flags = Flags { compute: true, apply: true, sums: of_parameters.wanted(), ..flags };
            let mut launch = None;
            self.pass(flags, &ends, |pass| {
                launch = self.schedule.fused(pass, of_parameters)?;
                Ok(None)
            })?;
            Ok(launch)
        })
    }

    /// Sums of all rows, as numbers of their leaves merged. What is merged lives until the launches are enqueued, in `kept`.
    fn sums(&self, flags: Flags, target: &View<'_>, kept: &mut Vec<Scratch>) -> Result<Vec<Planned>> {
        let Schedule { compute, rows, .. } = self.schedule;
        let kind = flags.kind.summed();
        let flags = Flags { kind, compute: true, apply: false, frozen: false, outside: false, ..flags };
        let ends = Ends { sums: Some((target, 1)), ..Ends::default() };
        if let Some(planned) = self.pass(flags, &ends, |pass| self.schedule.whole(pass))? {
            return Ok(planned);
        }
        let leaves = self.schedule.leaves();
        let parts = self.schedule.scratch(leaves, SUMS)?;
        let view = parts.view(compute, Layout::contiguous(&[rows, leaves.max(1) * SUMS]))?;
        let ends = Ends { sums: Some((&view, leaves)), ..Ends::default() };
        let of_leaves = self.pass(flags, &ends, |pass| self.schedule.leaf_by_leaf(pass).map(Some))?;
        let merging = merge_sums(compute, [rows, leaves], &view, target)?;
        drop(view);
        kept.push(parts);
        Ok(of_leaves.into_iter().flatten().chain([merging]).collect())
    }

    /// The gradient of the input, and the sums of rows if somebody wants them; these come as `given`, or are computed unless
    /// the statistics are constant.
    fn gradient(
        &self,
        flags: Flags,
        targets: Targets<'_>,
        given: Option<&View<'_>>,
        sums: Option<&View<'_>>,
        kept: &mut Vec<Scratch>,
    ) -> Result<Vec<Planned>> {
        let computes = sums.is_some() || given.is_none() && !flags.frozen && targets.are_of_hidden();
        if computes && given.is_none() && targets.are_any() {
            let ends = Ends { targets, sums: sums.map(|view| (view, 1)), ..Ends::default() };
            let flags = Flags { compute: true, apply: true, ..flags };
            if let Some(planned) = self.pass(flags, &ends, |pass| self.schedule.whole(pass))? {
                return Ok(planned);
            }
        }
        let Schedule { compute, rows, .. } = self.schedule;
        let own = if computes && sums.is_none() { Some(self.schedule.scratch(1, SUMS)?) } else { None };
        let layout = Layout::contiguous(&[rows, SUMS]);
        let view = own.as_ref().map(|own| own.view(compute, layout)).transpose()?;
        let sums = sums.or(view.as_ref());
        let mut planned = sums.map_or(Ok(Vec::new()), |target| self.sums(flags, target, kept))?;
        if targets.are_any() {
            let given = given.or(sums).filter(|_| !flags.frozen);
            let ends = Ends { targets, given, ..Ends::default() };
            let flags = Flags { apply: true, ..flags };
            planned.extend(
                self.pass(flags, &ends, |pass| self.schedule.apply(pass).map(Some))?.unwrap_or_default(),
            );
        }
        drop(view);
        kept.extend(own);
        Ok(planned)
    }
}

pub(super) fn backward(
    spec: &Norm,
    operands: &Backward<'_>,
    workspace: &mut Workspace,
    stream: &CudaStream<'_>,
) -> Result<()> {
    let Some(statistics) = &operands.statistics else {
        return Err(Error::argument("statistics", "those that the forward pass saved", "none"));
    };
    let [grad_weight, grad_bias, sums] = [&operands.grad_weight, &operands.grad_bias, &operands.sums]
        .map(|target| target.as_ref().map(|view| view.as_view()));
    let targets = [&operands.grad_input, &operands.grad_before, &operands.grad_after]
        .map(|target| target.as_ref().map(|view| view.as_view()));
    let [input, before, after] = targets.each_ref().map(Option::as_ref);
    let targets = Targets { input, before, after };
    let (shape, reduced) = (&spec.shape[..], &spec.reduced[..]);
    let compute = operands.input.dtype().compute();
    let flags = Flags {
        frozen: spec.frozen,
        outer_weight: spec.affine.axes.iter().all(|axis| !reduced.contains(axis)),
        ..flags(spec)?
    };
    let scalars = fusion::chosen(scalars(spec, compute), operands.rotary.as_ref());
    let wanted = [grad_weight.as_ref(), grad_bias.as_ref()];
    let of_parameters = wanted.iter().any(Option::is_some);
    // The sums of a row are those of its parameters, where it shares one and its terms are the gradients'.
    let round = rounds(spec, operands.input.dtype());
    let from_rows = of_parameters && flags.outer_weight && !round;

    // The axes of a row that share parameters.
    let outer: Vec<usize> = reduced.iter().copied().filter(|axis| !spec.affine.axes.contains(axis)).collect();
    let passes = |reduced| {
        let schedule = Schedule::new(spec, reduced, &operands.input, stream);
        Passes { spec, operands, statistics, scalars, schedule, reduced }
    };
    let of_rows = passes(reduced);
    let mut planned = Vec::new();
    let mut kept = Vec::new();
    let layout = Layout::contiguous(&[of_rows.schedule.rows, SUMS]);
    let own = if from_rows && sums.is_none() { Some(of_rows.schedule.scratch(1, SUMS)?) } else { None };
    let own = own.as_ref().map(|own| own.view(compute, layout)).transpose()?;
    let sums = sums.as_ref().or(own.as_ref());
    let parameters = Parameters { spec, compute, flags, scalars, wanted };
    if of_parameters && !from_rows {
        let all =
            of_rows.fused(Flags { round, ..flags }, targets, sums, &parameters, (&mut *workspace, stream))?;
        if let Some(planned) = all {
            return enqueue(stream, "norm backward", planned);
        }
    }
    // The parameters' gradients come first where they read grad_output: grad_input may take its place.
    if of_parameters && !from_rows {
        let shared: usize = outer.iter().map(|&axis| shape[axis]).product();
        if shared == 1 {
            let source = Source::Tensors { operands, statistics };
            planned.extend(parameters.launches(source, workspace, stream)?);
        } else {
            let of_parts = passes(&outer);
            let sums = of_parts.schedule.scratch(1, SUMS)?;
            let view = sums.view(compute, Layout::contiguous(&[of_parts.schedule.rows, SUMS]))?;
            // A parameter's gradient has no ties.
            let kind = flags.kind.applied();
            let plain = Flags { kind, plain: true, round, prefix: false, outer_weight: false, ..flags };
            planned.extend(of_parts.sums(plain, &view, &mut kept)?);
            let source = Source::Sums { view: &view, reduced: &outer };
            planned.extend(parameters.launches(source, workspace, stream)?);
            drop(view);
            kept.push(sums);
        }
    }
    planned.extend(of_rows.gradient(flags, targets, operands.given.as_ref(), sums, &mut kept)?);
    if let Some(view) = sums.filter(|_| from_rows) {
        planned.extend(parameters.launches(Source::Sums { view, reduced }, workspace, stream)?);
    }
    enqueue(stream, "norm backward", planned)
}
