//! Norms with something before or after them, in one pass over memory: rows pass through scratch memory that stays in the
//! caches, where the prologue puts what is normalized, the norm's own schedule for rows handles it like any other tensor,
//! and the epilogue takes the result from. Nothing that computes a norm knows of it.

use super::Isa;
use super::branch::Branch;
use super::codes::Codes;
use super::dropout::Kept;
use super::fusion::{Each, Gated, Gelu, GeluTanh, OfElements, Relu, Scaled, Silu, Sum};
use super::inner::{self, Place};
use super::launch::{Tiles, with_scratch};
use super::memory::{Streaming, finish_streaming};
use super::norm::TASK;
use super::real::Real;
use super::rotary::{Angles, Turn};
use super::row;
use super::sink::Sink;
use super::source::Source;
use super::stored::typed;
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
    /// Normalizes the input before it is added to.
    pub(super) inner: Option<row::Forward<'a, F>>,
    /// Normalizes what the input is added to.
    pub(super) residual: Option<row::Forward<'a, F>>,
    pub(super) before: Option<Source<'a>>,
    pub(super) after: Option<Source<'a>>,
    pub(super) angles: Option<Angles<'a>>,
    pub(super) hidden: Option<Sink<'a>>,
    pub(super) codes: Option<Codes<'a>>,
    /// Elements of the input that take part.
    pub(super) kept: Option<Kept<'a>>,
    pub(super) branch: Branch<'a>,
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

/// Puts `f` of two slices to a third.
pub(super) fn put<F: Real, O: OfElements<F>>(isa: Isa, f: O, a: &[F], b: &[F], to: &mut [F]) {
    isa.run(Each { f, a, b, to, also: None::<&mut [F]>, streamed: None, of: PhantomData });
}

/// Writes `f` of some columns of a row to a tensor.
pub(super) fn write<F: Real, O: OfElements<F>>(
    (isa, streamed): (Isa, Option<Streaming>),
    f: O,
    a: &[F],
    sink: &Sink<'_>,
    (row, at): (usize, usize),
    tile: &mut [F],
) {
    macro_rules! run {
        ($t:ty) => {
            if let Some(to) = sink.lend::<$t>(row, at, a.len()) {
                return isa.run(Each { f, a, b: a, to, also: None::<&mut [F]>, streamed, of: PhantomData });
            }
        };
    }
    typed!(sink.dtype(), F, run);
    let to = &mut tile[..a.len()];
    put(isa, f, a, a, to);
    sink.commit(row, at, to);
}

/// The same of those columns and a tensor's.
pub(super) fn write_with<F: Real, O: OfElements<F>>(
    (isa, streamed): (Isa, Option<Streaming>),
    f: O,
    (a, other): (&[F], &Source<'_>),
    sink: &Sink<'_>,
    (row, at): (usize, usize),
    [other_tile, tile]: [&mut [F]; 2],
) {
    let (len, of) = (a.len(), PhantomData);
    macro_rules! run {
        ($t:ty) => {
            if let Some(to) = sink.lend::<$t>(row, at, len) {
                let also = None::<&mut [F]>;
                return match other.lend::<$t>(row, at, len) {
                    Some(b) => isa.run(Each { f, a, b, to, also, streamed, of }),
                    None => {
                        let b = other.load(row, at, other_tile, len);
                        isa.run(Each { f, a, b, to, also, streamed, of });
                    }
                };
            }
        };
    }
    typed!(sink.dtype(), F, run);
    let to = &mut tile[..len];
    put(isa, f, a, other.load(row, at, other_tile, len), to);
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
    pub(super) kept: Option<Kept<'a>>,
    pub(super) branch: Branch<'a>,
}

impl Hiding<'_, '_> {
    /// Puts what is normalized of some rows into `line`, and what a branch's scale is to multiply into `shifted`.
    pub(super) fn run<F: Real>(
        &self,
        fusion: &Fusion,
        rows: Range<usize>,
        (line, shifted): (&mut [F], Option<&mut [F]>),
        tiles: [&mut [F]; 2],
    ) {
        match fusion.prologue {
            Prologue::Residual { .. } => {
                let [first, second] = fusion.scales().map(F::of);
                self.each(Sum { first, second }, rows, (line, shifted), tiles);
            }
            _ => self.each(Gated, rows, (line, shifted), tiles),
        }
    }

    fn each<F: Real, O: OfElements<F>>(
        &self,
        f: O,
        rows: Range<usize>,
        (line, mut shifted): (&mut [F], Option<&mut [F]>),
        [x, other]: [&mut [F]; 2],
    ) {
        let Hiding { isa, cols, input, before, hidden, streamed, kept, branch } = *self;
        let of = PhantomData;
        let is_plain = kept.is_none() && branch.is_none();
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
            if is_plain {
                typed!(input.dtype(), F, run);
            }
            let to = &mut line[place..place + len];
            let a = if is_plain {
                input.load(row, at, x, len)
            } else {
                let x = &mut x[..len];
                input.fill(row, at, x);
                branch.shift(isa, (row, at), x, other);
                if let Some(kept) = kept {
                    kept.apply(isa, row, at, x);
                }
                if let Some(shifted) = &mut shifted {
                    shifted[place..place + len].copy_from_slice(x);
                }
                branch.scale(isa, (row, at), x, other);
                x
            };
            put(isa, f, a, before.load(row, at, other, len), to);
            if let Some(sink) = hidden {
                sink.begin(row, at, x, len).copy_from_slice(to);
                sink.commit(row, at, &line[place..place + len]);
            }
        }
    }
}

