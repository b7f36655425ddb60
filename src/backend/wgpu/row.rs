//! The `row` schedule: `shaders/row_forward.wgsl` and `shaders/row_backward.wgsl`.

use super::launch::{Extent, Folded, Launch, Operand, Problem, Scalars};
use super::sums::Sums;
use super::variant::{Entry, Flags, Role};
use super::{WgpuStream, geometry};
use crate::backend::{Backward, Forward};
use crate::plan::tree;
use crate::spec::{EpsPosition, Norm, STATISTICS, Spec, Statistic};
use crate::{Result, Workspace};

/// What of a spec is compiled into the shader.
fn flags(spec: &Norm, cols: usize) -> Flags {
    Flags {
        moments: spec.statistic == Statistic::Moments,
        prefix: spec.prefix < cols,
        outside: spec.eps_position == EpsPosition::Outside,
        offset: spec.weight_offset != 0.0,
        round: spec.round_normalized,
        sums: [false; 3],
    }
}

/// What of a spec is told at run time.
fn scalars(spec: &Norm, cols: usize) -> Scalars {
    let eps = spec.eps as f32;
    let wide = f64::from(eps);
    let exponent = (eps.to_bits() >> 23) as i32 - 127;
    let (eps_exponent, eps_rstd) = match spec.eps_position {
        EpsPosition::Inside => (exponent.div_euclid(2), 1.0 / wide.sqrt()),
        EpsPosition::Outside | EpsPosition::Floor => (exponent, 1.0 / wide),
    };
    Scalars {
        prefix: spec.prefix as u32,
        leaves: cols.div_ceil(tree::LEAF) as u32,
        inv_k: (1.0 / spec.prefix as f64) as f32,
        eps,
        // Without eps only the row's magnitude counts.
        eps_exponent: if eps > 0.0 { eps_exponent } else { i32::MIN / 4 },
        eps_rstd: eps_rstd as f32,
        weight_offset: spec.weight_offset as f32,
        ..Scalars::default()
    }
}

pub(super) fn forward(
    whole: &Spec,
    spec: &Norm,
    operands: &Forward<'_>,
    stream: &WgpuStream<'_>,
) -> Result<()> {
    let Forward { input, weight, bias, output, statistics, .. } = operands;
    let Some(output) = output else { todo!("TEMPORARY") };
    let output = output.as_view();
    let statistics = statistics.as_ref().map(|view| view.as_view());
    let (weight, bias) = (weight.as_ref(), bias.as_ref());
    let folded = Folded::new(whole, &[input.layout(), output.layout()], [weight, bias, None]);
    let Folded { grid, full, row } = &folded;
    let problem = Problem::new(
        stream.device(),
        grid,
        [
            Operand::new("input", Role::Load, Some(input), Extent::Full(&full[0]))?,
            Operand::new("output", Role::Store, Some(&output), Extent::Full(&full[1]))?,
            Operand::new("weight", Role::Load, weight, row[0].extent())?,
            Operand::new("bias", Role::Load, bias, row[1].extent())?,
            Operand::new("statistics", Role::Set, statistics.as_ref(), Extent::PerRow(STATISTICS))?,
        ],
    )?;
    let shape = geometry::row(stream.device(), &stream.overrides(), grid.cols, problem.is_vector());
    let mut dispatches = Vec::new();
    let at_once = (shape.group / shape.threads) as usize;
    for rows in problem.split(0..grid.rows, &(0..grid.cols), 1)? {
        dispatches.push(problem.prepare(Launch {
            entry: Entry::RowForward,
            shape,
            flags: flags(spec, grid.cols),
            groups: rows.len().div_ceil(at_once),
            rows,
            cols: 0..grid.cols,
            scalars: scalars(spec, grid.cols),
        })?);
    }
    stream.run("row forward", &dispatches)
}

pub(super) fn backward(
    whole: &Spec,
    spec: &Norm,
    operands: &Backward<'_>,
    workspace: &mut Workspace,
    stream: &WgpuStream<'_>,
) -> Result<()> {
    let Backward { grad_output, input, weight, statistics, .. } = operands;
    let [grad_input, grad_weight, grad_bias] =
        [&operands.grad_input, &operands.grad_weight, &operands.grad_bias]
            .map(|target| target.as_ref().map(|view| view.as_view()));
    let weight = weight.as_ref();
    let target = grad_input.as_ref().unwrap_or(grad_output);
    let folded = Folded::new(
        whole,
        &[grad_output.layout(), input.layout(), target.layout()],
        [weight, grad_weight.as_ref(), grad_bias.as_ref()],
    );
    let Folded { grid, full, row } = &folded;
    let (flags, scalars) = (flags(spec, grid.cols), scalars(spec, grid.cols));
    let device = stream.device();
    let both = || -> Result<[Option<Operand<'_>>; 3]> {
        Ok([
            Operand::new("grad_output", Role::Load, Some(grad_output), Extent::Full(&full[0]))?,
            Operand::new("input", Role::Load, Some(input), Extent::Full(&full[1]))?,
            Operand::new("statistics", Role::Get, statistics.as_ref(), Extent::PerRow(STATISTICS))?,
        ])
    };
    let mut dispatches = Vec::new();
    // The parameters' gradients first: grad_input may take grad_output's place.
    let wanted = [grad_weight.as_ref(), grad_bias.as_ref(), None];
    let sums = Sums::new(wanted.map(|view| view.is_some()), 2, grid);
    if sums.is_wanted() {
        let scratch = device.scratch(workspace, sums.bytes())?;
        for cols in sums.blocks(grid.cols) {
            let partials = Operand::new("partials", Role::Set, Some(&scratch), Extent::Whole)?;
            let problem = Problem::new(device, grid, both()?.into_iter().chain([partials]))?;
            let of_block = sums.scalars(&cols, scalars);
            dispatches.extend(sums.partials(&problem, Entry::Affine, flags, &cols, of_block)?);
            for (index, (view, walk)) in wanted.iter().zip(&row[1..]).enumerate() {
                let gradient = Operand::new("gradient", Role::Store, *view, walk.extent())?;
                let Some(gradient) = gradient else { continue };
                dispatches.push(sums.finish(device, grid, &scratch, Some(gradient), index, &cols)?);
            }
        }
    }
    if grad_input.is_some() {
        let target = Operand::new("grad_input", Role::Store, grad_input.as_ref(), Extent::Full(&full[2]))?;
        let weight = Operand::new("weight", Role::Load, weight, row[0].extent())?;
        let problem = Problem::new(device, grid, both()?.into_iter().chain([target, weight]))?;
        let shape = geometry::row(device, &stream.overrides(), grid.cols, problem.is_vector());
        let at_once = (shape.group / shape.threads) as usize;
        for rows in problem.split(0..grid.rows, &(0..grid.cols), 1)? {
            dispatches.push(problem.prepare(Launch {
                entry: Entry::RowBackward,
                shape,
                flags,
                groups: rows.len().div_ceil(at_once),
                rows,
                cols: 0..grid.cols,
                scalars,
            })?);
        }
    }
    stream.run("row backward", &dispatches)
}
