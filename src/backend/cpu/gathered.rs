//! Rows whose elements lie in short runs far apart, as a group of channels does where channels are innermost: each is
//! brought together in scratch memory, handled there like one that lies in line, and put back.
//!
//! Read leaf by leaf from where they are, each line of the memory would be read for every run that it has a part of.

use super::isa::Operation;
use super::launch::with_scratch;
use super::memory::Ahead;
use super::real::Real;
use super::row::{self, Forward};
use super::row_backward::Backward;
use super::simd::{BLOCK, Block, Numbers, SIDE, Simd};
use super::sink::Sink;
use super::source::Source;
use super::stored::{Stored, typed};
use super::{Cpu, Isa};
use crate::plan::{Grid, Walk};
use crate::tensor::Dims;
use std::marker::PhantomData;

/// Elements of the row that are written before those of the next column across: a line of the first-level cache.
const LINE: usize = 2 * SIDE;
/// How many elements of the row ahead memory is asked for.
const AHEAD: usize = 2 * LINE;

/// How a row's elements lie, where neither its columns but those of a slower axis are side by side.
#[derive(Debug, Clone)]
pub(super) struct Spread {
    /// The axes of a row that are neither of the two below: sizes, steps in memory and in the row.
    others: Dims<(usize, isize, usize)>,
    /// Elements along the axis that is side by side in memory, and its step in the row.
    across: (usize, usize),
    /// Elements along the axis that is side by side in the row, and its step in memory.
    along: (usize, isize),
}

impl Spread {
    /// How rows of a tensor lie; `None` where they are not spread in runs.
    pub(super) fn of(grid: &Grid, walk: &Walk) -> Option<Self> {
        let last = grid.inner.len() - 1;
        let first = (0..last).rev().find(|&axis| walk.inner[axis] == 1 && grid.inner[axis] > 1)?;
        let step = |axis: usize| grid.inner[axis + 1..].iter().product();
        let others = (0..last).filter(|&axis| axis != first);
        (walk.inner[last] != 1 && grid.inner[last] > 1).then(|| Spread {
            others: others.map(|axis| (grid.inner[axis], walk.inner[axis], step(axis))).collect(),
            across: (grid.inner[first], step(first)),
            along: (grid.inner[last], walk.inner[last]),
        })
    }

    /// How many planes of the two axes there are.
    fn planes(&self) -> usize {
        self.others.iter().map(|&(size, ..)| size).product()
    }

    /// The place of a plane's first element in memory and in the row.
    fn plane(&self, mut index: usize) -> (isize, usize) {
        let mut place = (0, 0);
        for &(size, in_memory, in_row) in self.others.iter().rev() {
            place.0 += (index % size) as isize * in_memory;
            place.1 += index % size * in_row;
            index /= size;
        }
        place
    }
}

/// A part of a plane that is transposed at once.
struct Tile {
    /// Places of its first element in memory and in the row.
    at: isize,
    col: usize,
    /// Elements of it along both axes.
    across: usize,
    along: usize,
}

/// What is done to each tile of a row.
trait Tilewise<F: Real> {
    fn spread(&self) -> &Spread;
    /// Asks for the memory of a block of elements, so many after the row's first.
    fn ask(&self, at: isize);
    /// Of a tile of `SIDE` by `SIDE` elements if `WHOLE`.
    fn tile<S: Simd, const WHOLE: bool>(&mut self, tile: Tile);
}

/// All tiles of a row: an operation for [`Isa::run`].
struct EachTile<W, F>(W, PhantomData<F>);

