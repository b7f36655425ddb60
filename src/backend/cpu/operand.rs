//! Operands in host memory: loads that widen any dtype and stride to the compute type, stores that round once.
//!
//! A row is read in pieces of at most [`LEAF`] columns. Where the memory already holds the compute type side by side
//! the piece is lent as it is; otherwise it is converted into a tile that stays in the first-level cache.

use super::Isa;
use super::real::Real;
use crate::plan::tree::LEAF;
use crate::plan::{Grid, Walk};
use crate::tensor::{DType, Element, Memory, MemoryMut, View, ViewMut};
use half::{bf16, f16, slice::HalfFloatSliceExt};

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

impl<'a> Source<'a> {
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
            #[cfg(feature = "wgpu")]
            _ => None,
        }
    }

    /// Columns `col..col + len` of `row`, widened.
    pub(super) fn load<'t, F: Real>(&self, row: usize, col: usize, tile: &'t mut [F], len: usize) -> &'t [F]
    where
        'a: 't,
    {
        let at = self.grid.row_offset(self.walk, row);
        if !self.walk.contiguous {
            self.gather_any(at, col, &mut tile[..len]);
            return &tile[..len];
        }
        let at = at + col as isize;
        let tile = &mut tile[..len];
        match self.dtype {
            dtype if dtype == F::DTYPE => {
                let memory = self.slice::<F>(at, len);
                if !self.copied {
                    return memory;
                }
                tile.copy_from_slice(memory);
            }
            DType::F16 => widen_f16(self.slice(at, len), tile),
            DType::BF16 => self.isa.run(Widen { from: self.slice::<bf16>(at, len), to: &mut *tile }),
            DType::F32 => widen(self.slice::<f32>(at, len), tile),
            // A wider operand than the compute type is refused with the arguments.
            DType::F64 => widen(self.slice::<f64>(at, len), tile),
        }
        tile
    }

    /// `len` elements side by side, from element `at` of the memory.
    fn slice<T: Element>(&self, at: isize, len: usize) -> &'a [T] {
        // SAFETY: the view checked that every index of its layout is inside its memory, of which `at..at + len` are
        // indices; the memory is valid for reads during 'a, aligned for T, and any bits are a number.
        unsafe { std::slice::from_raw_parts(self.base.cast::<T>().offset(at), len) }
    }

    fn gather_any<F: Real>(&self, at: isize, col: usize, tile: &mut [F]) {
        match self.dtype {
            DType::F16 => self.gather::<F, f16>(at, col, tile),
            DType::BF16 => self.gather::<F, bf16>(at, col, tile),
            DType::F32 => self.gather::<F, f32>(at, col, tile),
            DType::F64 => self.gather::<F, f64>(at, col, tile),
        }
    }

    /// Columns from `col` on at any strides.
    fn gather<F: Real, T: Stored>(&self, row_at: isize, col: usize, tile: &mut [F]) {
        let mut done = 0;
        while done < tile.len() {
            let run = run_length(self.grid, col + done).min(tile.len() - done);
            let stride = self.walk.inner[self.walk.inner.len() - 1];
            let mut at = row_at + self.grid.col_offset(self.walk, col + done);
            for to in &mut tile[done..done + run] {
                // SAFETY: as in `slice`, for one element.
                *to = unsafe { self.base.cast::<T>().offset(at).read() }.widen();
                at += stride;
            }
            done += run;
        }
    }

    /// The one element of a scalar operand.
    pub(super) fn scalar<F: Real>(&self) -> F {
        let mut tile = [F::ZERO];
        self.load(0, 0, &mut tile, 1)[0]
    }

    /// The dtype in memory.
    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }
}

