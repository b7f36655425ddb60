//! Backward passes of norms: the kernels of `kernels/norm_backward.cu` and `kernels/sums.cu` in the order that a spec asks for.

use super::CudaStream;
use super::between::merge_sums;
use super::constants::{flags, scalars};
use super::fusion::{self, After, Before};
use super::inner;
use super::launch::{Operand, Planned, Problem, Role, enqueue};
use super::norm::rounds;
use super::params::Scalars;
use super::schedule::{Pass, Schedule};
use super::stream::Scratch;
use super::sums::{Parameters, Source};
use super::variant::{Entry, Flags};
use crate::backend::{Backward, workspace_size};
use crate::spec::{Epilogue, Norm, STATISTICS, SUMS, Spec};
use crate::tensor::{DType, Layout, View};
use crate::{Error, Result, Workspace};
use smallvec::SmallVec;

/// Those of the tensors that a pass keeps.
type Dtypes = SmallVec<[DType; 4]>;

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
pub(super) struct Targets<'v> {
    pub(super) input: Option<&'v View<'v>>,
    pub(super) before: Option<&'v View<'v>>,
    pub(super) after: Option<&'v View<'v>>,
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
        let Backward { branch_bias, branch_scale, .. } = self.operands;
        let (around, Targets { input: to_input, before: to_before, after: to_after }) =
            (self.spec.fusion, ends.targets);
        let head = shape.last().copied().unwrap_or(0);
        let [cos, sin, positions] = fusion::tables(rotary.as_ref(), head)?;
        let again = inner::Again::of(self.spec, self.operands)?;
        let [inner_weight, inner_bias, inner_statistics, mix_weight, mix_statistics] = again.operands;
        // What the norm gave is made again where gradients depend on it.
        let is_gate = around.epilogue == Epilogue::Gate;
        let gives = around.epilogue.is_curved() || is_gate && to_after.is_some();
        // A weight that is the same in all of a row does not enter the sums.
        let enters = flags.branch || !flags.plain && (flags.apply || !flags.outer_weight);
        let weight = weight.as_ref().filter(|_| gives || enters);
        let changes_gradient = around.epilogue.is_curved() || is_gate || rotary.is_some();
        let flags = Flags {
            outer_weight: flags.outer_weight && weight.is_some(),
            offset: weight.is_some() && self.spec.weight_offset != 0.0,
            round: (flags.round || gives) && rounds(self.spec, input.dtype()),
            before: if before.is_some() || flags.apply || flags.branch {
                Before::of(around)
            } else {
                Before::None
            },
            after: if changes_gradient || to_after.is_some() {
                After::of(around.epilogue)
            } else {
                After::None
            },
            inner: again.flags,
            ..flags
        };
        let after = after.as_ref().filter(|_| is_gate);
        let is_of_hidden = ends.targets.are_of_hidden() || flags.branch;
        let grad_hidden = grad_hidden.as_ref().filter(|_| is_of_hidden);
        // In the sum with the residual, or on the way back from it.
        let branch_bias = branch_bias.as_ref().filter(|_| before.is_some());
        let branch_scale = branch_scale.as_ref().filter(|_| before.is_some() || is_of_hidden);
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
            per_row("given", ends.given, &self.spec.reduced, SUMS)?,
            per_row("sums", sums, reduced, SUMS * leaves)?,
            cos,
            sin,
            positions,
            Operand::element(self.spec),
            Operand::new("branch_bias", Role::Load, branch_bias)?,
            Operand::new("branch_scale", Role::Load, branch_scale)?,
            inner_weight,
            inner_bias,
            inner_statistics,
            mix_weight,
            mix_statistics,
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

    /// Sums of all rows, as numbers of their leaves merged, or of a branch's terms, which need those of rows in `given`. What is
    /// merged lives until the launches are enqueued, in `kept`.
    fn sums(
        &self,
        flags: Flags,
        given: Option<&View<'_>>,
        target: &View<'_>,
        kept: &mut Vec<Scratch>,
    ) -> Result<Vec<Planned>> {
        let Schedule { compute, rows, .. } = self.schedule;
        let flags = Flags { compute: true, apply: false, ..flags };
        let flags = match flags.branch {
            true => flags,
            false => Flags { kind: flags.kind.summed(), frozen: false, outside: false, ..flags },
        };
        let ends = Ends { given, sums: Some((target, 1)), ..Ends::default() };
        if let Some(planned) = self.pass(flags, &ends, |pass| self.schedule.whole(pass))? {
            return Ok(planned);
        }
        let leaves = self.schedule.leaves();
        let parts = self.schedule.scratch(leaves, SUMS)?;
        let view = parts.view(compute, Layout::contiguous(&[rows, leaves.max(1) * SUMS]))?;
        let ends = Ends { given, sums: Some((&view, leaves)), ..Ends::default() };
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
        let mut planned = sums.map_or(Ok(Vec::new()), |target| self.sums(flags, None, target, kept))?;
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
    operands: Backward<'_>,
    workspace: &mut Workspace,
    stream: &CudaStream<'_>,
) -> Result<()> {
    let mut kept = Vec::new();
    let planned = own_launches(spec, &operands, workspace, stream, &mut kept)?;
    enqueue(stream, "norm backward", planned)
}