impl<F: Real> Forward<'_, F> {
    /// Rows that pass through scratch memory at once.
    fn at_once(&self) -> usize {
        (BLOCK / self.job.constants.cols.max(1)).max(1)
    }

    /// Rows of a task.
    pub(super) fn step(&self) -> usize {
        TASK.div_ceil(self.job.constants.cols.max(1)).next_multiple_of(self.at_once())
    }

    /// Runs rows that one thread takes.
    pub(super) fn rows(&self, rows: Range<usize>) {
        let (cols, at_once) = (self.job.constants.cols, self.at_once());
        with_scratch::<F, _>(3 * at_once.min(self.job.rows) * cols, |mut tiles, lines| {
            for first in rows.clone().step_by(at_once) {
                self.block(first..rows.end.min(first + at_once), lines, &mut tiles);
            }
        });
        if self.job.streamed.is_some() || self.streamed_hidden.is_some() {
            finish_streaming();
        }
    }

    fn block(&self, rows: Range<usize>, lines: &mut [F], tiles: &mut Tiles<'_, F>) {
        let Forward { job, fusion, .. } = self;
        let (isa, cols, grid) = (job.constants.isa, job.constants.cols, job.input.grid());
        let walk = side_by_side(grid, rows.start);
        let (hidden, results) = lines.split_at_mut(lines.len() / 3);
        let (result, followed) = results.split_at_mut(results.len() / 2);
        let mut of_line = *job;
        if let Some(before) = &self.before {
            let input = match &self.inner {
                None => job.input,
                Some(inner) => {
                    let place = Place { grid, walk: &walk };
                    inner::forward(inner, rows.clone(), &mut *result, place, tiles)
                }
            };
            let normalized = self.residual.as_ref().map(|residual| {
                let place = Place { grid, walk: &walk };
                inner::forward(residual, rows.clone(), &mut *followed, place, tiles)
            });
            let before = normalized.as_ref().unwrap_or(before);
            let [x, other, ..] = tiles;
            let (input, to, streamed) = (&input, self.hidden.as_ref(), self.streamed_hidden);
            let (kept, branch) = (self.kept, self.branch);
            let hiding = Hiding { isa, cols, input, before, hidden: to, streamed, kept, branch };
            hiding.run(fusion, rows.clone(), (&mut *hidden, None), [x, other]);
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
        let Some(codes) = &self.codes else {
            self.follow(rows, result, (sink, job.streamed), tiles);
            return;
        };
        let values = if fusion.epilogue == Epilogue::None {
            &*result
        } else {
            let line = Sink::of_line(&mut *followed, grid, &walk, isa);
            self.follow(rows.clone(), result, (&line, None), tiles);
            &*followed
        };
        let first = rows.start;
        for row in rows {
            codes.write(isa, &values[(row - first) * cols..][..cols], sink, row);
        }
    }

    /// Takes the norm's results of some rows on to the output.
    fn follow(
        &self,
        rows: Range<usize>,
        result: &[F],
        (sink, streamed): (&Sink<'_>, Option<Streaming>),
        tiles: &mut Tiles<'_, F>,
    ) {
        let Forward { job, fusion, .. } = self;
        let (isa, cols) = (job.constants.isa, job.constants.cols);
        let [other, out, ..] = tiles;
        for (row, at, len, place) in pieces(rows, cols) {
            let (v, to, job) = (&result[place..place + len], (row, at), (isa, streamed));
            match (fusion.epilogue, &self.after) {
                (Epilogue::Activation(Activation::Relu), _) => write(job, Relu, v, sink, to, out),
                (Epilogue::Activation(Activation::Silu), _) => write(job, Silu, v, sink, to, out),
                (Epilogue::Activation(Activation::Gelu), _) => write(job, Gelu, v, sink, to, out),
                (Epilogue::Activation(Activation::GeluTanh), _) => write(job, GeluTanh, v, sink, to, out),
                (Epilogue::Gate, Some(gate)) => {
                    write_with(job, Gated, (v, gate), sink, to, [other, out]);
                }
                (Epilogue::Residual, Some(residual)) => {
                    write_with(job, Sum::PLAIN, (v, residual), sink, to, [other, out]);
                }
                // What is rotated is so already; a fusion without its operand is refused with the arguments.
                (Epilogue::None | Epilogue::Rotary { .. } | Epilogue::Gate | Epilogue::Residual, _) => {
                    write(job, Scaled(F::ONE), v, sink, to, out);
                }
            }
        }
    }
}