impl<'a> Sink<'a> {
    /// `view` walked over `grid`; `None` if it is not in host memory.
    pub(super) fn new(view: &'a mut ViewMut<'_>, grid: &'a Grid, walk: &'a Walk, isa: Isa) -> Option<Self> {
        let dtype = view.dtype();
        match &mut view.memory {
            MemoryMut::Host(base, _) => Some(Sink { base: *base, dtype, grid, walk, isa }),
            #[cfg(feature = "wgpu")]
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
        if self.is_direct::<F>() {
            return self.slice::<F>(self.grid.row_offset(self.walk, row) + col as isize, len);
        }
        &mut tile[..len]
    }

    /// Writes what was computed, with one rounding, unless it is in its place already.
    pub(super) fn commit<F: Real>(&self, row: usize, col: usize, values: &mut [F]) {
        if self.is_direct::<F>() {
            return;
        }
        let at = self.grid.row_offset(self.walk, row);
        if !self.walk.contiguous {
            return self.scatter_any(at, col, values);
        }
        let at = at + col as isize;
        match self.dtype {
            DType::F16 => narrow_f16(values, self.slice(at, values.len())),
            DType::BF16 => {
                let to = self.slice::<bf16>(at, values.len());
                self.isa.run(Narrow { from: values, to });
            }
            DType::F32 => narrow(values, self.slice::<f32>(at, values.len())),
            // A wider output than the compute type is refused with the arguments.
            DType::F64 => narrow(values, self.slice::<f64>(at, values.len())),
        }
    }

    fn is_direct<F: Real>(&self) -> bool {
        self.dtype == F::DTYPE && self.walk.contiguous
    }

    fn scatter_any<F: Real>(&self, at: isize, col: usize, values: &[F]) {
        match self.dtype {
            DType::F16 => self.scatter::<F, f16>(at, col, values),
            DType::BF16 => self.scatter::<F, bf16>(at, col, values),
            DType::F32 => self.scatter::<F, f32>(at, col, values),
            DType::F64 => self.scatter::<F, f64>(at, col, values),
        }
    }

    /// `len` elements side by side, from element `at` of the memory, to write.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "a sink stands for an exclusive borrow shared out by rows")]
    fn slice<T: Element>(&self, at: isize, len: usize) -> &'a mut [T] {
        // SAFETY: in bounds as in `Source::slice`; exclusive because each row or column piece is written by one
        // thread at a time and sources over the same memory copy before they lend.
        unsafe { std::slice::from_raw_parts_mut(self.base.cast::<T>().offset(at), len) }
    }

    /// Columns from `col` on at any strides.
    fn scatter<F: Real, T: Stored>(&self, row_at: isize, col: usize, tile: &[F]) {
        let mut done = 0;
        while done < tile.len() {
            let run = run_length(self.grid, col + done).min(tile.len() - done);
            let stride = self.walk.inner[self.walk.inner.len() - 1];
            let mut at = row_at + self.grid.col_offset(self.walk, col + done);
            for from in &tile[done..done + run] {
                // SAFETY: as in `slice`, for one element.
                unsafe { self.base.cast::<T>().offset(at).write(T::narrow(*from)) };
                at += stride;
            }
            done += run;
        }
    }
}

/// Columns from `col` on that lie along the fastest axis.
#[inline(always)]
fn run_length(grid: &Grid, col: usize) -> usize {
    let fastest = grid.inner[grid.inner.len() - 1];
    fastest - col % fastest
}

/// The leaves of one row of a source: lent at once where the row is a single leaf, else loaded one by one.
pub(super) enum Leaves<'t, F> {
    /// The whole row.
    Resident(&'t [F]),
    /// A row of several leaves, and the tile that holds the one at hand.
    Streamed(Stream<'t, F>),
}

/// A row that is loaded leaf by leaf.
pub(super) struct Stream<'t, F> {
    source: Source<'t>,
    row: usize,
    cols: usize,
    /// Elements are read as `x * 2^-exponent`.
    exponent: i32,
    tile: &'t mut [F],
}

