//! Norms with something before or after them, in one pass over memory: rows pass through scratch memory that stays in the
//! caches, where the prologue puts what is normalized, the norm's own schedule for rows handles it like any other tensor,
//! and the epilogue takes the result from. Nothing that computes a norm knows of it.

use super::fusion::{Each, Gated, Gelu, OfElements, Relu, Scaled, Silu, Sum};
use super::launch::{Tiles, with_scratch};
use super::memory::{Streaming, finish_streaming};
use super::norm::TASK;
use super::real::Real;
use super::rotary::{Angles, Turn};
use super::row;
use super::sink::Sink;
use super::source::Source;
use super::stored::typed;
use super::{Cpu, Isa};
use crate::plan::{Grid, Walk};
use crate::spec::{Activation, Epilogue, Fusion, Prologue};
use crate::tensor::Dims;
use std::marker::PhantomData;
use std::ops::Range;

/// Elements of the rows that are in scratch memory together, about: a few tensors of them fit the first-level cache.
pub(super) const BLOCK: usize = 2048;
/// Elements that the operations around a norm take at a time.
const PIECE: usize = 1024;

/// A forward pass with what surrounds it.
pub(super) struct Forward<'a, F> {
    pub(super) job: row::Forward<'a, F>,
    pub(super) fusion: Fusion,
    pub(super) before: Option<Source<'a>>,
    pub(super) after: Option<Source<'a>>,
    pub(super) angles: Option<Angles<'a>>,
    pub(super) hidden: Option<Sink<'a>>,
    pub(super) streamed_hidden: Option<Streaming>,
}

