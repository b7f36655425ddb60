//! Norms' backward pass: one launch where a row's sums, its gradient and the parameters' partial sums fit registers, else
//! the sums of rows, the parameters' gradients and the input's, apart.

use super::between::merge_sums;
use super::fusion::{After, Before, Rotation};
use super::launch::{Dispatch, Problem, Scalars};
use super::norm::{cols, flags, form, launches, rows, scalars, scratch};
use super::operand::{Operand, share_buffer};
use super::sums::{self, Source};
use super::variant::{Entry, Flags, Role, Shape};
use super::{WgpuStream, WgpuTensor, copy, fusion, geometry, inner, packed};
use crate::backend::Backward;
use crate::plan::tree;
use crate::spec::{Norm, STATISTICS, SUMS};
use crate::tensor::{DType, Layout, Tensor, View};
use crate::{Error, Result, Workspace};

/// The passes of the backward kernel: over `reduced`, which for PLAIN sums is a part of a row.
struct Passes<'s, 'e> {
    spec: &'s Norm,
    operands: &'s Backward<'s>,
    stream: &'s WgpuStream<'e>,
    scalars: Scalars,
    /// The saved statistics in the buffer of the sums of rows, for passes that are given these.
    beside: Option<&'s View<'s>>,
}

/// The gradients that a pass writes for each element.
#[derive(Clone, Copy, Default)]
pub(super) struct Targets<'v> {
    pub(super) input: Option<&'v View<'v>>,
    pub(super) before: Option<&'v View<'v>>,
    pub(super) after: Option<&'v View<'v>>,
}

impl Targets<'_> {
    /// Whether the gradient of what is normalized is needed.
    fn has_hidden(&self) -> bool {
        self.input.is_some() || self.before.is_some()
    }
}

/// Operands of a pass beside those of the call.
#[derive(Clone, Copy, Default)]
struct PassOperands<'v> {
    targets: Targets<'v>,
    /// The sums of rows, known.
    given: Option<&'v View<'v>>,
    /// Those to be written, and of how many leaves each row has them.
    sums: Option<(&'v View<'v>, usize)>,
    /// Partial sums of the parameters' gradients.
    partials: Option<&'v View<'v>>,
}

