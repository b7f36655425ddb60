//! Norms: the kernels of `shaders/norm_*.wgsl` in the order that a spec asks for. A row of one leaf takes one launch;
//! the leaves of a longer one are computed side by side, merged, and applied.

use super::between::{merge_moments, merge_sums};
use super::launch::{Dispatch, Launch, Operand, Problem, Scalars};
use super::sums::{self, Source};
use super::variant::{Entry, Flags, Kind, Role, Shape, Style};
use super::{WgpuDevice, WgpuStream, geometry};
use crate::backend::{Backward, Forward};
use crate::plan::{Walk, tree};
use crate::spec::{EpsPosition, MOMENTS, Norm, STATISTICS, SUMS, Statistic};
use crate::tensor::{DType, Tensor, View};
use crate::{Error, Result, Workspace};

/// The largest p of a norm: beyond it the power of a number below 2 leaves the range of float32.
const MOST_POWER: f64 = 100.0;

/// Whether powers are taken by multiplication.
fn is_product(p: f64) -> bool {
    p.fract() == 0.0 && p <= 64.0
}

/// A float64 number, to which `rest` is missing, as two float32 numbers.
fn two_numbers(x: f64, rest: f64) -> [f32; 2] {
    let high = x as f32;
    [high, ((x - f64::from(high)) + rest) as f32]
}

/// What of a spec is compiled into the shader.
pub(super) fn flags(spec: &Norm) -> Result<Flags> {
    let kind = match spec.statistic {
        Statistic::Moments => Kind::Moments,
        Statistic::MeanSquare => Kind::MeanSquare,
        Statistic::Norm(2.0) => Kind::Norm2,
        Statistic::Norm(1.0) => Kind::Norm1,
        Statistic::Norm(f64::INFINITY) => Kind::Largest,
        Statistic::Norm(p) if p > MOST_POWER => {
            return Err(Error::argument("p", format!("at most {MOST_POWER}, or infinity"), p));
        }
        Statistic::Norm(p) if is_product(p) => Kind::IntegerPower(p as u32),
        Statistic::Norm(_) => Kind::Power,
    };
    Ok(Flags {
        kind,
        prefix: spec.prefix < cols(spec),
        outside: spec.eps_position == EpsPosition::Outside,
        offset: spec.weight_offset != 0.0,
        round: spec.round_normalized,
        frozen: spec.frozen,
        outer_weight: spec.affine.axes.iter().all(|axis| !spec.reduced.contains(axis)),
        ..Flags::default()
    })
}

fn cols(spec: &Norm) -> usize {
    spec.reduced.iter().map(|&axis| spec.shape[axis]).product()
}

/// What of a spec is told at run time.
pub(super) fn scalars(spec: &Norm) -> Scalars {
    let eps = spec.eps as f32;
    let wide = f64::from(eps);
    let cols = cols(spec);
    let exponent = (eps.to_bits() >> 23) as i32 - 127;
    let (eps_exponent, eps_rstd) = match spec.eps_position {
        EpsPosition::Inside => (exponent.div_euclid(2), 1.0 / wide.sqrt()),
        EpsPosition::Outside | EpsPosition::Floor => (exponent, 1.0 / wide),
    };
    let last = cols - cols.saturating_sub(1) / tree::LEAF * tree::LEAF;
    let p = if let Statistic::Norm(p) = spec.statistic { p } else { 2.0 };
    let inverse = 1.0 / p;
    Scalars {
        power: two_numbers(p, 0.0),
        inv_power: two_numbers(inverse, inverse.mul_add(-p, 1.0) * inverse),
        slope_power: two_numbers(p - 1.0, 0.0),
        prefix: spec.prefix as u32,
        leaves: 1,
        turns: 1,
        inv_last: (1.0 / last as f64) as f32,
        inv_count: (1.0 / spec.prefix as f64) as f32,
        eps,
        // Without eps only the row's magnitude counts.
        eps_exponent: if eps > 0.0 { eps_exponent } else { i32::MIN / 4 },
        eps_rstd: eps_rstd as f32,
        weight_offset: spec.weight_offset as f32,
        ..Scalars::default()
    }
}