/// How rows lie that follow each other in scratch memory, the first of them being row `first`.
pub(super) fn side_by_side(grid: &Grid, first: usize) -> Walk {
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
pub(super) fn pieces(rows: Range<usize>, cols: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    let first = rows.start;
    rows.flat_map(move |row| {
        (0..cols).step_by(PIECE).map(move |at| (row, at, PIECE.min(cols - at), (row - first) * cols + at))
    })
}

/// The second operand of what is written: the first again, numbers, or a tensor and a tile for its elements.
pub(super) enum Other<'s, 'a, F> {
    Same,
    Numbers(&'s [F]),
    Tensor(&'s Source<'a>, &'s mut [F]),
}

impl<'s, 'a, F> Other<'s, 'a, F> {
    fn of(source: Option<&'s Source<'a>>, tile: &'s mut [F]) -> Self {
        source.map_or(Other::Same, |source| Other::Tensor(source, tile))
    }
}

/// Writes `f` of some columns of a row to a tensor.
pub(super) fn write<F: Real, O: OfElements<F>>(
    (isa, streamed): (Isa, Option<Streaming>),
    f: O,
    a: &[F],
    other: Other<'_, '_, F>,
    sink: &Sink<'_>,
    (row, at): (usize, usize),
    tile: &mut [F],
) {
    let (len, of) = (a.len(), PhantomData);
    macro_rules! run {
        ($t:ty) => {
            if let Some(to) = sink.lend::<$t>(row, at, len) {
                let also = None::<&mut [F]>;
                return match other {
                    Other::Same => isa.run(Each { f, a, b: a, to, also, streamed, of }),
                    Other::Numbers(b) => isa.run(Each { f, a, b, to, also, streamed, of }),
                    Other::Tensor(source, tile) => match source.lend::<$t>(row, at, len) {
                        Some(b) => isa.run(Each { f, a, b, to, also, streamed, of }),
                        None => {
                            let b = source.load(row, at, tile, len);
                            isa.run(Each { f, a, b, to, also, streamed, of });
                        }
                    },
                };
            }
        };
    }
    typed!(sink.dtype(), F, run);
    let b = match other {
        Other::Same => a,
        Other::Numbers(b) => b,
        Other::Tensor(source, tile) => source.load(row, at, tile, len),
    };
    let to = &mut tile[..len];
    isa.run(Each { f, a, b, to: &mut *to, also: None::<&mut [F]>, streamed: None, of });
    sink.commit(row, at, to);
}

/// Where what is normalized goes: the columns from `at` on of some rows, to scratch memory, and to the hidden tensor where
/// there is one.
pub(super) struct Hiding<'j, 'a> {
    pub(super) isa: Isa,
    pub(super) cols: usize,
    pub(super) input: &'j Source<'a>,
    pub(super) before: &'j Source<'a>,
    pub(super) hidden: Option<&'j Sink<'a>>,
    pub(super) streamed: Option<Streaming>,
}

impl Hiding<'_, '_> {
    /// Puts what is normalized of some rows into `line`.
    pub(super) fn run<F: Real>(
        &self,
        prologue: Prologue,
        rows: Range<usize>,
        line: &mut [F],
        tiles: [&mut [F]; 2],
    ) {
        match prologue {
            Prologue::Residual { input_scale, residual_scale } => {
                let f = Sum { first: F::of(input_scale), second: F::of(residual_scale) };
                self.each(f, rows, line, tiles);
            }
            _ => self.each(Gated, rows, line, tiles),
        }
    }

    fn each<F: Real, O: OfElements<F>>(
        &self,
        f: O,
        rows: Range<usize>,
        line: &mut [F],
        [x, other]: [&mut [F]; 2],
    ) {
        let Hiding { isa, cols, input, before, hidden, streamed } = *self;
        let of = PhantomData;
        for (row, at, len, place) in pieces(rows, cols) {
            let to = &mut line[place..place + len];
            // Straight from memory to memory, where all three tensors have one dtype, in line.
            macro_rules! run {
                ($t:ty) => {
                    if let (Some(a), Some(b)) =
                        (input.lend::<$t>(row, at, len), before.lend::<$t>(row, at, len))
                    {
                        let also = hidden.and_then(|sink| sink.lend::<$t>(row, at, len));
                        if also.is_some() || hidden.is_none() {
                            isa.run(Each { f, a, b, to, also, streamed, of });
                            continue;
                        }
                    }
                };
            }
            typed!(input.dtype(), F, run);
            let to = &mut line[place..place + len];
            let (a, b) = (input.load(row, at, x, len), before.load(row, at, other, len));
            isa.run(Each { f, a, b, to: &mut *to, also: None::<&mut [F]>, streamed: None, of });
            if let Some(sink) = hidden {
                sink.begin(row, at, x, len).copy_from_slice(to);
                sink.commit(row, at, &line[place..place + len]);
            }
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
            let (input, to, streamed) = (&job.input, self.hidden.as_ref(), self.streamed_hidden);
            let hiding = Hiding { isa, cols, input, before, hidden: to, streamed };
            hiding.run(fusion.prologue, rows.clone(), hidden, [x, other]);
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
        if let Some(angles) = &self.angles {
            angles.rotate(isa, Turn::Forth, rows.clone(), result, tiles);
        }
        let [other, out, ..] = tiles;
        for (row, at, len, place) in pieces(rows, cols) {
            let (v, to, job) = (&result[place..place + len], (row, at), (isa, job.streamed));
            let other = Other::of(self.after.as_ref(), other);
            match fusion.epilogue {
                Epilogue::Activation(Activation::Relu) => write(job, Relu, v, other, sink, to, out),
                Epilogue::Activation(Activation::Silu) => write(job, Silu, v, other, sink, to, out),
                Epilogue::Activation(Activation::GeluTanh) => write(job, Gelu, v, other, sink, to, out),
                Epilogue::Gate => write(job, Gated, v, other, sink, to, out),
                Epilogue::Residual => {
                    write(job, Sum { first: F::ONE, second: F::ONE }, v, other, sink, to, out);
                }
                // Rotated already.
                Epilogue::None | Epilogue::Rotary { .. } => {
                    write(job, Scaled(F::ONE), v, other, sink, to, out);
                }
            }
        }
    }
}
