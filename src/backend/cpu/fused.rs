//! Norms with something before or after them, in one pass over memory: rows pass through scratch memory that stays in the
//! caches, where the prologue puts what is normalized, the norm's own schedule for rows handles it like any other tensor,
//! and the epilogue takes the result from. Nothing that computes a norm knows of it.

use super::Cpu;
use super::fusion::{
    Added, Each, GateGradients, Gated, Gelu, GeluSlope, OfElements, Relu, ReluSlope, Scaled, Silu, SiluSlope,
    Sum, SumScaled,
};
use super::launch::{Tiles, with_scratch};
use super::memory::{Streaming, finish_streaming};
use super::norm::TASK;
use super::real::Real;
use super::row;
use super::row_backward;
use super::sink::Sink;
use super::source::Source;
use super::usual_backward::TaskRows;
use crate::plan::{Grid, Walk};
use crate::spec::{Activation, Epilogue, Fusion, Prologue};
use crate::tensor::Dims;
use std::marker::PhantomData;
use std::ops::Range;

/// Elements of the rows that are in scratch memory together, about: a few tensors of them fit the first-level cache.
const BLOCK: usize = 2048;
/// Elements that the operations around a norm take at a time.
const PIECE: usize = 1024;

/// A forward pass with what surrounds it.
pub(super) struct Forward<'a, F> {
    pub(super) job: row::Forward<'a, F>,
    pub(super) fusion: Fusion,
    pub(super) before: Option<Source<'a>>,
    pub(super) after: Option<Source<'a>>,
    pub(super) hidden: Option<Sink<'a>>,
    pub(super) streamed_hidden: Option<Streaming>,
}

/// A backward pass with what surrounds it.
pub(super) struct Backward<'a, F> {
    pub(super) job: row_backward::Backward<'a, F>,
    pub(super) fusion: Fusion,
    pub(super) bias: Option<Source<'a>>,
    pub(super) before: Option<Source<'a>>,
    pub(super) after: Option<Source<'a>>,
    pub(super) grad_hidden: Option<Source<'a>>,
    pub(super) grad_before: Option<Sink<'a>>,
    pub(super) grad_after: Option<Sink<'a>>,
}

/// How rows lie that follow each other in scratch memory, the first of them being row `first`.
fn side_by_side(grid: &Grid, first: usize) -> Walk {
    let steps = |sizes: &[usize], inside: usize| -> Dims<isize> {
        (0..sizes.len()).map(|axis| (sizes[axis + 1..].iter().product::<usize>() * inside) as isize).collect()
    };
    Walk {
        outer: steps(&grid.outer, grid.cols),
        inner: steps(&grid.inner, 1),
        // As a signed number, where offsets are added up.
        offset: (first * grid.cols).wrapping_neg(),
        contiguous: true,
    }
}

/// Pieces of the columns of some rows: row, first column, length, and place among all.
fn pieces(rows: Range<usize>, cols: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    let first = rows.start;
    rows.flat_map(move |row| {
        (0..cols).step_by(PIECE).map(move |at| (row, at, PIECE.min(cols - at), (row - first) * cols + at))
    })
}

/// Writes `f` of some columns of a row to a tensor.
fn write<F: Real, O: OfElements<F>>(
    job: (super::Isa, Option<Streaming>),
    f: O,
    operands: [&[F]; 3],
    sink: &Sink<'_>,
    (row, at): (usize, usize),
    tile: &mut [F],
) {
    let (isa, streamed) = job;
    let len = operands[0].len();
    let streamed = streamed.filter(|_| sink.is_direct::<F>(row, at, len));
    let to = sink.begin(row, at, tile, len);
    isa.run(Each { f, operands, to: &mut *to, also: None, streamed });
    sink.commit(row, at, to);
}

macro_rules! function {
    ($name:ident $(, $field:ident: $value:expr)*) => {
        $name { $($field: $value,)* of: PhantomData }
    };
}