impl<'s> Passes<'s, '_> {
    /// The saved statistics, for a pass that is given these sums of rows.
    fn statistics(&self, given: Option<&View<'_>>) -> Option<&'s View<'s>> {
        self.beside.filter(|_| given.is_some()).or(self.operands.statistics.as_ref())
    }

    fn run(&self, reduced: &[usize], flags: Flags, operands: PassOperands<'_>) -> Result<Vec<Dispatch>> {
        let (problem, form) = self.problem(reduced, flags, operands)?;
        launches(&problem, Entry::NormBackward, form, flags, self.scalars)
    }

    /// As `run`, for a pass over the spec's rows that writes gradients of elements: in several launches where one would have
    /// more operands than the device can bind.
    fn apply(&self, flags: Flags, operands: PassOperands<'_>) -> Result<Vec<Dispatch>> {
        let reduced = &self.spec.reduced[..];
        let fits = |operands| Ok(self.problem(reduced, flags, operands)?.0.fits_bindings());
        let (mut dispatches, mut rest) = (Vec::new(), operands);
        if let (Some(after), true, false) = (rest.targets.after, rest.targets.has_hidden(), fits(rest)?) {
            // This one first: others may be written in the place of what it is made of.
            rest.targets.after = None;
            let targets = Targets { after: Some(after), ..Targets::default() };
            let alone = PassOperands { targets, ..PassOperands::default() };
            dispatches = self.run(reduced, Flags { compute: false, ..flags }, alone)?;
        }
        if let (Some(input), Some(before), false) = (rest.targets.input, rest.targets.before, fits(rest)?) {
            let of_input = Targets { input: Some(input), ..Targets::default() };
            let of_before = Targets { before: Some(before), ..Targets::default() };
            // Likewise.
            let replaces = share_buffer(input, &self.operands.grad_output);
            let (first, last) = if replaces { (of_before, of_input) } else { (of_input, of_before) };
            let is_lost = |view| share_buffer(before, view);
            if !replaces || !self.operands.grad_hidden.as_ref().is_some_and(is_lost) {
                dispatches.extend(self.run(reduced, flags, PassOperands { targets: first, ..rest })?);
                rest = PassOperands { targets: last, sums: None, ..rest };
            }
        }
        dispatches.extend(self.run(reduced, flags, rest)?);
        Ok(dispatches)
    }

    /// The problem of a pass over `reduced`, and how its rows are shared out.
    fn problem(
        &self,
        reduced: &[usize],
        flags: Flags,
        operands: PassOperands<'_>,
    ) -> Result<(Problem<'_>, Shape)> {
        let PassOperands { targets, given, sums, partials } = operands;
        let shape = &self.spec.shape[..];
        let statistics = self.statistics(given);
        let value = flags.after.is_curved() || flags.after == After::Gate && targets.after.is_some();
        let weight = self.operands.weight.as_ref().filter(|_| !flags.plain || value || flags.branch);
        let is_of_hidden = targets.has_hidden() || flags.branch;
        let grad_hidden = self.operands.grad_hidden.as_ref().filter(|_| is_of_hidden);
        let (sums, leaves) = (sums.map(|(view, _)| view), sums.map_or(1, |(_, leaves)| leaves));
        let per_row = |name, role, view, reduced: &[usize], numbers| {
            Operand::per_row(name, role, view, shape, reduced, [numbers, numbers])
        };
        let mut all = vec![
            Operand::new("grad_output", Role::Load, Some(&self.operands.grad_output))?,
            Operand::new("input", Role::Load, Some(&self.operands.input))?,
            Operand::new("grad_input", Role::Store, targets.input)?,
            Operand::new("weight", Role::Load, weight)?,
            Operand::new("mask", Role::Load, self.operands.mask.as_ref())?,
            per_row("statistics", Role::Number, statistics, &self.spec.reduced, STATISTICS)?,
            per_row("given", Role::Number, given, &self.spec.reduced, SUMS)?,
            per_row("sums", Role::SetNumber, sums, reduced, SUMS * leaves)?,
            partials.map(|view| Operand::flat("partials", Role::Set, view)).transpose()?.flatten(),
            Operand::new("grad_hidden", Role::Load, grad_hidden)?,
            Operand::new("grad_before", Role::Store, targets.before)?,
            Operand::new("grad_after", Role::Store, targets.after)?,
        ];
        let returns = targets.input.is_some() || flags.branch;
        all.extend(fusion::of_terms(self.spec, self.operands, flags.after, value, returns)?);
        all.extend(inner::of_backward(self.spec, self.operands, Role::Number)?);
        let (device, is_counted) = (self.stream.device(), self.spec.fusion.dropout.is_some());
        let problem = Problem::counted(device, shape, reduced, all, is_counted)?;
        let problem = problem.rotated(Rotation::of(self.spec));
        let form = form(&problem, flags, self.stream);
        Ok((problem, form))
    }

    /// The gradients of input and parameters from one reading, where the rows fit registers and each of a row's columns
    /// has its own parameters. `None` where they do not.
    fn fused(
        &self,
        flags: Flags,
        operands: PassOperands<'_>,
        parameters: &sums::Parameters<'_>,
        workspace: &mut Workspace,
    ) -> Result<Option<Vec<Dispatch>>> {
        let reduced = &self.spec.reduced[..];
        if self.spec.affine.axes[..] != *reduced {
            return Ok(None);
        }
        let flags = Flags { kept: true, fused: true, ..flags };
        let device = self.stream.device();
        let of_parameters = parameters.sums(&[]);
        let scratch = device.scratch(workspace, of_parameters.bytes())?;
        let operands = PassOperands { partials: Some(&scratch), ..operands };
        let (problem, form) = self.problem(reduced, flags, operands)?;
        // The row, its gradient, the weight, and for each parameter the sums of a leaf of rows and of a chunk; perhaps the
        // bias, and what a gated row is made of, or the weight and the bias of the branch's norm.
        let has_bias = problem.walk("bias").is_some();
        let has_two = flags.before == Before::Gate || flags.inner.is_some();
        let arrays = 7 + u32::from(has_bias) + 2 * u32::from(has_two);
        if !problem.fits_bindings() || !geometry::keeps(device, &form, arrays) {
            return Ok(None);
        }
        let fused = of_parameters.fused(&problem, form, flags, self.scalars)?;
        let Some(mut dispatches) = fused else { return Ok(None) };
        dispatches.extend(parameters.finish(&of_parameters, device, &scratch, &(0..problem.grid.cols))?);
        Ok(Some(dispatches))
    }

    /// Sums of all rows of `reduced`, as numbers of their leaves merged.
    fn sums(
        &self,
        reduced: &[usize],
        flags: Flags,
        given: Option<&View<'_>>,
        target: &View<'_>,
    ) -> Result<Vec<Dispatch>> {
        let cols: usize = reduced.iter().map(|&axis| self.spec.shape[axis]).product();
        let split = geometry::is_split(&self.stream.overrides(), cols);
        let flags = Flags { compute: true, apply: false, split, ..flags };
        if !split {
            let operands = PassOperands { given, sums: Some((target, 1)), ..Default::default() };
            return self.run(reduced, flags, operands);
        }
        let (device, leaves) = (self.stream.device(), cols.div_ceil(tree::LEAF));
        let rows = target.shape().first().copied().unwrap_or(0);
        let parts = scratch(device, rows, leaves, SUMS)?;
        let parts = parts.view()?;
        let operands = PassOperands { given, sums: Some((&parts, leaves)), ..Default::default() };
        let mut dispatches = self.run(reduced, flags, operands)?;
        dispatches.extend(merge_sums(device, rows, leaves, &parts, target)?);
        Ok(dispatches)
    }

    /// The gradients of parameters, whose terms are summed first over the elements of a row that share one, if there are any; with
    /// the sums of rows, if the terms need them.
    fn parameters(
        &self,
        parameters: &sums::Parameters<'_>,
        plain: Flags,
        given: Option<&View<'_>>,
        workspace: &mut Workspace,
    ) -> Result<Vec<Dispatch>> {
        let (shape, affine) = (&self.spec.shape[..], &self.spec.affine.axes[..]);
        let outer: Vec<usize> =
            self.spec.reduced.iter().copied().filter(|axis| !affine.contains(axis)).collect();
        let shared: usize = outer.iter().map(|&axis| shape[axis]).product();
        if shared == 1 {
            let statistics = self.statistics(given);
            let source = Source::Tensors { operands: self.operands, statistics, given };
            return parameters.launches(source, workspace, self.stream);
        }
        let count = shape.iter().product::<usize>() / shared.max(1);
        let own = scratch(self.stream.device(), count, 1, SUMS)?;
        let view = row_view(&own, count, SUMS, 0)?;
        let mut dispatches = self.sums(&outer, plain, given, &view)?;
        let source = Source::Sums { view: &view, reduced: &outer };
        dispatches.extend(parameters.launches(source, workspace, self.stream)?);
        Ok(dispatches)
    }
}