impl<W: Tilewise<F>, F: Real> Operation for EachTile<W, F> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(mut self) {
        let ((across, in_row), (along, in_memory)) = (self.0.spread().across, self.0.spread().along);
        for index in 0..self.0.spread().planes() {
            let (at, col) = self.0.spread().plane(index);
            for line in (0..along).step_by(LINE) {
                for b in line + AHEAD..along.min(line + AHEAD + LINE) {
                    for a in (0..across).step_by(BLOCK) {
                        self.0.ask(at + a as isize + b as isize * in_memory);
                    }
                }
                for a in (0..across).step_by(SIDE) {
                    for b in (line..along.min(line + LINE)).step_by(SIDE) {
                        let tile = Tile {
                            at: at + a as isize + b as isize * in_memory,
                            col: col + a * in_row + b,
                            across: SIDE.min(across - a),
                            along: SIDE.min(along - b),
                        };
                        if tile.across == SIDE && tile.along == SIDE {
                            self.0.tile::<S, true>(tile);
                        } else {
                            self.0.tile::<S, false>(tile);
                        }
                    }
                }
            }
        }
    }
}

/// Copies `SIDE` elements if `WHOLE`, else as many as both have.
#[inline(always)]
fn copy<const WHOLE: bool, T: Copy>(from: &[T], to: &mut [T]) {
    match (from.first_chunk::<SIDE>(), to.first_chunk_mut::<SIDE>()) {
        (Some(from), Some(to)) if WHOLE => *to = *from,
        _ => to.iter_mut().zip(from).for_each(|(to, from)| *to = *from),
    }
}

/// Brings a row together.
struct Gather<'s, 'a, T, F> {
    source: &'s Source<'a>,
    spread: &'s Spread,
    /// The row's first element in memory.
    first: isize,
    to: &'s mut [F],
    of: PhantomData<T>,
}

impl<T: Stored, F: Real> Tilewise<F> for Gather<'_, '_, T, F> {
    #[inline(always)]
    fn spread(&self) -> &Spread {
        self.spread
    }
    #[inline(always)]
    fn ask(&self, at: isize) {
        Ahead::of(self.source.slice::<T>(self.first, 1)).after_signed(at).touch(0);
    }
    #[inline(always)]
    fn tile<S: Simd, const WHOLE: bool>(&mut self, tile: Tile) {
        let mut numbers = [[F::ZERO; SIDE]; SIDE];
        let at = self.first + tile.at;
        for (i, to) in numbers[..tile.along].iter_mut().enumerate() {
            let mut elements: [T; SIDE] = bytemuck::Zeroable::zeroed();
            let from = self.source.slice(at + i as isize * self.spread.along.1, tile.across);
            copy::<WHOLE, T>(from, &mut elements);
            for (to, from) in to.iter_mut().zip(elements) {
                *to = from.widen();
            }
        }
        for (i, from) in Block::<S, F>::transposed(&numbers)[..tile.across].iter().enumerate() {
            copy::<WHOLE, F>(from, &mut self.to[tile.col + i * self.spread.across.1..][..tile.along]);
        }
    }
}

/// Puts a row where it belongs, each number rounded once.
struct Scatter<'s, 'a, T, F> {
    sink: &'s Sink<'a>,
    spread: &'s Spread,
    /// The row's first element in memory.
    first: isize,
    from: &'s [F],
    of: PhantomData<T>,
}

impl<T: Stored, F: Real> Tilewise<F> for Scatter<'_, '_, T, F> {
    #[inline(always)]
    fn spread(&self) -> &Spread {
        self.spread
    }
    #[inline(always)]
    fn ask(&self, at: isize) {
        Ahead::of(self.sink.slice::<T>(self.first, 1)).after_signed(at).touch(0);
    }
    #[inline(always)]
    fn tile<S: Simd, const WHOLE: bool>(&mut self, tile: Tile) {
        let mut numbers = [[F::ZERO; SIDE]; SIDE];
        for (i, to) in numbers[..tile.across].iter_mut().enumerate() {
            copy::<WHOLE, F>(&self.from[tile.col + i * self.spread.across.1..][..tile.along], to);
        }
        let at = self.first + tile.at;
        for (i, from) in Block::<S, F>::transposed(&numbers)[..tile.along].iter().enumerate() {
            let mut elements: [T; SIDE] = bytemuck::Zeroable::zeroed();
            for (to, from) in elements.iter_mut().zip(from) {
                *to = T::narrow(*from);
            }
            let to = self.sink.slice(at + i as isize * self.spread.along.1, tile.across);
            copy::<WHOLE, T>(&elements, to);
        }
    }
}

