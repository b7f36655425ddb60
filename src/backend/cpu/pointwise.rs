//! The `pointwise` schedule: a function of each element, then scale and shift. Backward sums over rows as it goes.

use super::affine::{self, ColumnSums};
use super::curve::{Curve, Gradients, Values};
use super::inverse_root::InverseRoot;
use super::lanes::{Plain, TreeSums};
use super::launch::{Folded, Order, Shared, Tiles, alone, with_scratch};
use super::memory::{Streaming, finish_streaming};
use super::real::Real;
use super::sink::Sink;
use super::source::Source;
use super::stored::typed;
use super::tanh::Tanh;
use super::{Cpu, Isa};
use crate::backend;
use crate::plan::tree::{LEAF, Pairwise, chunk_rows, lanes};
use crate::spec::{Function, Pointwise, Spec};
use crate::tensor::{Overlap, View, ViewMut, overlap};
use crate::{Error, Result, Workspace};
use std::marker::PhantomData;
use std::ops::Range;

/// Elements of a forward task, about.
const TASK: usize = 1 << 15;

/// Columns of a row that are handled together: few enough that what has to be converted stays in the first-level cache.
const PIECE: usize = LEAF / 2;

/// What the tasks of a forward pass work on.
#[derive(Clone, Copy)]
struct Forward<'a, F> {
    isa: Isa,
    function: Function,
    cols: usize,
    /// Leave to write the output past the caches.
    streamed: Option<Streaming>,
    alpha: F,
    input: Source<'a>,
    weight: Option<Source<'a>>,
    bias: Option<Source<'a>>,
    output: Sink<'a>,
}

/// What the tasks of a backward pass work on.
#[derive(Clone, Copy)]
struct Backward<'a, F> {
    isa: Isa,
    function: Function,
    cols: usize,
    alpha: F,
    grad_output: Source<'a>,
    input: Source<'a>,
    weight: Option<Source<'a>>,
    grad_input: Option<Sink<'a>>,
    /// Leave to write the input's gradient past the caches.
    streamed: Option<Streaming>,
    /// Which sums over rows are asked for: the weight's, the bias's, alpha's.
    wanted: [bool; 3],
}

/// The value of the scalar parameter.
fn alpha_of<F: Real>(alpha: Option<&View<'_>>) -> Result<F> {
    let Some(view) = alpha else { return Err(Error::argument("alpha", "a tensor of one element", "none")) };
    let mut one = [F::ZERO];
    alone(Isa::Portable, view.layout(), 0).source("alpha", view, 0, true)?.fill(0, 0, &mut one);
    Ok(one[0])
}

pub(super) fn forward<F: Real>(spec: &Pointwise, operands: &backend::Forward<'_>, cpu: &Cpu) -> Result<()> {
    let backend::Forward { input, weight, bias, alpha, output, .. } = operands;
    let Some(output) = output else { return Ok(()) };
    let in_place = overlap(input, &output.as_view()) == Overlap::Same;
    let tensors = [
        Some(input.layout()),
        Some(output.layout()),
        weight.as_ref().map(View::layout),
        bias.as_ref().map(View::layout),
    ];
    let folded = Folded::new(cpu.isa, &Order::new(spec.shape.len(), &spec.affine.axes), &tensors);
    let (rows, cols) = (folded.grid.rows, folded.grid.cols);
    let job = Forward {
        isa: cpu.isa,
        function: spec.function,
        cols,
        streamed: Streaming::of(cpu.isa, rows * cols * output.dtype().size()),
        alpha: alpha_of::<F>(alpha.as_ref())?,
        input: folded.source("input", input, 0, in_place)?,
        output: folded.sink("output", output, 1)?,
        weight: folded.optional("weight", weight.as_ref(), 2)?,
        bias: folded.optional("bias", bias.as_ref(), 3)?,
    };
    let step = TASK.div_ceil(cols.max(1));
    cpu.for_each(rows.div_ceil(step), step * cols, |task| {
        with_scratch(0, |tiles, _| forward_rows(&job, task * step..rows.min((task + 1) * step), tiles));
    });
    Ok(())
}

/// `y = f(alpha, x) * w + b` for rows `rows`.
fn forward_rows<F: Real>(job: &Forward<'_, F>, rows: Range<usize>, tiles: Tiles<'_, F>) {
    match job.function {
        Function::Tanh => forward_with::<Tanh, F>(job, rows, tiles),
        Function::InverseSquareRoot => forward_with::<InverseRoot, F>(job, rows, tiles),
    }
}