pub(super) fn backward(
    spec: &Norm,
    operands: Backward<'_>,
    workspace: &mut Workspace,
    stream: &WgpuStream<'_>,
) -> Result<()> {
    let packs = packed::is_wanted(spec, stream);
    let packed = if packs { packed::Parameters::of_branch(spec, &operands, stream)? } else { None };
    let (packed, copies) = packed.unzip();
    let mut dispatches = copies.unwrap_or_default();
    let mut operands = operands;
    if let Some(packed) = &packed {
        [operands.branch_bias, operands.branch_scale] = packed.views()?;
    }
    let [input, before, after] = [&operands.grad_input, &operands.grad_before, &operands.grad_after]
        .map(|target| target.as_ref().map(|view| view.as_view()));
    let targets = Targets { input: input.as_ref(), before: before.as_ref(), after: after.as_ref() };
    let rounded = operands.input.dtype();
    dispatches.extend(launches_of(spec, &operands, targets, rounded, workspace, stream)?);
    stream.run("norm backward", &dispatches)
}

/// The launches that write the gradients that have the input's shape to `targets`, and the others where the operands say.
/// Normalized values are those of the dtype `rounded`, if they are rounded at all.
pub(super) fn launches_of(
    spec: &Norm,
    operands: &Backward<'_>,
    targets: Targets<'_>,
    rounded: DType,
    workspace: &mut Workspace,
    stream: &WgpuStream<'_>,
) -> Result<Vec<Dispatch>> {
    let (device, packs) = (stream.device(), packed::is_wanted(spec, stream));
    let mut dispatches = Vec::new();
    let [grad_weight, grad_bias, grad_branch_scale, grad_branch_bias, sums] = [
        &operands.grad_weight,
        &operands.grad_bias,
        &operands.grad_branch_scale,
        &operands.grad_branch_bias,
        &operands.sums,
    ]
    .map(|target| target.as_ref().map(|view| view.as_view()));
    let inner = inner::flags_again(spec, operands.inner.as_ref())?;
    let rounds = spec.round_normalized && rounded != operands.input.dtype();
    let flags = Flags { inner, rounded: Some(rounded).filter(|_| rounds), ..flags(spec)? };
    let scalars = fusion::chosen(scalars(spec), operands.rotary.as_ref());
    let reduced = &spec.reduced[..];
    let (rows, cols) = (rows(spec), cols(spec));
    let statistics = operands.statistics.as_ref();
    let wanted = [grad_weight.as_ref(), grad_bias.as_ref()];
    let of_parameters = wanted.iter().any(Option::is_some);
    let wanted_of_branch = [grad_branch_scale.as_ref(), grad_branch_bias.as_ref()];
    let of_branch = wanted_of_branch.iter().any(Option::is_some);
    if of_branch && flags.prefix && spec.affine.axes != spec.reduced {
        let name = if grad_branch_bias.is_some() { "grad_branch_bias" } else { "grad_branch_scale" };
        let expected = "none where a partial norm's parameters are not those of its columns, on WebGPU";
        return Err(Error::argument(name, expected, "a tensor"));
    }
    // The sums of a row are those of its parameters, where it shares one and its terms are the gradients'.
    let rounds = flags.round && rounded != DType::F32;
    let from_rows = of_parameters && flags.outer_weight && !rounds;

    let apply = targets.has_hidden() || targets.after.is_some();
    let given = operands.given.as_ref();
    let split = geometry::is_split(&stream.overrides(), cols);
    // A row's sums go where they are asked for, or are kept for the launches that need them.
    let needs_given = targets.has_hidden() && split || of_branch;
    let needs_sums = sums.is_some() || from_rows || needs_given && given.is_none() && !spec.frozen;
    let is_crowded = packs && (of_branch || operands.inner.is_some());
    let has_beside = is_crowded && needs_sums && sums.is_none() && statistics.is_some();
    let numbers = if has_beside { STATISTICS + SUMS } else { SUMS };
    let own = if needs_sums && sums.is_none() { Some(scratch(device, rows, 1, numbers)?) } else { None };
    let beside = own.as_ref().filter(|_| has_beside);
    let beside = beside.map(|tensor| row_view(tensor, rows, STATISTICS, 0)).transpose()?;
    if let (Some(from), Some(to), true) = (statistics, &beside, rows > 0) {
        dispatches.extend(copy::launches(from, to, stream)?);
    }
    let at = (numbers - SUMS) * rows;
    let own = own.as_ref().map(|tensor| row_view(tensor, rows, SUMS, at)).transpose()?;
    let of_rows = sums.as_ref().or(own.as_ref());
    let passes = Passes { spec, operands, stream, scalars, beside: beside.as_ref() };
    let parameters = sums::Parameters { spec, flags, scalars, wanted, branch: false };
    // The terms of a branch need the sums of rows first.
    let fused = apply && !split && given.is_none() && !of_branch;
    let compute = targets.has_hidden() && !spec.frozen || of_rows.is_some();
    let pass = Flags { compute, apply, ..flags };
    let whole_rows = PassOperands { targets, sums: of_rows.map(|view| (view, 1)), ..Default::default() };
    if fused
        && of_parameters
        && let Some(whole) = passes.fused(pass, whole_rows, &parameters, workspace)?
    {
        dispatches.extend(whole);
        return Ok(dispatches);
    }
    // The parameters' gradients come first where they read grad_output: grad_input may take its place.
    if of_parameters && !from_rows {
        let plain = Flags { plain: true, prefix: false, frozen: false, ..flags };
        dispatches.extend(passes.parameters(&parameters, plain, None, workspace)?);
    }
    if fused {
        dispatches.extend(passes.apply(pass, whole_rows)?);
    } else {
        if let Some(target) = of_rows {
            dispatches.extend(passes.sums(reduced, flags, None, target)?);
        }
        // Constant statistics need no sums.
        let given = given.or(of_rows).filter(|_| !spec.frozen);
        if of_branch {
            let of_branch = sums::Parameters { wanted: wanted_of_branch, branch: true, ..parameters };
            let plain = Flags { plain: true, branch: true, ..flags };
            dispatches.extend(passes.parameters(&of_branch, plain, given, workspace)?);
        }
        if apply {
            let flags = Flags { apply, split, ..flags };
            let operands = PassOperands { targets, given, ..Default::default() };
            dispatches.extend(passes.apply(flags, operands)?);
        }
    }
    if from_rows {
        let view = of_rows.expect("kept above");
        let source = Source::Sums { view, reduced };
        dispatches.extend(parameters.launches(source, workspace, stream)?);
    }
    Ok(dispatches)
}

/// A tensor of scratch, from its element `first` on, as `[rows, numbers]`, which may be no rows at all.
fn row_view<'t>(tensor: &'t WgpuTensor, rows: usize, numbers: usize, first: usize) -> Result<View<'t>> {
    let view = tensor.view()?;
    view.with_layout(Layout::strided(&[rows, numbers], &[numbers as isize, 1], first)?)
}