/// Brings a row together.
fn gather<F: Real>(isa: Isa, source: &Source<'_>, spread: &Spread, row: usize, to: &mut [F]) {
    let first = source.first_of(row);
    macro_rules! run {
        ($t:ty) => {
            isa.run(EachTile(
                Gather::<$t, F> { source, spread, first, to, of: PhantomData },
                PhantomData::<F>,
            ))
        };
    }
    typed!(source.dtype(), F, run);
}

/// Puts a row where it belongs.
fn scatter<F: Real>(isa: Isa, sink: &Sink<'_>, spread: &Spread, row: usize, from: &[F]) {
    let first = sink.first_of(row);
    macro_rules! run {
        ($t:ty) => {
            isa.run(EachTile(
                Scatter::<$t, F> { sink, spread, first, from, of: PhantomData },
                PhantomData::<F>,
            ))
        };
    }
    typed!(sink.dtype(), F, run);
}

/// How a tensor of a single row in line is walked, by whatever row it is asked for.
fn in_line(grid: &Grid) -> Walk {
    let steps = (0..grid.inner.len()).map(|axis| grid.inner[axis + 1..].iter().product::<usize>() as isize);
    Walk { outer: Dims::from_elem(0, grid.outer.len()), inner: steps.collect(), offset: 0, contiguous: true }
}

/// Elements of a row that is brought together, at most: scratch memory of a thread is bounded.
const LONGEST: usize = 1 << 20;

/// Whether a forward pass brings its rows together.
pub(super) fn is_possible<F: Real>(job: &Forward<'_, F>) -> bool {
    (2..=LONGEST).contains(&job.constants.cols) && job.input.spread().is_some()
}

/// Normalizes each row, of which there is at least one, as a task of its own.
pub(super) fn forward<F: Real>(job: &Forward<'_, F>, cpu: &Cpu) {
    let Some(spread) = job.input.spread() else { return };
    let spread_output = job.output.and_then(|sink| sink.spread());
    let (cols, isa) = (job.constants.cols, job.constants.isa);
    let grid = job.input.grid();
    let walk = in_line(grid);
    cpu.for_each(job.rows, cols, |row| {
        with_scratch::<F, _>(cols, |tiles, line| {
            gather(isa, &job.input, &spread, row, line);
            let to = Sink::of_line(&mut *line, grid, &walk, isa);
            let input = Source::of_sink(&to);
            let in_line = match spread_output {
                Some(_) => Forward { input, output: Some(to), streamed: None, ..*job },
                None => Forward { input: input.lent(), ..*job },
            };
            row::Rows::new(&in_line, tiles).forward(row..row + 1);
            if let (Some(sink), Some(spread)) = (&job.output, &spread_output) {
                scatter(isa, sink, spread, row, line);
            }
        });
    });
}

/// How the operands of a backward pass are spread, and how a row in line is walked.
pub(super) struct Gathered {
    grad_output: Spread,
    input: Spread,
    grad_input: Option<Spread>,
    walk: Walk,
}

impl Gathered {
    /// Of a pass that brings its rows together; `None` of others.
    pub(super) fn new<F: Real>(job: &Backward<'_, F>) -> Option<Self> {
        if !(2..=LONGEST).contains(&job.constants.cols) {
            return None;
        }
        let grad_input = match job.grad_input {
            Some(sink) => Some(sink.spread()?),
            None => None,
        };
        Some(Gathered {
            grad_output: job.grad_output.spread()?,
            input: job.input.spread()?,
            grad_input,
            walk: in_line(job.input.grid()),
        })
    }

