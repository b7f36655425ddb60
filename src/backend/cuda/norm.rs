//! Forward passes of norms: the kernels of `kernels/norm_forward.cu` in the order that a spec asks for. A row that a block can
//! take is one launch; the leaves of others are computed side by side, merged, and applied.

use super::CudaStream;
use super::between::merge_moments;
use super::constants::{flags, scalars};
use super::fault::limit;
use super::fusion::{self, After, Before};
use super::inner;
use super::launch::{Operand, Planned, Problem, Role, enqueue};
use super::schedule::{Pass, Schedule};
use super::stream::Scratch;
use super::variant::{Entry, Flags};
use crate::Result;
use crate::backend::Forward;
use crate::backend::codes::Scaling;
use crate::spec::{MOMENTS, Norm, STATISTICS};
use crate::tensor::{DType, Layout, View};
use smallvec::SmallVec;

/// Those of the tensors that a pass keeps.
type Dtypes = SmallVec<[DType; 4]>;

pub(super) fn forward(spec: &Norm, operands: &Forward<'_>, stream: &CudaStream<'_>) -> Result<()> {
    let mut kept = Vec::new();
    let planned = launches(spec, operands, stream, &mut kept)?;
    enqueue(stream, "norm forward", planned)
}

/// The launches of a pass. What lives between them does so in `kept`, until they are enqueued.
pub(super) fn launches(
    spec: &Norm,
    operands: &Forward<'_>,
    stream: &CudaStream<'_>,
    kept: &mut Vec<Scratch>,
) -> Result<Vec<Planned>> {
    let output = operands.output.as_ref().map(|view| view.as_view());
    let hidden = operands.hidden.as_ref().map(|view| view.as_view());
    let statistics = operands.statistics.as_ref().map(|view| view.as_view());
    let moments = operands.moments.as_ref().map(|view| view.as_view());
    let (shape, reduced, dtype) = (&spec.shape[..], &spec.reduced[..], operands.input.dtype());
    // Codes of a row share a scale, and the sum of an element and its residual needs the statistics of a branch's norm.
    let is_whole = spec.fusion.inner.is_some() || Scaling::of(spec.fusion.quantization) == Some(Scaling::Row);
    let schedule = Schedule::new(spec, reduced, is_whole, &operands.input, stream);
    let Schedule { compute, rows, .. } = schedule;
    let scalars = fusion::chosen(scalars(spec, compute), operands.rotary.as_ref());
    let apply = output.is_some();
    let quantization = spec.fusion.quantization;
    let scales = operands.scales.as_ref().map(|view| view.as_view());
    let per_scales = quantization.and_then(|codes| codes.scales(schedule.cols())).unwrap_or(0);
    let flags_of_columns = operands.flags.as_ref().map(|view| view.as_view());
    let weight = operands.weight.as_ref().filter(|_| apply);
    let bias = operands.bias.as_ref().filter(|_| apply);
    let after = operands.after.as_ref().filter(|_| apply);
    let of_spec = Flags { before: Before::of(spec.fusion), ..flags(spec)? };
    let of_inner = operands.inner.as_ref();
    let inner_statistics = of_inner.and_then(|inner| inner.statistics.as_ref());
    let inner_statistics = inner_statistics.map(|view| view.as_view());
    let mix = operands.mix.as_ref();
    let mix_statistics = mix.and_then(|mix| mix.statistics.as_ref()).map(|view| view.as_view());
    let inner = of_inner.map(|of_inner| inner::flags(spec, of_inner.weight.is_some(), dtype));
    let inner = inner.transpose()?.flatten();
    let applying = Flags {
        inner,
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
    let read = || -> Result<[Option<Operand>; 6]> {
        Ok([
            Operand::new("input", Role::Load, Some(&operands.input))?,
            Operand::new("before", Role::Load, operands.before.as_ref())?,
            Operand::new("branch_bias", Role::Load, operands.branch_bias.as_ref())?,
            Operand::new("branch_scale", Role::Load, operands.branch_scale.as_ref())?,
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
            // The same for all rows.
            per_row("flags", flags_of_columns.as_ref(), 0)?,
            Operand::new("inner_weight", Role::Load, of_inner.and_then(|inner| inner.weight.as_ref()))?,
            Operand::new("inner_bias", Role::Load, of_inner.and_then(|inner| inner.bias.as_ref()))?,
            per_row("inner_statistics", inner_statistics.as_ref(), STATISTICS)?,
            Operand::new("mix_weight", Role::Load, mix.and_then(|mix| mix.weight.as_ref()))?,
            per_row("mix_statistics", mix_statistics.as_ref(), STATISTICS)?,
        ])
    };
    let problem = |numbers: [Option<Operand>; 2], written: Vec<Option<Operand>>| -> Result<Problem> {
        let operands = read()?.into_iter().chain(numbers).chain(written);
        Ok(Problem::new(compute, shape, reduced, operands).in_runs(fusion::run(rotary, head)))
    };
    let read_by = |after: Option<&View<'_>>| -> Dtypes {
        let all = [Some(&operands.input), operands.before.as_ref(), after];
        all.into_iter().flatten().map(View::dtype).collect()
    };
    let (entry, read_again) = (Entry::NormForward, &read_by(after)[..]);
    let with_given = |given: &View<'_>, statistics: Option<&View<'_>>| {
        let given = per_row("given", Some(given), STATISTICS)?;
        let statistics = per_row("statistics", statistics, STATISTICS)?;
        let flags = Flags { kind: of_spec.kind.applied(), ..applying };
        let problem = &problem([given, statistics], written()?)?;
        schedule.apply(&Pass { problem, entry, flags, scalars, read: read_again })
    };
    if let Some(given) = &operands.given {
        return with_given(given, statistics.as_ref());
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
        return Ok(planned);
    }
    if inner.is_some() {
        return Err(limit(
            "a norm of a branch",
            "as many columns as the blocks that meet can take",
            schedule.cols(),
        ));
    }
    if flags.scaling == Some(Scaling::Row) {
        return Err(limit(
            "scale of a row",
            "as many columns as the blocks that meet can take",
            schedule.cols(),
        ));
    }
    let leaves = schedule.leaves();
    let of_parts = schedule.scratch(leaves, MOMENTS)?;
    let parts = of_parts.view(compute, Layout::contiguous(&[rows, leaves.max(1) * MOMENTS]))?;
    let of_leaves = per_row("moments", Some(&parts), leaves * MOMENTS)?;
    let flags = Flags { kind, prefix, compute: true, before: of_spec.before, ..Flags::default() };
    let of_leaves = &problem([of_leaves, None], Vec::new())?;
    let mut planned =
        schedule.leaf_by_leaf(&Pass { problem: of_leaves, entry, flags, scalars, read: &read_by(None) })?;
    // Applying needs statistics, asked for or not.
    let of_own = if apply && statistics.is_none() { Some(schedule.scratch(1, STATISTICS)?) } else { None };
    let layout = Layout::contiguous(&[rows, STATISTICS]);
    let own = of_own.as_ref().map(|own| own.view(compute, layout)).transpose()?;
    let (moments, finished) = (moments.as_ref(), statistics.as_ref().or(own.as_ref()));
    planned.push(merge_moments(spec, compute, [rows, leaves], &parts, moments, finished)?);
    if let Some(statistics) = finished.filter(|_| apply) {
        planned.extend(with_given(statistics, None)?);
    }
    drop((parts, own));
    kept.extend([Some(of_parts), of_own].into_iter().flatten());
    Ok(planned)
}

/// Whether normalized values are rounded before a weight multiplies them.
pub(super) fn rounds(spec: &Norm, dtype: DType) -> bool {
    spec.round_normalized && dtype != dtype.compute()
}
