//! Operands to write in host memory: stores of any dtype and stride that round once.

use super::Isa;
use super::gathered::Spread;
use super::real::Real;
use super::runs::{Run, place, run_end, run_length, runs};
use super::stored::{Narrow, Stored};
use crate::plan::{Grid, RowOffsets, Walk};
use crate::tensor::{DType, Element, MemoryMut, ViewMut};
use half::{bf16, f16};
use std::ops::Range;

/// An operand to write.
#[derive(Clone, Copy)]
pub(super) struct Sink<'a> {
    base: *mut u8,
    dtype: DType,
    grid: &'a Grid,
    walk: &'a Walk,
    isa: Isa,
}

// SAFETY: a sink is handed to threads that write disjoint rows or columns, which the schedules' chunks are; layouts
// written to are injective (checked by `norm::arguments`), so disjoint indices are disjoint memory.
unsafe impl Send for Sink<'_> {}
// SAFETY: as above.
unsafe impl Sync for Sink<'_> {}

impl<'a> Sink<'a> {
    /// Whether the rows of the last outer axis lie side by side.
    pub(super) fn has_adjacent_rows(&self) -> bool {
        self.walk.outer.last() == Some(&1)
    }

    /// Runs of columns that are evenly apart; see [`Source::runs`](super::source::Source::runs).
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

    /// Rows of which each in its turn is in `memory`, whatever row is asked for.
    pub(super) fn of_line<F: Real>(memory: &'a mut [F], grid: &'a Grid, walk: &'a Walk, isa: Isa) -> Self {
        debug_assert!(memory.len() >= grid.cols, "a row");
        Sink { base: memory.as_mut_ptr().cast(), dtype: F::DTYPE, grid, walk, isa }
    }

    pub(super) fn parts(&self) -> (*const u8, DType, &'a Grid, &'a Walk, Isa) {
        (self.base, self.dtype, self.grid, self.walk, self.isa)
    }

    /// How rows lie in memory where they are spread in short runs.
    pub(super) fn spread(&self) -> Option<Spread> {
        Spread::of(self.grid, self.walk)
    }

    /// The place of a row's first element in memory.
    pub(super) fn first_of(&self, row: usize) -> isize {
        self.grid.row_offset(self.walk, row)
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

    /// The memory itself where it holds these columns in this type, side by side.
    pub(super) fn lend<T: Element>(&self, row: usize, col: usize, len: usize) -> Option<&'a mut [T]> {
        if self.dtype != T::DTYPE {
            return None;
        }
        let at = place(self.grid, self.walk, row, col, len)?;
        Some(self.slice(at, len))
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
            DType::F16 => self.isa.run(Narrow { from, to: self.slice::<f16>(at, len) }),
            DType::BF16 => self.isa.run(Narrow { from, to: self.slice::<bf16>(at, len) }),
            DType::F32 => self.isa.run(Narrow { from, to: self.slice::<f32>(at, len) }),
            // A wider output than the compute type is refused with the arguments.
            DType::F64 => self.isa.run(Narrow { from, to: self.slice::<f64>(at, len) }),
            _ => debug_assert!(false, "other dtypes are refused with the arguments"),
        }
    }

    /// Whether each row's columns lie side by side.
    pub(super) fn is_in_line(&self) -> bool {
        self.walk.contiguous
    }

    /// Where rows begin in memory.
    pub(super) fn offsets(&self) -> RowOffsets<'a> {
        RowOffsets::new(self.grid, self.walk)
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
            _ => debug_assert!(false, "other dtypes are refused with the arguments"),
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