impl<'t, F: Real> Leaves<'t, F> {
    pub(super) fn new(source: &Source<'t>, row: usize, cols: usize, tile: &'t mut [F]) -> Self {
        if cols <= LEAF {
            Leaves::Resident(source.load(row, 0, tile, cols))
        } else {
            Leaves::Streamed(Stream { source: *source, row, cols, exponent: 0, tile })
        }
    }

    /// The leaf's elements.
    pub(super) fn leaf(&mut self, leaf: usize) -> &[F] {
        match self {
            Leaves::Resident(row) => row,
            Leaves::Streamed(stream) => stream.leaf(leaf),
        }
    }

    /// From now on, elements as `x * 2^-exponent`. `tile` holds them where the row is resident.
    pub(super) fn scaled(self, exponent: i32, tile: &'t mut [F]) -> Self {
        match self {
            Leaves::Resident(row) => {
                let tile = &mut tile[..row.len()];
                tile.iter_mut().zip(row).for_each(|(to, x)| *to = x.scale(-exponent));
                Leaves::Resident(tile)
            }
            Leaves::Streamed(stream) => Leaves::Streamed(Stream { exponent, ..stream }),
        }
    }
}

impl<F: Real> Stream<'_, F> {
    fn leaf(&mut self, leaf: usize) -> &[F] {
        let len = LEAF.min(self.cols - leaf * LEAF);
        if self.exponent == 0 {
            return self.source.load(self.row, leaf * LEAF, self.tile, len);
        }
        let source = Source { copied: true, ..self.source };
        source.load(self.row, leaf * LEAF, self.tile, len);
        let tile = &mut self.tile[..len];
        tile.iter_mut().for_each(|x| *x = x.scale(-self.exponent));
        tile
    }
}

/// An element type, converted from and to any compute type at least as wide.
trait Stored: Element {
    /// Exact.
    fn widen<F: Real>(self) -> F;
    /// To nearest even.
    fn narrow<F: Real>(x: F) -> Self;
}

macro_rules! stored {
    ($($t:ty: $from:ident, $to:ident;)*) => {$(
        impl Stored for $t {
            #[inline(always)]
            fn widen<F: Real>(self) -> F {
                F::$from(self)
            }
            #[inline(always)]
            fn narrow<F: Real>(x: F) -> $t {
                x.$to()
            }
        }
    )*};
}
stored! {
    f16: from_f16, to_f16;
    bf16: from_bf16, to_bf16;
    f32: from_f32, to_f32;
    f64: of, to_f64;
}

/// A slice, widened.
#[inline(always)]
fn widen<T: Stored, F: Real>(from: &[T], to: &mut [F]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.widen();
    }
}

/// A slice, rounded.
#[inline(always)]
fn narrow<F: Real, T: Stored>(from: &[F], to: &mut [T]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = T::narrow(*from);
    }
}

/// A slice, widened by SIMD.
struct Widen<'a, T, F> {
    from: &'a [T],
    to: &'a mut [F],
}

impl<T: Stored, F: Real> pulp::NullaryFnOnce for Widen<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        widen(self.from, self.to);
    }
}

/// A slice, rounded by SIMD.
struct Narrow<'a, F, T> {
    from: &'a [F],
    to: &'a mut [T],
}

impl<F: Real, T: Stored> pulp::NullaryFnOnce for Narrow<'_, F, T> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        narrow(self.from, self.to);
    }
}

/// A slice of f16, through float32 by the CPU's own instruction where it has one.
fn widen_f16<F: Real>(from: &[f16], to: &mut [F]) {
    if let Some(to) = F::as_f32s(to) {
        return from.convert_to_f32_slice(to);
    }
    widen(from, to);
}

/// A slice to f16, from float32 by the CPU's own instruction where it has one.
fn narrow_f16<F: Real>(from: &mut [F], to: &mut [f16]) {
    if let Some(from) = F::as_f32s(from) {
        return to.convert_from_f32_slice(from);
    }
    narrow(from, to);
}