    /// Runs `body` on a pass whose row `row` is in line, in two rows of scratch memory.
    pub(super) fn with_row<F: Real>(
        &self,
        job: &Backward<'_, F>,
        row: usize,
        [g, x]: [&mut [F]; 2],
        body: impl FnOnce(&Backward<'_, F>),
    ) {
        let (isa, grid) = (job.constants.isa, job.input.grid());
        gather(isa, &job.grad_output, &self.grad_output, row, g);
        gather(isa, &job.input, &self.input, row, x);
        let in_line = |line| Sink::of_line(line, grid, &self.walk, isa);
        let (to, x) = (in_line(&mut *g), in_line(x));
        body(&Backward {
            grad_output: Source::of_sink(&to),
            input: Source::of_sink(&x).lent(),
            grad_input: job.grad_input.map(|_| to),
            streamed: None,
            ..*job
        });
        if let (Some(sink), Some(spread)) = (&job.grad_input, &self.grad_input) {
            scatter(isa, sink, spread, row, g);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::launch::alone;
    use crate::tensor::{Layout, View, ViewMut};
    use half::{bf16, f16};

    /// Rows of `[groups, channels, depth, positions]` elements whose channels are innermost in memory.
    fn check<T: Stored, F: Real>(isa: Isa, [channels, depth, positions]: [usize; 3]) {
        let groups = 3;
        let all = groups * channels;
        let shape = [2, groups, channels, depth, positions];
        let strides =
            [depth * positions * all, channels, 1, positions * all, all].map(|stride| stride as isize);
        let layout = Layout::strided(&shape, &strides, 5).unwrap();
        let len = shape.iter().product::<usize>() + 9;
        let memory: Vec<T> = (0..len).map(|i| T::from_f64((i * 37 % 1009) as f64 - 500.0)).collect();
        let mut to = memory.clone();
        let (view, mut target) = (
            View::strided(&memory, layout.clone()).unwrap(),
            ViewMut::strided(&mut to, layout.clone()).unwrap(),
        );
        let folded = alone(isa, &layout, 2);
        let (rows, cols) = (folded.grid.rows, folded.grid.cols);
        let source = folded.source("input", &view, 0, false).unwrap();
        let target = target.reborrow();
        let sink = folded.sink("output", &target, 0).unwrap();
        let (spread, back) = (source.spread().unwrap(), sink.spread().unwrap());
        let (mut found, mut expected) = (vec![F::ZERO; cols], vec![F::ZERO; cols]);
        for row in 0..rows {
            gather(isa, &source, &spread, row, &mut found);
            source.fill(row, 0, &mut expected);
            assert_eq!(found, expected, "row {row} of {shape:?}, {isa}");
            found.iter_mut().for_each(|x| *x = -*x);
            scatter(isa, &sink, &back, row, &found);
        }
        for (i, (to, from)) in to.iter().zip(&memory).enumerate() {
            let is_inside = (5..len - 4).contains(&i);
            let expected = if is_inside { -from.to_f64() } else { from.to_f64() };
            assert_eq!(to.to_f64(), expected, "element {i} of {shape:?}, {isa}");
        }
    }

    #[test]
    fn rows_are_brought_together_and_put_back() {
        for isa in Isa::available() {
            for shape in [[2, 1, 2], [8, 1, 8], [16, 2, 64], [7, 3, 5], [9, 1, 33], [40, 2, 17]] {
                check::<f32, f32>(isa, shape);
                check::<bf16, f32>(isa, shape);
                check::<f16, f32>(isa, shape);
                check::<f64, f64>(isa, shape);
            }
        }
    }

    #[test]
    fn rows_in_line_are_not_spread() {
        let layout = Layout::contiguous(&[2, 3, 4]);
        let folded = alone(Isa::Portable, &layout, 1);
        assert!(Spread::of(&folded.grid, folded.walk(0)).is_none());
    }
}
