//! The `row` schedule: `shaders/row_forward.wgsl` and `shaders/row_backward.wgsl`.

use super::WgpuStream;
use super::geometry;
use super::launch::{Extent, Launch, Operand, Problem, Scalars};
use super::variant::{Entry, Flags, Role};
use crate::backend::{Backward, Forward};
use crate::plan::{fold, tree};
use crate::spec::{EpsPosition, Row, STATISTICS, Statistic};
use crate::tensor::Layout;
use crate::{Result, Workspace};

/// What of a spec is compiled into the shader.
fn flags(spec: &Row, cols: usize) -> Flags {
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
fn scalars(spec: &Row, cols: usize) -> Scalars {
    let eps = spec.eps as f32;
    let wide = f64::from(eps);
    let exponent = (eps.to_bits() >> 23) as i32 - 127;
    let (eps_exponent, eps_rstd) = match spec.eps_position {
        EpsPosition::Inside => (exponent.div_euclid(2), 1.0 / wide.sqrt()),
        EpsPosition::Outside => (exponent, 1.0 / wide),
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

pub(super) fn forward(spec: &Row, operands: &Forward<'_>, stream: &WgpuStream<'_>) -> Result<()> {
    let Forward { input, parameters, output, statistics } = operands;
    let output = output.as_view();
    let statistics = statistics.as_ref().map(|view| view.as_view());
    let (weight, bias) = (parameters.weight.as_ref(), parameters.bias.as_ref());
    let given: Vec<&Layout> = [weight, bias].into_iter().flatten().map(|view| view.layout()).collect();
    let (grid, walks) = fold(input.shape(), spec.axes, &[input.layout(), output.layout()], &given);
    let mut params = walks[2..].iter();
    let mut param = |present: bool| if present { params.next().map_or(Extent::Whole, Extent::Row) } else { Extent::Whole };
    let problem = Problem::new(
        stream.device(),
        &grid,
        [
            Operand::new("input", Role::Load, Some(input), Extent::Full(&walks[0]))?,
            Operand::new("output", Role::Store, Some(&output), Extent::Full(&walks[1]))?,
            Operand::new("weight", Role::Load, weight, param(weight.is_some()))?,
            Operand::new("bias", Role::Load, bias, param(bias.is_some()))?,
            Operand::new("statistics", Role::Set, statistics.as_ref(), Extent::PerRow(STATISTICS))?,
        ],
    )?;
    let shape = geometry::row(stream.device(), &stream.overrides(), grid.cols);
    let mut dispatches = Vec::new();
    for rows in problem.split(0..grid.rows, &(0..grid.cols), 1)? {
        dispatches.push(problem.prepare(Launch {
            entry: Entry::RowForward,
            shape,
            flags: flags(spec, grid.cols),
            groups: rows.len().div_ceil((shape.group / shape.threads) as usize),
            rows,
            cols: 0..grid.cols,
            scalars: scalars(spec, grid.cols),
        })?);
    }
    stream.run("row forward", &dispatches)
}

pub(super) fn backward(
    _spec: &Row,
    _operands: &Backward<'_>,
    _workspace: &mut Workspace,
    _stream: &WgpuStream<'_>,
) -> Result<()> {
    Ok(())
}