/// Puts what is normalized of some rows into `line`, and into the hidden tensor where there is one.
fn hide<F: Real>(
    fusion: Fusion,
    [input, before]: [&Source<'_>; 2],
    hidden: Option<(&Sink<'_>, Option<Streaming>)>,
    (isa, cols): (super::Isa, usize),
    rows: Range<usize>,
    line: &mut [F],
    [x, other]: [&mut [F]; 2],
) {
    for (row, at, len, place) in pieces(rows, cols) {
        let x = input.load(row, at, x, len);
        let other = before.load(row, at, other, len);
        let to = &mut line[place..place + len];
        // Straight to memory that holds the compute type, else by way of the line.
        let mut direct = hidden.and_then(|(sink, _)| sink.lend::<F>(row, at, len));
        let streamed = hidden.and_then(|(_, streamed)| streamed);
        let operands = [x, other, x];
        let (to, also) = (&mut *to, direct.as_deref_mut());
        match fusion.prologue {
            Prologue::Residual { input_scale, residual_scale } => {
                let (first, second) = (F::of(input_scale), F::of(residual_scale));
                let f = function!(Sum, first: first, second: second);
                isa.run(Each { f, operands, to, also, streamed });
            }
            _ => isa.run(Each { f: function!(Gated), operands, to, also, streamed }),
        }
        if let (Some((sink, _)), None) = (hidden, direct) {
            sink.commit(row, at, &line[place..place + len]);
        }
    }
}

impl<F: Real> Forward<'_, F> {
    /// Runs all rows, a chunk of them a task.
    pub(super) fn run(&self, cpu: &Cpu) {
        let (rows, cols) = (self.job.rows, self.job.constants.cols);
        let at_once = (BLOCK / cols.max(1)).max(1);
        let step = TASK.div_ceil(cols.max(1)).next_multiple_of(at_once);
        cpu.for_each(rows.div_ceil(step), step * cols, |task| {
            with_scratch::<F, _>(2 * at_once.min(rows) * cols, |mut tiles, lines| {
                let end = rows.min((task + 1) * step);
                for first in (task * step..end).step_by(at_once) {
                    self.rows(first..end.min(first + at_once), lines, &mut tiles);
                }
            });
            if self.job.streamed.is_some() || self.streamed_hidden.is_some() {
                finish_streaming();
            }
        });
    }

    fn rows(&self, rows: Range<usize>, lines: &mut [F], tiles: &mut Tiles<'_, F>) {
        let Forward { job, fusion, .. } = self;
        let (isa, cols, grid) = (job.constants.isa, job.constants.cols, job.input.grid());
        let walk = side_by_side(grid, rows.start);
        let (hidden, result) = lines.split_at_mut(lines.len() / 2);
        let mut of_line = *job;
        if let Some(before) = &self.before {
            let [x, other, ..] = tiles;
            let sink = self.hidden.as_ref().filter(|_| job.output.is_some());
            let sink = sink.map(|sink| (sink, self.streamed_hidden));
            hide(*fusion, [&job.input, before], sink, (isa, cols), rows.clone(), hidden, [x, other]);
            of_line.input = Source::of_sink(&Sink::of_line(hidden, grid, &walk, isa)).lent();
        }
        // Rows are quickest where input and output have one dtype.
        let is_last = fusion.epilogue == Epilogue::None
            && job.output.is_some_and(|sink| sink.dtype() == of_line.input.dtype());
        if !is_last && job.output.is_some() {
            of_line.output = Some(Sink::of_line(&mut *result, grid, &walk, isa));
            of_line.streamed = None;
        }
        let lent = tiles.each_mut().map(|tile| &mut **tile);
        row::Rows::new(&of_line, lent).forward(rows.clone());
        let Some(sink) = job.output.as_ref().filter(|_| !is_last) else { return };
        let [other, out, ..] = tiles;
        for (row, at, len, place) in pieces(rows, cols) {
            let v = &result[place..place + len];
            let other = self.after.as_ref().map(|after| after.load(row, at, &mut *other, len));
            let (operands, to) = ([v, other.unwrap_or(v), v], (row, at));
            let job = (isa, job.streamed);
            match fusion.epilogue {
                Epilogue::Activation(Activation::Relu) => {
                    write(job, function!(Relu), operands, sink, to, out);
                }
                Epilogue::Activation(Activation::Silu) => {
                    write(job, function!(Silu), operands, sink, to, out);
                }
                Epilogue::Activation(Activation::GeluTanh) => {
                    write(job, function!(Gelu), operands, sink, to, out);
                }
                Epilogue::Gate => write(job, function!(Gated), operands, sink, to, out),
                Epilogue::Residual => write(job, function!(Added), operands, sink, to, out),
                Epilogue::None => sink.commit(row, at, v),
            }
        }
    }
}

impl<F: Real> Backward<'_, F> {
    /// Numbers of scratch memory for a task's rows.
    pub(super) fn scratch(&self, rows: &TaskRows) -> usize {
        2 * self.at_once(rows) * rows.beside.len() * self.job.constants.cols
    }

    /// How many of the chunk's rows, each with those beside it, are in scratch memory together.
    fn at_once(&self, rows: &TaskRows) -> usize {
        let is_whole = rows.beside.len() == rows.kept;
        let each = (rows.beside.len() * self.job.constants.cols).max(1);
        if is_whole { (BLOCK / each).clamp(1, rows.chunk.len().max(1)) } else { 1 }
    }

    /// The parts of a task's rows that are in scratch memory together: each as a task that ends with it, and the place in
    /// which it begins.
    pub(super) fn blocks(&self, rows: &TaskRows) -> impl Iterator<Item = (TaskRows, usize)> + use<F> {
        let (rows, at_once) = (rows.clone(), self.at_once(rows));
        rows.chunk.clone().step_by(at_once).map(move |start| {
            let end = rows.chunk.end.min(start + at_once);
            let from = (start - rows.chunk.start) * rows.beside.len();
            (TaskRows { chunk: rows.chunk.start..end, ..rows.clone() }, from)
        })
    }

    /// Runs `body` on a pass whose rows from place `from` of `rows` on lie in scratch memory, as the gradients of what it
    /// normalizes do, and takes these on to the tensors.
    pub(super) fn with_rows(
        &self,
        rows: &TaskRows,
        from: usize,
        lines: &mut [F],
        tiles: &mut Tiles<'_, F>,
        body: impl FnOnce(&row_backward::Backward<'_, F>, Tiles<'_, F>),
    ) {
        let Backward { job, fusion, .. } = self;
        let (isa, cols, grid) = (job.constants.isa, job.constants.cols, job.input.grid());
        let first = rows.row(from).0;
        let rows = first..first + (rows.len() - from);
        let walk = side_by_side(grid, first);
        let (hidden, gradient) = lines.split_at_mut(lines.len() / 2);
        let mut of_line = *job;
        if let Some(before) = &self.before {
            let [x, other, ..] = tiles;
            hide(*fusion, [&job.input, before], None, (isa, cols), rows.clone(), hidden, [x, other]);
            of_line.input = Source::of_sink(&Sink::of_line(hidden, grid, &walk, isa)).lent();
        }
        let to = Sink::of_line(&mut *gradient, grid, &walk, isa);
        match fusion.epilogue {
            Epilogue::None => {}
            Epilogue::Residual => self.copy_gradient(rows.clone(), tiles),
            Epilogue::Activation(_) | Epilogue::Gate => {
                self.bend(&of_line, to, rows.clone(), tiles);
                of_line.grad_output = Source::of_sink(&to);
            }
        }
        let is_line = job.grad_input.is_some() || self.grad_before.is_some();
        let is_line = is_line && fusion.prologue != Prologue::None;
        if is_line {
            of_line.grad_input = Some(to);
            of_line.streamed = None;
        }
        body(&of_line, tiles.each_mut().map(|tile| &mut **tile));
        if is_line {
            self.unhide(Source::of_sink(&to).lent(), rows, tiles);
        }
    }

    /// The gradient of a residual that was added last.
    fn copy_gradient(&self, rows: Range<usize>, [g, out, ..]: &mut Tiles<'_, F>) {
        let Some(sink) = &self.grad_after else { return };
        let c = &self.job.constants;
        for (row, at, len, _) in pieces(rows, c.cols) {
            let g = self.job.grad_output.load(row, at, g, len);
            write((c.isa, None), function!(Scaled, factor: F::ONE), [g; 3], sink, (row, at), out);
        }
    }

    /// Puts the gradient of what the epilogue was given to `to`, and writes that of its other operand.
    fn bend(
        &self,
        of_line: &row_backward::Backward<'_, F>,
        to: Sink<'_>,
        rows: Range<usize>,
        tiles: &mut Tiles<'_, F>,
    ) {
        let Backward { job, fusion, .. } = self;
        let (isa, cols) = (job.constants.isa, job.constants.cols);
        if fusion.epilogue.is_curved() || self.grad_after.is_some() {
            let forward = row::Forward {
                constants: job.constants,
                rows: job.rows,
                streamed: None,
                input: of_line.input,
                weight: job.weight,
                bias: self.bias,
                mask: job.mask,
                given: Some(job.statistics),
                output: Some(to),
                statistics: None,
                moments: None,
            };
            let lent = tiles.each_mut().map(|tile| &mut **tile);
            row::Rows::new(&forward, lent).forward(rows.clone());
        }
        let [g, v, z, out, more, ..] = tiles;
        for (row, at, len, _) in pieces(rows, cols) {
            let g = job.grad_output.load(row, at, &mut *g, len);
            let v = Source::of_sink(&to).load(row, at, &mut *v, len);
            let place = (row, at);
            let job = (isa, None);
            match (fusion.epilogue, &self.after) {
                (Epilogue::Activation(Activation::Relu), _) => {
                    write(job, function!(ReluSlope), [g, v, g], &to, place, out);
                }
                (Epilogue::Activation(Activation::Silu), _) => {
                    write(job, function!(SiluSlope), [g, v, g], &to, place, out);
                }
                (Epilogue::Activation(Activation::GeluTanh), _) => {
                    write(job, function!(GeluSlope), [g, v, g], &to, place, out);
                }
                (_, Some(after)) => {
                    let z = after.load(row, at, &mut *z, len);
                    let Some(sink) = &self.grad_after else {
                        write(job, function!(Gated), [g, z, g], &to, place, out);
                        continue;
                    };
                    let of_gate = sink.begin(row, at, &mut *out, len);
                    let of_factor = to.begin(row, at, &mut *more, len);
                    isa.run(GateGradients { a: g, b: v, z, of_factor, of_gate: &mut *of_gate });
                    sink.commit(row, at, of_gate);
                }
                (_, None) => {}
            }
        }
    }

    /// From the gradient of what is normalized, to which that of the hidden value is added, to those of the input and of the
    /// prologue's other operand.
    fn unhide(&self, of_norm: Source<'_>, rows: Range<usize>, tiles: &mut Tiles<'_, F>) {
        let Backward { job, fusion, .. } = self;
        let (isa, cols) = (job.constants.isa, job.constants.cols);
        let [d, more, x, z, out, of_gate, ..] = tiles;
        for (row, at, len, _) in pieces(rows, cols) {
            let place = (row, at);
            let write_to = (isa, job.streamed);
            let d = of_norm.load(row, at, &mut *d, len);
            let of_hidden = self.grad_hidden.as_ref().map(|gradient| gradient.load(row, at, &mut *more, len));
            if let Prologue::Residual { input_scale, residual_scale } = fusion.prologue {
                let scales = [(job.grad_input, input_scale), (self.grad_before, residual_scale)];
                for (sink, factor) in scales {
                    let (Some(sink), factor) = (&sink, F::of(factor)) else { continue };
                    match of_hidden {
                        Some(more) => {
                            write(
                                write_to,
                                function!(SumScaled, factor: factor),
                                [d, more, d],
                                sink,
                                place,
                                out,
                            );
                        }
                        None => write(write_to, function!(Scaled, factor: factor), [d; 3], sink, place, out),
                    }
                }
                continue;
            }
            let (Prologue::Gate, Some(before)) = (fusion.prologue, &self.before) else { continue };
            let z = before.load(row, at, &mut *z, len);
            let x = job.input.load(row, at, &mut *x, len);
            let mut summed = [F::ZERO; PIECE];
            let d = match of_hidden {
                Some(more) => {
                    let to = &mut summed[..len];
                    isa.run(Each {
                        f: function!(Added),
                        operands: [d, more, d],
                        to,
                        also: None,
                        streamed: None,
                    });
                    &summed[..len]
                }
                None => d,
            };
            let (to_input, to_gate) = (&mut out[..len], &mut of_gate[..len]);
            isa.run(GateGradients { a: d, b: x, z, of_factor: &mut *to_input, of_gate: &mut *to_gate });
            for (sink, values) in [(job.grad_input, &*to_input), (self.grad_before, &*to_gate)] {
                if let Some(sink) = &sink {
                    write(
                        (isa, None),
                        function!(Scaled, factor: F::ONE),
                        [values; 3],
                        sink,
                        place,
                        &mut *more,
                    );
                }
            }
        }
    }
}