/// The launches of a norm's kernel over all rows, or over all leaves of them.
fn launches(
    problem: &Problem<'_>,
    entry: Entry,
    shape: Shape,
    flags: Flags,
    scalars: Scalars,
) -> Result<Vec<Dispatch>> {
    let cols = 0..problem.grid.cols;
    let leaves = if flags.split { cols.len().div_ceil(tree::LEAF) } else { 1 };
    if cols.is_empty() {
        return Ok(Vec::new());
    }
    // Rows of a workgroup at a time, and how often it takes more.
    let at_once = (shape.group / shape.threads) as usize;
    let turns = if flags.kept { geometry::kept_turns(problem.grid.rows, at_once) } else { 1 };
    let granule = if shape.style == Style::Column { 4 } else { 1 };
    let launch = |rows: std::ops::Range<usize>| {
        problem.prepare(Launch {
            entry,
            shape,
            flags,
            groups: geometry::groups(&shape, rows.len(), leaves).div_ceil(turns),
            rows,
            cols: cols.clone(),
            scalars: Scalars { leaves: leaves as u32, turns: turns as u32, ..scalars },
        })
    };
    problem.split(0..problem.grid.rows, &cols, granule)?.into_iter().map(launch).collect()
}

/// `numbers` float32 numbers of scratch for each leaf of each row.
fn scratch(device: &WgpuDevice, rows: usize, leaves: usize, numbers: usize) -> Result<super::WgpuTensor> {
    device.zeros(&[rows.max(1), leaves.max(1), numbers], DType::F32)
}

pub(super) fn forward(spec: &Norm, operands: &Forward<'_>, stream: &WgpuStream<'_>) -> Result<()> {
    let device = stream.device();
    let output = operands.output.as_ref().map(|view| view.as_view());
    let statistics = operands.statistics.as_ref().map(|view| view.as_view());
    let moments = operands.moments.as_ref().map(|view| view.as_view());
    let (flags, scalars) = (flags(spec)?, scalars(spec));
    let (shape, reduced) = (&spec.shape[..], &spec.reduced[..]);
    let tensor = |name, role, view: Option<&View<'_>>| Operand::new(name, role, view);
    let numbers = |name, role, view: Option<&View<'_>>, numbers, of_row| {
        Operand::per_row(name, role, view, shape, reduced, [numbers, of_row])
    };
    let input = || tensor("input", Role::Load, Some(&operands.input));
    let mask = || tensor("mask", Role::Load, operands.mask.as_ref());
    let written = || -> Result<[Option<Operand>; 3]> {
        let weight = operands.weight.as_ref().filter(|_| output.is_some());
        let bias = operands.bias.as_ref().filter(|_| output.is_some());
        Ok([
            tensor("output", Role::Store, output.as_ref())?,
            tensor("weight", Role::Load, weight)?,
            tensor("bias", Role::Load, bias)?,
        ])
    };
    let run = |problem: &Problem<'_>, flags: Flags| -> Result<Vec<Dispatch>> {
        let walk = problem.walk("input").expect("every problem here has an input");
        let style = geometry::style(&stream.overrides(), &problem.grid, walk);
        let vector = problem.is_vector() && flags.compute && may_be_held(flags);
        let form = geometry::norm(device, &stream.overrides(), style, problem.grid.cols, vector);
        let constant = flags.apply && problem.has_parameters(Walk::is_constant_in_row);
        // The row, weight and bias.
        let shared = flags.apply && !constant && problem.has_parameters(Walk::is_shared_by_rows);
        let kept = shared && geometry::keeps(device, &form, 3);
        launches(problem, Entry::NormForward, form, Flags { constant, kept, ..flags }, scalars)
    };
    let (rows, cols) = (crate::spec::Spec::Norm(spec.clone()).rows(), cols(spec));
    let split = geometry::is_split(&stream.overrides(), cols);
    let apply = output.is_some();
    if let Some(given) = &operands.given {
        let given = numbers("given", Role::Number, Some(given), STATISTICS, STATISTICS)?;
        let statistics = numbers("statistics", Role::SetNumber, statistics.as_ref(), STATISTICS, STATISTICS)?;
        let all = [input()?, mask()?, given, statistics].into_iter().chain(written()?);
        let problem = Problem::new(device, shape, reduced, all)?;
        let dispatches = run(&problem, Flags { apply, split, ..flags })?;
        return stream.run("norm forward", &dispatches);
    }
    if !split {
        let finish = apply || statistics.is_some();
        let statistics = numbers("statistics", Role::SetNumber, statistics.as_ref(), STATISTICS, STATISTICS)?;
        let moments = numbers("moments", Role::SetNumber, moments.as_ref(), MOMENTS, MOMENTS)?;
        let all = [input()?, mask()?, moments, statistics].into_iter().chain(written()?);
        let problem = Problem::new(device, shape, reduced, all)?;
        let dispatches = run(&problem, Flags { compute: true, finish, apply, ..flags })?;
        return stream.run("norm forward", &dispatches);
    }
    let leaves = cols.div_ceil(tree::LEAF);
    let parts = scratch(device, rows, leaves, MOMENTS)?;
    let parts = parts.view()?;
    let of_leaves = numbers("moments", Role::SetNumber, Some(&parts), MOMENTS * leaves, MOMENTS * leaves)?;
    let problem = Problem::new(device, shape, reduced, [input()?, mask()?, of_leaves])?;
    let mut dispatches = run(&problem, Flags { compute: true, split, ..flags })?;
    // Applying needs statistics, asked for or not.
    let own = if apply && statistics.is_none() { Some(scratch(device, rows, 1, STATISTICS)?) } else { None };
    let own = own.as_ref().map(Tensor::view).transpose()?;
    let statistics = statistics.or(own);
    dispatches.extend(merge_moments(
        device,
        spec,
        rows,
        leaves,
        &parts,
        moments.as_ref(),
        statistics.as_ref(),
    )?);
    if apply {
        let given = numbers("given", Role::Number, statistics.as_ref(), STATISTICS, STATISTICS)?;
        let all = [input()?, mask()?, given].into_iter().chain(written()?);
        let problem = Problem::new(device, shape, reduced, all)?;
        dispatches.extend(run(&problem, Flags { apply, split, ..flags })?);
    }
    stream.run("norm forward", &dispatches)
}

