//! Operands in host memory: loads that widen any dtype and stride to the compute type, stores that round once.
//!
//! A row is read in pieces of at most one leaf of columns. Where the memory already holds the compute type side by side
//! the piece is lent as it is; otherwise it is converted into a tile that stays in the first-level cache.

use super::Isa;
use super::real::Real;
use super::stored::{Narrow, Stored, Widen, narrow, narrow_f16, widen, widen_f16};
use crate::plan::{Grid, Walk};
use crate::tensor::{DType, Element, Memory, MemoryMut, View, ViewMut};
use half::{bf16, f16};
use std::ops::Range;

/// An operand to read.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    base: *const u8,
    dtype: DType,
    grid: &'a Grid,
    walk: &'a Walk,
    isa: Isa,
    /// Never lend the memory: it is also written.
    copied: bool,
}

/// An operand to write.
#[derive(Clone, Copy)]
pub(super) struct Sink<'a> {
    base: *mut u8,
    dtype: DType,
    grid: &'a Grid,
    walk: &'a Walk,
    isa: Isa,
}

// SAFETY: a source is a shared borrow of plain numbers; `new` ties it to the view's lifetime.
unsafe impl Send for Source<'_> {}
// SAFETY: as above.
unsafe impl Sync for Source<'_> {}
// SAFETY: a sink is handed to threads that write disjoint rows or columns, which the schedules' chunks are; layouts
// written to are injective (checked by `norm::arguments`), so disjoint indices are disjoint memory.
unsafe impl Send for Sink<'_> {}
// SAFETY: as above.
unsafe impl Sync for Sink<'_> {}

/// Columns from `col` on, `count` of them, `stride` apart from element `at` of the memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) col: usize,
    pub(super) count: usize,
    pub(super) at: isize,
    pub(super) stride: isize,
}

/// Where columns of a row lie side by side, if they do.
fn place(grid: &Grid, walk: &Walk, row: usize, col: usize, len: usize) -> Option<isize> {
    if walk.contiguous {
        return Some(grid.row_offset(walk, row) + col as isize);
    }
    let is_run = walk.inner.last() == Some(&1) && len <= run_length(grid, col);
    is_run.then(|| grid.row_offset(walk, row) + grid.col_offset(walk, col))
}

/// Up to which column those from `col` on lie side by side.
fn run_end(grid: &Grid, walk: &Walk, col: usize) -> usize {
    if !walk.contiguous && walk.inner.last() == Some(&1) { col + run_length(grid, col) } else { grid.cols }
}

fn runs<'a>(
    grid: &'a Grid,
    walk: &'a Walk,
    row: usize,
    cols: Range<usize>,
) -> impl Iterator<Item = Run> + use<'a> {
    let first = grid.row_offset(walk, row);
    let stride = walk.inner[walk.inner.len() - 1];
    let mut next = cols.start;
    std::iter::from_fn(move || {
        let col = next;
        let count = run_length(grid, col).min(cols.end - col);
        next += count;
        (count > 0).then(|| Run { col, count, at: first + grid.col_offset(walk, col), stride })
    })
}

impl<'a> Source<'a> {
    /// Whether the rows of the last outer axis lie side by side.
    pub(super) fn has_adjacent_rows(&self) -> bool {
        self.walk.outer.last() == Some(&1)
    }

    /// Whether rows that follow each other along the last outer axis have the same elements.
    pub(super) fn is_same_in_adjacent_rows(&self) -> bool {
        self.walk.outer.last() == Some(&0)
    }

    /// Whether a row is one element over and over.
    pub(super) fn is_constant_in_row(&self) -> bool {
        self.walk.is_constant_in_row()
    }

    /// Whether each row's columns lie side by side.
    pub(super) fn is_in_line(&self) -> bool {
        self.walk.contiguous
    }

    /// Whether the memory may be lent: it is not written.
    pub(super) fn is_lent(&self) -> bool {
        !self.copied
    }