fn forward_with<C: Curve<F>, F: Real>(job: &Forward<'_, F>, rows: Range<usize>, tiles: Tiles<'_, F>) {
    let alpha = job.alpha;
    let [x_tile, w_tile, b_tile, out_tile, ..] = tiles;
    for first in (0..job.cols).step_by(PIECE) {
        let len = PIECE.min(job.cols - first);
        // Multiplying by one and adding minus zero change nothing.
        let w = load_or(job.weight, first, w_tile, len, F::ONE);
        let b = load_or(job.bias, first, b_tile, len, -F::ZERO);
        for row in rows.clone() {
            let (next, curve) = (job.input.upcoming(row + 1, first), PhantomData::<C>);
            // From memory to memory where it holds both side by side.
            macro_rules! run {
                ($t:ty) => {
                    if let (Some(x), Some(out)) =
                        (job.input.lend::<$t>(row, first, len), job.output.lend::<$t>(row, first, len))
                    {
                        let streamed = job.streamed.and_then(|streaming| streaming.to(out));
                        job.isa.run(Values { alpha, x, w, b, out, streamed, next, curve });
                        continue;
                    }
                };
            }
            typed!(job.input.dtype(), F, run);
            let x = job.input.load(row, first, x_tile, len);
            let out = job.output.begin(row, first, out_tile, len);
            job.isa.run(Values { alpha, x, w, b, out: &mut *out, streamed: None, next, curve });
            job.output.commit(row, first, out);
        }
    }
    if job.streamed.is_some() {
        finish_streaming();
    }
}

/// Columns of a parameter; `absent` where there is none.
fn load_or<'t, F: Real>(
    parameter: Option<Source<'t>>,
    first: usize,
    tile: &'t mut [F],
    len: usize,
    absent: F,
) -> &'t [F] {
    match parameter {
        Some(parameter) => parameter.load(0, first, tile, len),
        None => {
            tile[..len].fill(absent);
            &tile[..len]
        }
    }
}

pub(super) fn backward<F: Real>(
    spec: &Pointwise,
    operands: &backend::Backward<'_>,
    workspace: &mut Workspace,
    cpu: &Cpu,
) -> Result<()> {
    let backend::Backward { grad_output, input, weight, alpha, grad_input, .. } = operands;
    let in_place =
        (grad_input.as_ref()).is_some_and(|to| overlap(grad_output, &to.as_view()) == Overlap::Same);
    let tensors = [
        Some(grad_output.layout()),
        Some(input.layout()),
        grad_input.as_ref().map(ViewMut::layout),
        weight.as_ref().map(View::layout),
    ];
    let order = Order::new(spec.shape.len(), &spec.affine.axes);
    let folded = Folded::new(cpu.isa, &order, &tensors);
    let (rows, cols) = (folded.grid.rows, folded.grid.cols);
    let targets = [&operands.grad_weight, &operands.grad_bias, &operands.grad_alpha];
    let job = Backward {
        isa: cpu.isa,
        function: spec.function,
        cols,
        alpha: alpha_of::<F>(alpha.as_ref())?,
        grad_output: folded.source("grad_output", grad_output, 0, in_place)?,
        input: folded.source("input", input, 1, false)?,
        grad_input: folded.optional_sink("grad_input", grad_input.as_ref(), 2)?,
        weight: folded.optional("weight", weight.as_ref(), 3)?,
        streamed: Streaming::of(cpu.isa, rows * cols * grad_output.dtype().size()),
        wanted: targets.map(|target| target.is_some()),
    };
    let stride = cols * job.wanted.into_iter().filter(|&wanted| wanted).count();
    let params = backend::params_per_column(&Spec::Pointwise(spec.clone()));
    let chunk = chunk_rows(rows, cols, params, size_of::<F>());
    let partials = workspace.host::<F>(rows.div_ceil(chunk) * stride)?;
    let shared = Shared::new(&mut *partials);
    cpu.for_each(rows.div_ceil(chunk), chunk * cols, |index| {
        let range = index * chunk..rows.min((index + 1) * chunk);
        // SAFETY: this task alone has this chunk.
        let sums = unsafe { shared.part(index * stride..(index + 1) * stride) };
        with_scratch(stride, |tiles, leaves| backward_rows(&job, range, sums, leaves, tiles));
    });
    let mut offset = 0;
    for (name, target) in ["grad_weight", "grad_bias"].into_iter().zip(targets) {
        let Some(target) = target else { continue };
        let alone = alone(cpu.isa, &order.parameter(&spec.affine.axes, target.layout()), 0);
        affine::finish(&alone.sink(name, target, 0)?, partials, stride, offset, cols, cpu);
        offset += cols;
    }
    let Some(target) = &operands.grad_alpha else { return Ok(()) };
    let alone = alone(cpu.isa, target.layout(), 0);
    finish_alpha(&alone.sink("grad_alpha", target, 0)?, partials, stride, offset, cols, cpu);
    Ok(())
}