/// Whether a row may be kept in registers. Kept rows of real powers came out wrong on the software adapter (norms off by
/// tens of percent, from 128 columns on, where rows read again are right to the last bit); why is not known.
fn may_be_held(flags: Flags) -> bool {
    flags.kind != Kind::Power
}

/// The passes of the backward kernel: over `reduced`, which for PLAIN sums is a part of a row.
struct Passes<'s, 'e> {
    spec: &'s Norm,
    operands: &'s Backward<'s>,
    stream: &'s WgpuStream<'e>,
    scalars: Scalars,
}

impl Passes<'_, '_> {
    fn run(
        &self,
        reduced: &[usize],
        flags: Flags,
        grad_input: Option<&View<'_>>,
        given: Option<&View<'_>>,
        sums: Option<(&View<'_>, usize)>,
    ) -> Result<Vec<Dispatch>> {
        let (problem, form) = self.problem(reduced, flags, grad_input, given, sums, None)?;
        launches(&problem, Entry::NormBackward, form, flags, self.scalars)
    }

    /// The problem of a pass over `reduced`, and how its rows are shared out.
    fn problem(
        &self,
        reduced: &[usize],
        flags: Flags,
        grad_input: Option<&View<'_>>,
        given: Option<&View<'_>>,
        sums: Option<(&View<'_>, usize)>,
        partials: Option<&View<'_>>,
    ) -> Result<(Problem<'_>, Shape)> {
        let (device, shape) = (self.stream.device(), &self.spec.shape[..]);
        let statistics = self.operands.statistics.as_ref();
        let weight = self.operands.weight.as_ref().filter(|_| !flags.plain);
        let (sums, leaves) = (sums.map(|(view, _)| view), sums.map_or(1, |(_, leaves)| leaves));
        let per_row = |name, role, view, reduced: &[usize], numbers| {
            Operand::per_row(name, role, view, shape, reduced, [numbers, numbers])
        };
        let problem = Problem::new(
            device,
            shape,
            reduced,
            [
                Operand::new("grad_output", Role::Load, Some(&self.operands.grad_output))?,
                Operand::new("input", Role::Load, Some(&self.operands.input))?,
                Operand::new("grad_input", Role::Store, grad_input)?,
                Operand::new("weight", Role::Load, weight)?,
                Operand::new("mask", Role::Load, self.operands.mask.as_ref())?,
                per_row("statistics", Role::Number, statistics, &self.spec.reduced, STATISTICS)?,
                per_row("given", Role::Number, given, reduced, SUMS)?,
                per_row("sums", Role::SetNumber, sums, reduced, SUMS * leaves)?,
                partials.map(|view| Operand::flat("partials", Role::Set, view)).transpose()?.flatten(),
            ],
        )?;
        let overrides = self.stream.overrides();
        let walk = problem.walk("input").expect("every problem here has an input");
        let style = geometry::style(&overrides, &problem.grid, walk);
        let vector = problem.is_vector() && flags.compute && may_be_held(flags);
        let form = geometry::norm(device, &overrides, style, problem.grid.cols, vector);
        Ok((problem, form))
    }

    /// The gradients of input and parameters from one reading, where the rows fit registers and each of a row's columns
    /// has its own parameters. `None` where they do not.
    fn fused(
        &self,
        flags: Flags,
        grad_input: Option<&View<'_>>,
        sums: Option<&View<'_>>,
        parameters: &sums::Parameters<'_>,
        workspace: &mut Workspace,
    ) -> Result<Option<Vec<Dispatch>>> {
        let reduced = &self.spec.reduced[..];
        if self.spec.affine.axes[..] != *reduced {
            return Ok(None);
        }
        let flags = Flags { kept: true, fused: true, ..flags };
        let sums = sums.map(|view| (view, 1));
        let device = self.stream.device();
        let of_parameters = parameters.sums(&[]);
        let scratch = device.scratch(workspace, of_parameters.bytes())?;
        let (problem, form) = self.problem(reduced, flags, grad_input, None, sums, Some(&scratch))?;
        // The row, its gradient, the weight, and for each parameter the sums of a leaf of rows and of a chunk.
        if !geometry::keeps(device, &form, 7) {
            return Ok(None);
        }
        let fused = of_parameters.fused(&problem, form, flags, self.scalars)?;
        let Some(mut dispatches) = fused else { return Ok(None) };
        dispatches.extend(parameters.finish(&of_parameters, device, &scratch, &(0..problem.grid.cols))?);
        Ok(Some(dispatches))
    }

    /// Sums of all rows of `reduced`, as numbers of their leaves merged.
    fn sums(&self, reduced: &[usize], flags: Flags, target: &View<'_>) -> Result<Vec<Dispatch>> {
        let cols: usize = reduced.iter().map(|&axis| self.spec.shape[axis]).product();
        let split = geometry::is_split(&self.stream.overrides(), cols);
        let flags = Flags { compute: true, apply: false, split, ..flags };
        if !split {
            return self.run(reduced, flags, None, None, Some((target, 1)));
        }
        let (device, leaves) = (self.stream.device(), cols.div_ceil(tree::LEAF));
        let rows = target.shape().first().copied().unwrap_or(0);
        let parts = scratch(device, rows, leaves, SUMS)?;
        let parts = parts.view()?;
        let mut dispatches = self.run(reduced, flags, None, None, Some((&parts, leaves)))?;
        dispatches.extend(merge_sums(device, rows, leaves, &parts, target)?);
        Ok(dispatches)
    }
}

pub(super) fn backward(
    spec: &Norm,
    operands: &Backward<'_>,
    workspace: &mut Workspace,
    stream: &WgpuStream<'_>,
) -> Result<()> {
    let device = stream.device();
    let [grad_input, grad_weight, grad_bias, sums] =
        [&operands.grad_input, &operands.grad_weight, &operands.grad_bias, &operands.sums]
            .map(|target| target.as_ref().map(|view| view.as_view()));
    let (flags, scalars) = (flags(spec)?, scalars(spec));
    let (shape, reduced) = (&spec.shape[..], &spec.reduced[..]);
    let (rows, cols) = (crate::spec::Spec::Norm(spec.clone()).rows(), cols(spec));
    let statistics = operands.statistics.as_ref();
    let wanted = [grad_weight.as_ref(), grad_bias.as_ref()];
    let of_parameters = wanted.iter().any(Option::is_some);
    // The sums of a row are those of its parameters, where it shares one and its terms are the gradients'.
    let rounds = flags.round && operands.input.dtype() != DType::F32;
    let from_rows = of_parameters && flags.outer_weight && !rounds;

    let passes = Passes { spec, operands, stream, scalars };
    let mut dispatches = Vec::new();
    let apply = grad_input.is_some();
    let given = operands.given.as_ref();
    let split = geometry::is_split(&stream.overrides(), cols);
    // A row's sums go where they are asked for, or are kept for the launches that need them.
    let needs_sums = sums.is_some() || from_rows || apply && split && given.is_none() && !spec.frozen;
    let own = if needs_sums && sums.is_none() { Some(scratch(device, rows, 1, SUMS)?) } else { None };
    let own = own.as_ref().map(|tensor| row_view(tensor, rows, SUMS)).transpose()?;
    let of_rows = sums.as_ref().or(own.as_ref());
    let parameters = sums::Parameters { spec, flags, scalars, wanted };
    let fused = apply && !split && given.is_none();
    let pass = Flags { compute: !spec.frozen || of_rows.is_some(), apply, ..flags };
    if fused && of_parameters {
        let whole = passes.fused(pass, grad_input.as_ref(), of_rows, &parameters, workspace)?;
        if let Some(dispatches) = whole {
            return stream.run("norm backward", &dispatches);
        }
    }
    // The parameters' gradients come first where they read grad_output: grad_input may take its place.
    if of_parameters && !from_rows {
        let outer: Vec<usize> =
            reduced.iter().copied().filter(|axis| !spec.affine.axes.contains(axis)).collect();
        let shared: usize = outer.iter().map(|&axis| shape[axis]).product();
        if shared == 1 {
            let source = Source::Tensors { operands, statistics };
            dispatches.extend(parameters.launches(source, workspace, stream)?);
        } else {
            let count = shape.iter().product::<usize>() / shared.max(1);
            let own = scratch(device, count, 1, SUMS)?;
            let view = row_view(&own, count, SUMS)?;
            let plain = Flags { plain: true, prefix: false, frozen: false, ..flags };
            dispatches.extend(passes.sums(&outer, plain, &view)?);
            let source = Source::Sums { view: &view, reduced: &outer };
            dispatches.extend(parameters.launches(source, workspace, stream)?);
        }
    }
    if fused {
        dispatches.extend(passes.run(reduced, pass, grad_input.as_ref(), None, of_rows.map(|v| (v, 1)))?);
    } else {
        if let Some(target) = of_rows {
            dispatches.extend(passes.sums(reduced, flags, target)?);
        }
        if apply {
            // Constant statistics need no sums.
            let given = given.or(of_rows).filter(|_| !spec.frozen);
            let flags = Flags { apply, split, ..flags };
            dispatches.extend(passes.run(reduced, flags, grad_input.as_ref(), given, None)?);
        }
    }
    if from_rows {
        let view = of_rows.expect("kept above");
        let source = Source::Sums { view, reduced };
        dispatches.extend(parameters.launches(source, workspace, stream)?);
    }
    stream.run("norm backward", &dispatches)
}

/// A tensor of scratch as `[rows, numbers]`, which may be no rows at all.
fn row_view<'t>(tensor: &'t super::WgpuTensor, rows: usize, numbers: usize) -> Result<View<'t>> {
    let view = tensor.view()?;
    view.with_layout(crate::tensor::Layout::contiguous(&[rows, numbers]))
}