    /// A row of which that is so, as memory holds it.
    #[inline(always)]
    pub(super) fn line<T: Element>(&self, row: usize, cols: usize) -> &'a [T] {
        self.slice(self.grid.row_offset(self.walk, row), cols)
    }

    /// Elements of a row.
    pub(super) fn cols(&self) -> usize {
        self.grid.cols
    }

    /// Whether every row has the same elements.
    pub(super) fn is_shared_by_rows(&self) -> bool {
        self.walk.is_shared_by_rows()
    }

    /// Every `step`-th element of a row, widened.
    pub(super) fn fill_every<F: Real>(&self, row: usize, step: usize, to: &mut [F]) {
        let at = self.grid.row_offset(self.walk, row);
        for (i, to) in to.iter_mut().enumerate() {
            self.copy(at + self.grid.col_offset(self.walk, i * step), std::slice::from_mut(to));
        }
    }

    /// How many elements in a row's order share memory with the first one after each other, at least.
    pub(super) fn constant_run(&self) -> usize {
        let last = self.grid.inner.len() - 1;
        if self.walk.inner[last] == 0 { self.grid.inner[last] } else { 1 }
    }

    /// Runs of columns of a row that are evenly apart.
    pub(super) fn runs(&self, row: usize, cols: Range<usize>) -> impl Iterator<Item = Run> + use<'a> {
        runs(self.grid, self.walk, row, cols)
    }

    /// `view` walked over `grid`; `None` if it is not in host memory. `copied` if an output may be the same memory.
    pub(super) fn new(
        view: &'a View<'_>,
        grid: &'a Grid,
        walk: &'a Walk,
        isa: Isa,
        copied: bool,
    ) -> Option<Self> {
        match &view.memory {
            Memory::Host(base, _) => {
                Some(Source { base: *base, dtype: view.dtype(), grid, walk, isa, copied })
            }
            #[cfg(any(feature = "wgpu", feature = "cuda"))]
            _ => None,
        }
    }

    /// Columns `col..col + len` of `row`, widened: lent where the memory holds them so, else put into `tile`.
    pub(super) fn load<'t, F: Real>(&self, row: usize, col: usize, tile: &'t mut [F], len: usize) -> &'t [F]
    where
        'a: 't,
    {
        if let Some(lent) = self.lend(row, col, len) {
            return lent;
        }
        let tile = &mut tile[..len];
        self.fill(row, col, tile);
        tile
    }

    /// The memory itself where it holds these columns in the compute type, side by side, and nobody writes it.
    pub(super) fn lend<F: Real>(&self, row: usize, col: usize, len: usize) -> Option<&'a [F]> {
        if self.dtype != F::DTYPE || self.copied {
            return None;
        }
        let at = place(self.grid, self.walk, row, col, len)?;
        Some(self.slice(at, len))
    }

    /// Up to which column those from `col` on lie side by side.
    pub(super) fn run_end(&self, col: usize) -> usize {
        run_end(self.grid, self.walk, col)
    }

    /// Columns from `col` on of `row`, widened.
    pub(super) fn fill<F: Real>(&self, row: usize, col: usize, tile: &mut [F]) {
        let at = self.grid.row_offset(self.walk, row);
        if self.walk.contiguous {
            return self.copy(at + col as isize, tile);
        }
        let fastest = self.grid.inner.len() - 1;
        let stride = self.walk.inner[fastest];
        let mut done = 0;
        while done < tile.len() {
            let run = run_length(self.grid, col + done).min(tile.len() - done);
            let at = at + self.grid.col_offset(self.walk, col + done);
            let to = &mut tile[done..done + run];
            match stride {
                1 => self.copy(at, to),
                0 => {
                    let mut one = [F::ZERO];
                    self.copy(at, &mut one);
                    to.fill(one[0]);
                }
                _ => self.gather_any(at, stride, to),
            }
            done += run;
        }
    }

    /// Elements side by side, from element `at` of the memory, widened.
    pub(super) fn copy<F: Real>(&self, at: isize, to: &mut [F]) {
        let len = to.len();
        match self.dtype {
            dtype if dtype == F::DTYPE => to.copy_from_slice(self.slice::<F>(at, len)),
            DType::F16 => widen_f16(self.slice(at, len), to),
            DType::BF16 => self.isa.run(Widen { from: self.slice::<bf16>(at, len), to }),
            DType::F32 => widen(self.slice::<f32>(at, len), to),
            // A wider operand than the compute type is refused with the arguments.
            DType::F64 => widen(self.slice::<f64>(at, len), to),
        }
    }

    /// `len` elements side by side, from element `at` of the memory.
    #[inline(always)]
    pub(super) fn slice<T: Element>(&self, at: isize, len: usize) -> &'a [T] {
        // SAFETY: the view checked that every index of its layout is inside its memory, of which `at..at + len` are
        // indices; the memory is valid for reads during 'a, aligned for T, and any bits are a number.
        unsafe { std::slice::from_raw_parts(self.base.cast::<T>().offset(at), len) }
    }

    fn gather_any<F: Real>(&self, at: isize, stride: isize, to: &mut [F]) {
        match self.dtype {
            DType::F16 => self.gather::<F, f16>(at, stride, to),
            DType::BF16 => self.gather::<F, bf16>(at, stride, to),
            DType::F32 => self.gather::<F, f32>(at, stride, to),
            DType::F64 => self.gather::<F, f64>(at, stride, to),
        }
    }

    /// Elements `stride` apart, from element `at` of the memory.
    fn gather<F: Real, T: Stored>(&self, mut at: isize, stride: isize, to: &mut [F]) {
        for to in to {
            // SAFETY: as in `slice`, for one element.
            *to = unsafe { self.base.cast::<T>().offset(at).read() }.widen();
            at += stride;
        }
    }

    /// The numbers of a row, of which it has as many as there are side by side in the compute dtype.
    pub(super) fn numbers<F: Real>(&self, row: usize, len: usize) -> &'a [F] {
        self.slice(self.grid.row_offset(self.walk, row), len)
    }

    /// The dtype in memory.
    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }
}