/// Gradients of the rows of one chunk. `partials` receives the chunk's sums: weight's, bias's, alpha's, of those asked.
fn backward_rows<F: Real>(
    job: &Backward<'_, F>,
    rows: Range<usize>,
    mut partials: &mut [F],
    mut leaves: &mut [F],
    tiles: Tiles<'_, F>,
) {
    let sums = job.wanted.map(|wanted| {
        let len = if wanted { job.cols } else { 0 };
        let (chunk, leaf);
        (chunk, partials) = std::mem::take(&mut partials).split_at_mut(len);
        (leaf, leaves) = std::mem::take(&mut leaves).split_at_mut(len);
        wanted.then(|| ColumnSums::new(job.isa, leaf, chunk))
    });
    match job.function {
        Function::Tanh => backward_with::<Tanh, F>(job, rows, sums, tiles),
        Function::InverseSquareRoot => backward_with::<InverseRoot, F>(job, rows, sums, tiles),
    }
}

fn backward_with<C: Curve<F>, F: Real>(
    job: &Backward<'_, F>,
    rows: Range<usize>,
    mut sums: [Option<ColumnSums<'_, F>>; 3],
    tiles: Tiles<'_, F>,
) {
    let alpha = job.alpha;
    let [x_tile, g_tile, w_tile, out_tile, ..] = tiles;
    for first in (0..job.cols).step_by(PIECE) {
        let len = PIECE.min(job.cols - first);
        let w = load_or(job.weight, first, w_tile, len, F::ONE);
        for (index, row) in rows.clone().enumerate() {
            let (next, curve) = (
                [&job.grad_output, &job.input].map(|source| source.upcoming(row + 1, first)),
                PhantomData::<C>,
            );
            let sums = sums.each_mut().map(|sums| {
                let sums = sums.as_mut()?;
                sums.begin_row(index, first..first + len);
                Some(sums.columns(first, len))
            });
            macro_rules! run {
                ($t:ty) => {{
                    let elements =
                        (job.grad_output.lend::<$t>(row, first, len), job.input.lend::<$t>(row, first, len));
                    let dx = job.grad_input.map(|sink| sink.lend::<$t>(row, first, len));
                    if let ((Some(g), Some(x)), None | Some(Some(_))) = (elements, &dx) {
                        let dx = dx.flatten();
                        let streamed =
                            (job.streamed.zip(dx.as_deref())).and_then(|(streaming, dx)| streaming.to(dx));
                        job.isa.run(Gradients { alpha, g, x, w, dx, sums, streamed, next, curve });
                        continue;
                    }
                }};
            }
            typed!(job.input.dtype(), F, run);
            let x = job.input.load(row, first, x_tile, len);
            let g = job.grad_output.load(row, first, g_tile, len);
            let mut dx = (job.grad_input.as_ref()).map(|sink| sink.begin(row, first, out_tile, len));
            let (to, streamed) = (dx.as_deref_mut(), None);
            job.isa.run(Gradients { alpha, g, x, w, dx: to, sums, streamed, next, curve });
            if let (Some(sink), Some(dx)) = (&job.grad_input, dx) {
                // In place, `g` has been copied to its tile before this replaces it.
                sink.commit(row, first, dx);
            }
        }
    }
    if job.streamed.is_some() {
        finish_streaming();
    }
    for sums in sums.into_iter().flatten() {
        sums.finish();
    }
}

/// Writes the scalar parameter's gradient: its sums over rows, added column by column like a row.
fn finish_alpha<F: Real>(
    sink: &Sink<'_>,
    partials: &[F],
    stride: usize,
    offset: usize,
    cols: usize,
    cpu: &Cpu,
) {
    with_scratch::<F, _>(0, |[columns, ..], _| {
        let mut sums = Pairwise::default();
        for first in (0..cols).step_by(LEAF) {
            let columns = &mut columns[..LEAF.min(cols - first)];
            affine::sum_chunks(partials, stride, offset + first, columns);
            sums.push(cpu.isa.run(TreeSums::new(lanes(cols), Plain(&*columns)))[0]);
        }
        let mut one = [F::ZERO];
        let out = sink.begin(0, 0, &mut one, 1);
        out[0] = sums.total();
        sink.commit(0, 0, out);
    });
}
