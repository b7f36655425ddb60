//! Operands to read in host memory: loads that widen any dtype and stride to the compute type.
//!
//! A row is read in pieces of at most one leaf of columns. Where the memory already holds the compute type side by side
//! the piece is lent as it is; otherwise it is converted into a tile that stays in the first-level cache.

use super::Isa;
use super::gathered::Spread;
use super::memory::Upcoming;
use super::real::Real;
use super::runs::{Run, place, run_end, run_length, runs};
use super::sink::Sink;
use super::stored::{Stored, Widen};
use crate::plan::{Grid, RowOffsets, Walk};
use crate::tensor::{DType, Element, Memory, View};
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

// SAFETY: a source is a shared borrow of plain numbers; `new` ties it to the view's lifetime.
unsafe impl Send for Source<'_> {}
// SAFETY: as above.
unsafe impl Sync for Source<'_> {}

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

    /// Where rows begin in memory.
    pub(super) fn offsets(&self) -> RowOffsets<'a> {
        RowOffsets::new(self.grid, self.walk)
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

    /// What a sink writes, read again: never lent.
    pub(super) fn of_sink(sink: &Sink<'a>) -> Self {
        let (base, dtype, grid, walk, isa) = sink.parts();
        Source { base, dtype, grid, walk, isa, copied: true }
    }

    /// The same, lent: where the sink writes no more while this is in use.
    pub(super) fn lent(self) -> Self {
        Source { copied: false, ..self }
    }

    /// How rows lie in memory where they are spread in short runs.
    pub(super) fn spread(&self) -> Option<Spread> {
        Spread::of(self.grid, self.walk)
    }

    /// The index space that it is walked over.
    pub(super) fn grid(&self) -> &'a Grid {
        self.grid
    }

    /// The place of a row's first element in memory.
    pub(super) fn first_of(&self, row: usize) -> isize {
        self.grid.row_offset(self.walk, row)
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

    /// The memory itself where it holds these columns in this type, side by side, and nobody writes it.
    pub(super) fn lend<T: Element>(&self, row: usize, col: usize, len: usize) -> Option<&'a [T]> {
        if self.dtype != T::DTYPE || self.copied {
            return None;
        }
        let at = place(self.grid, self.walk, row, col, len)?;
        Some(self.slice(at, len))
    }

    /// The columns from `col` on of a row that will be read soon; `None` where there is no such row, or where they do not lie side by
    /// side.
    pub(super) fn upcoming(&self, row: usize, col: usize) -> Option<Upcoming> {
        (row < self.grid.rows && self.walk.contiguous).then(|| {
            let at = self.grid.row_offset(self.walk, row) + col as isize;
            let size = self.dtype.size();
            Upcoming::new(self.base.wrapping_offset(at * size as isize), size)
        })
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
            DType::F16 => self.isa.run(Widen { from: self.slice::<f16>(at, len), to }),
            DType::BF16 => self.isa.run(Widen { from: self.slice::<bf16>(at, len), to }),
            DType::F32 => self.isa.run(Widen { from: self.slice::<f32>(at, len), to }),
            // A wider operand than the compute type is refused with the arguments.
            DType::F64 => self.isa.run(Widen { from: self.slice::<f64>(at, len), to }),
            _ => debug_assert!(false, "other dtypes are refused with the arguments"),
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
            _ => debug_assert!(false, "other dtypes are refused with the arguments"),
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

    /// The integer that a row has.
    pub(super) fn integer(&self, row: usize) -> i64 {
        let at = self.grid.row_offset(self.walk, row);
        match self.dtype {
            DType::I64 => self.slice::<i64>(at, 1)[0],
            _ => i64::from(self.slice::<i32>(at, 1)[0]),
        }
    }

    /// The dtype in memory.
    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }
}