impl<'a> Sink<'a> {
    /// Whether the rows of the last outer axis lie side by side.
    pub(super) fn has_adjacent_rows(&self) -> bool {
        self.walk.outer.last() == Some(&1)
    }

    /// Runs of columns that are evenly apart; see [`Source::runs`].
    pub(super) fn runs(&self, row: usize, cols: Range<usize>) -> impl Iterator<Item = Run> + use<'a> {
        runs(self.grid, self.walk, row, cols)
    }

    /// The dtype in memory.
    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    /// `view` walked over `grid`; `None` if it is not in host memory.
    pub(super) fn new(view: &'a ViewMut<'_>, grid: &'a Grid, walk: &'a Walk, isa: Isa) -> Option<Self> {
        let dtype = view.dtype();
        match &view.memory {
            MemoryMut::Host(base, _) => Some(Sink { base: *base, dtype, grid, walk, isa }),
            #[cfg(any(feature = "wgpu", feature = "cuda"))]
            _ => None,
        }
    }

    /// Where to compute columns `col..col + len` of `row`: the memory itself where it holds the compute type side by
    /// side, else `tile`. [`commit`](Sink::commit) ends what this begins.
    pub(super) fn begin<'t, F: Real>(
        &self,
        row: usize,
        col: usize,
        tile: &'t mut [F],
        len: usize,
    ) -> &'t mut [F]
    where
        'a: 't,
    {
        match self.direct::<F>(row, col, len) {
            Some(at) => self.slice::<F>(at, len),
            None => &mut tile[..len],
        }
    }

    /// Writes what was computed, with one rounding, unless it is in its place already.
    pub(super) fn commit<F: Real>(&self, row: usize, col: usize, values: &[F]) {
        if self.direct::<F>(row, col, values.len()).is_some() {
            return;
        }
        let at = self.grid.row_offset(self.walk, row);
        if self.walk.contiguous {
            return self.copy(values, at + col as isize);
        }
        let fastest = self.grid.inner.len() - 1;
        let stride = self.walk.inner[fastest];
        let mut done = 0;
        while done < values.len() {
            let run = run_length(self.grid, col + done).min(values.len() - done);
            let at = at + self.grid.col_offset(self.walk, col + done);
            let from = &values[done..done + run];
            match stride {
                1 => self.copy(from, at),
                _ => self.scatter_any(from, at, stride),
            }
            done += run;
        }
    }

    /// Writes elements side by side, from element `at` of the memory, each rounded once.
    pub(super) fn copy<F: Real>(&self, from: &[F], at: isize) {
        let len = from.len();
        match self.dtype {
            dtype if dtype == F::DTYPE => self.slice::<F>(at, len).copy_from_slice(from),
            DType::F16 => narrow_f16(from, self.slice(at, len)),
            DType::BF16 => self.isa.run(Narrow { from, to: self.slice::<bf16>(at, len) }),
            DType::F32 => narrow(from, self.slice::<f32>(at, len)),
            // A wider output than the compute type is refused with the arguments.
            DType::F64 => narrow(from, self.slice::<f64>(at, len)),
        }
    }

    /// Whether each row's columns lie side by side.
    pub(super) fn is_in_line(&self) -> bool {
        self.walk.contiguous
    }

    /// A row of which that is so, as memory holds it.
    #[inline(always)]
    pub(super) fn line<T: Element>(&self, row: usize, cols: usize) -> &'a mut [T] {
        self.slice(self.grid.row_offset(self.walk, row), cols)
    }

    /// Writes the numbers of a row, which lie side by side in the compute dtype.
    pub(super) fn put<F: Real>(&self, row: usize, numbers: &[F]) {
        self.slice(self.grid.row_offset(self.walk, row), numbers.len()).copy_from_slice(numbers);
    }

    /// The numbers of a row that [`put`](Sink::put) has written.
    pub(super) fn numbers<F: Real, const N: usize>(&self, row: usize) -> [F; N] {
        let mut numbers = [F::ZERO; N];
        numbers.copy_from_slice(self.slice(self.grid.row_offset(self.walk, row), N));
        numbers
    }

    /// Whether [`begin`](Sink::begin) lends the memory itself.
    pub(super) fn is_direct<F: Real>(&self, row: usize, col: usize, len: usize) -> bool {
        self.direct::<F>(row, col, len).is_some()
    }

    /// Where these columns lie side by side in the compute type, if they do.
    fn direct<F: Real>(&self, row: usize, col: usize, len: usize) -> Option<isize> {
        if self.dtype == F::DTYPE { place(self.grid, self.walk, row, col, len) } else { None }
    }

    /// Up to which column those from `col` on lie side by side.
    pub(super) fn run_end(&self, col: usize) -> usize {
        run_end(self.grid, self.walk, col)
    }

    fn scatter_any<F: Real>(&self, from: &[F], at: isize, stride: isize) {
        match self.dtype {
            DType::F16 => self.scatter::<F, f16>(from, at, stride),
            DType::BF16 => self.scatter::<F, bf16>(from, at, stride),
            DType::F32 => self.scatter::<F, f32>(from, at, stride),
            DType::F64 => self.scatter::<F, f64>(from, at, stride),
        }
    }

    /// Writes elements `stride` apart, from element `at` of the memory.
    fn scatter<F: Real, T: Stored>(&self, from: &[F], mut at: isize, stride: isize) {
        for from in from {
            // SAFETY: as in `slice`, for one element.
            unsafe { self.base.cast::<T>().offset(at).write(T::narrow(*from)) };
            at += stride;
        }
    }

    /// `len` elements side by side, from element `at` of the memory, to write.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "a sink stands for an exclusive borrow shared out by rows")]
    pub(super) fn slice<T: Element>(&self, at: isize, len: usize) -> &'a mut [T] {
        // SAFETY: in bounds as in `Source::slice`; exclusive because each row or column piece is written by one
        // thread at a time and sources over the same memory copy before they lend.
        unsafe { std::slice::from_raw_parts_mut(self.base.cast::<T>().offset(at), len) }
    }
}

/// Columns from `col` on that lie along the fastest axis.
#[inline(always)]
fn run_length(grid: &Grid, col: usize) -> usize {
    let fastest = grid.inner[grid.inner.len() - 1];
    fastest - col % fastest
}