/// All launches of a norm without a norm of a branch.
pub(super) fn own_launches(
    spec: &Norm,
    operands: &Backward<'_>,
    workspace: &mut Workspace,
    stream: &CudaStream<'_>,
    kept: &mut Vec<Scratch>,
) -> Result<Vec<Planned>> {
    let targets = [&operands.grad_input, &operands.grad_before, &operands.grad_after]
        .map(|target| target.as_ref().map(|view| view.as_view()));
    let [input, before, after] = targets.each_ref().map(Option::as_ref);
    launches(spec, operands, Targets { input, before, after }, workspace, stream, kept)
}

/// The launches that write the gradients that have the input's shape to `targets`, and the others where the operands say, computed
/// in the statistics' dtype. What lives between them does so in `kept`, until they are enqueued.
pub(super) fn launches(
    spec: &Norm,
    operands: &Backward<'_>,
    targets: Targets<'_>,
    workspace: &mut Workspace,
    stream: &CudaStream<'_>,
    kept: &mut Vec<Scratch>,
) -> Result<Vec<Planned>> {
    let Some(statistics) = &operands.statistics else {
        return Err(Error::argument("statistics", "those that the forward pass saved", "none"));
    };
    let [grad_weight, grad_bias, grad_branch_scale, grad_branch_bias, sums] = [
        &operands.grad_weight,
        &operands.grad_bias,
        &operands.grad_branch_scale,
        &operands.grad_branch_bias,
        &operands.sums,
    ]
    .map(|target| target.as_ref().map(|view| view.as_view()));
    let (shape, reduced) = (&spec.shape[..], &spec.reduced[..]);
    let compute = statistics.dtype();
    let flags = Flags {
        frozen: spec.frozen,
        outer_weight: spec.affine.axes.iter().all(|axis| !reduced.contains(axis)),
        ..flags(spec)?
    };
    let scalars = fusion::chosen(scalars(spec, compute), operands.rotary.as_ref());
    let wanted = [grad_weight.as_ref(), grad_bias.as_ref()];
    let of_parameters = wanted.iter().any(Option::is_some);
    let wanted_of_branch = [grad_branch_scale.as_ref(), grad_branch_bias.as_ref()];
    let of_branch = wanted_of_branch.iter().any(Option::is_some);
    // The sums of a row are those of its parameters, where it shares one and its terms are the gradients'.
    let round = rounds(spec, operands.input.dtype());
    let from_rows = of_parameters && flags.outer_weight && !round;

    // The axes of a row that share parameters.
    let outer: Vec<usize> = reduced.iter().copied().filter(|axis| !spec.affine.axes.contains(axis)).collect();
    let passes = |reduced| {
        let schedule = Schedule::new(spec, reduced, false, &operands.input, stream).in_dtype(compute);
        Passes { spec, operands, statistics, scalars, schedule, reduced }
    };
    let of_rows = passes(reduced);
    let mut planned = Vec::new();
    let layout = Layout::contiguous(&[of_rows.schedule.rows, SUMS]);
    let own = if (from_rows || of_branch) && sums.is_none() {
        Some(of_rows.schedule.scratch(1, SUMS)?)
    } else {
        None
    };
    let of_own = own.as_ref().map(|own| own.view(compute, layout)).transpose()?;
    let sums = sums.as_ref().or(of_own.as_ref());
    let parameters = Parameters { spec, compute, flags, scalars, wanted, branch: false };
    if of_branch {
        // For whichever sums take most of it, as launches that are planned keep its address.
        stream.workspace(workspace, workspace_size(&Spec::Norm(spec.clone()), operands.input.dtype()))?;
    }
    if of_parameters && !from_rows && !of_branch {
        let all =
            of_rows.fused(Flags { round, ..flags }, targets, sums, &parameters, (&mut *workspace, stream))?;
        if let Some(planned) = all {
            return Ok(planned);
        }
    }
    // The parameters' gradients come first where they read grad_output: grad_input may take its place.
    if of_parameters && !from_rows {
        let shared: usize = outer.iter().map(|&axis| shape[axis]).product();
        if shared == 1 {
            let source = Source::Tensors { operands, statistics, given: None };
            planned.extend(parameters.launches(source, workspace, stream)?);
        } else {
            let of_parts = passes(&outer);
            let sums = of_parts.schedule.scratch(1, SUMS)?;
            let view = sums.view(compute, Layout::contiguous(&[of_parts.schedule.rows, SUMS]))?;
            // A parameter's gradient has no ties.
            let kind = flags.kind.applied();
            let plain = Flags { kind, plain: true, round, prefix: false, outer_weight: false, ..flags };
            planned.extend(of_parts.sums(plain, None, &view, kept)?);
            let source = Source::Sums { view: &view, reduced: &outer };
            planned.extend(parameters.launches(source, workspace, stream)?);
            drop(view);
            kept.push(sums);
        }
    }
    let mut given = operands.given.as_ref();
    let mut wanted_sums = sums.filter(|_| from_rows || operands.sums.is_some());
    // A branch's terms, too, need the sums of rows first.
    if let Some(view) = sums.filter(|_| of_branch) {
        if !flags.frozen || from_rows {
            planned.extend(of_rows.sums(flags, None, view, kept)?);
            (given, wanted_sums) = (Some(view), None);
        }
        let of_row = given.filter(|_| !flags.frozen);
        let flags = Flags { branch: true, ..flags };
        let of_branch = Parameters { flags, wanted: wanted_of_branch, branch: true, ..parameters };
        let shared: usize = outer.iter().map(|&axis| shape[axis]).product();
        if flags.prefix && spec.affine.axes != spec.reduced {
            let name = if grad_branch_bias.is_some() { "grad_branch_bias" } else { "grad_branch_scale" };
            let expected = "none where a partial norm's parameters are not those of its columns, on CUDA";
            return Err(Error::argument(name, expected, "a tensor"));
        }
        if shared == 1 {
            let source = Source::Tensors { operands, statistics, given: of_row };
            planned.extend(of_branch.launches(source, workspace, stream)?);
        } else {
            let of_parts = passes(&outer);
            let sums = of_parts.schedule.scratch(1, SUMS)?;
            let view = sums.view(compute, Layout::contiguous(&[of_parts.schedule.rows, SUMS]))?;
            let plain = Flags { plain: true, ..flags };
            planned.extend(of_parts.sums(plain, of_row, &view, kept)?);
            let source = Source::Sums { view: &view, reduced: &outer };
            planned.extend(of_branch.launches(source, workspace, stream)?);
            drop(view);
            kept.push(sums);
        }
    }
    planned.extend(of_rows.gradient(flags, targets, given, wanted_sums, kept)?);
    if let Some(view) = sums.filter(|_| from_rows) {
        planned.extend(parameters.launches(Source::Sums { view, reduced }, workspace, stream)?);
    }
    drop(of_own);
    kept.extend(own);
    Ok(planned)
}
