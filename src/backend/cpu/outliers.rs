//! Outliers among the results that become codes: they are left out of their row's scale, have the code 0, and flag their columns.

use super::Cpu;
use super::isa::Operation;
use super::real::Real;
use super::simd::{BLOCK, Simd};
use crate::Result;
use crate::tensor::{MemoryMut, View, ViewMut};
use std::sync::atomic::{AtomicI32, Ordering};

/// The bits of infinity; those of NaN are above.
const INFINITY: i32 = f32::INFINITY.to_bits() as i32;

/// The bits of a magnitude as float32: they are in the order of magnitudes, and positive as signed numbers.
#[inline(always)]
fn size_bits<F: Real>(x: &F) -> i32 {
    (x.to_f32().to_bits() & 0x7fff_ffff) as i32
}

/// Whether a magnitude of these bits is an outlier.
#[inline(always)]
fn is_outlier(bits: i32, threshold: i32) -> bool {
    (threshold..=INFINITY).contains(&bits)
}

/// The largest magnitude but for outliers, NaN if any element is, and whether there are outliers.
pub(super) struct Largest<'a, F> {
    pub(super) of: &'a [F],
    /// The bits of the least of them.
    pub(super) threshold: u32,
}

impl<F: Real> Operation for Largest<'_, F> {
    type Output = (f32, bool);
    #[inline(always)]
    fn call<S: Simd>(self) -> (f32, bool) {
        let threshold = self.threshold as i32;
        // Both numbers are signed, which more instruction sets compare.
        let next = |most: i32, count: i32, x: &F| {
            let bits = size_bits(x);
            let is_outlier = is_outlier(bits, threshold);
            (most.max(if is_outlier { 0 } else { bits }), count | i32::from(is_outlier))
        };
        let (blocks, rest) = self.of.as_chunks::<BLOCK>();
        let (mut most, mut any) = ([0; BLOCK], [0; BLOCK]);
        for block in blocks {
            for ((most, any), x) in most.iter_mut().zip(&mut any).zip(block) {
                (*most, *any) = next(*most, *any, x);
            }
        }
        let most = most.into_iter().fold(0, i32::max);
        let any = any.into_iter().fold(0, |a, b| a | b);
        let (most, any) = rest.iter().fold((most, any), |(most, any), x| next(most, any, x));
        (f32::from_bits(most as u32), any != 0)
    }
}

/// The flags of columns, which threads write whatever rows they have.
pub(super) struct Flags<'a>(&'a [AtomicI32]);

impl<'a> Flags<'a> {
    /// Those of a view of i32, side by side; `None` if it is not in host memory.
    pub(super) fn new(view: &'a ViewMut<'_>) -> Option<Self> {
        let layout = view.layout();
        match &view.memory {
            MemoryMut::Host(base, _) if !layout.is_empty() => {
                // SAFETY: the view's elements are i32 side by side, checked with the arguments, and nobody else reads or
                // writes them while it is borrowed. An atomic number has the size and the alignment of a plain one.
                Some(Flags(unsafe {
                    std::slice::from_raw_parts(base.cast::<AtomicI32>().add(layout.offset()), layout.len())
                }))
            }
            MemoryMut::Host(..) => Some(Flags(&[])),
            #[cfg(any(feature = "wgpu", feature = "cuda"))]
            _ => None,
        }
    }

    /// The elements of the columns from `at` on with zeros in the places of outliers, whose columns are flagged.
    pub(super) fn set_apart<'t, F: Real>(
        &self,
        from: &[F],
        at: usize,
        threshold: u32,
        inliers: &'t mut [F],
    ) -> &'t [F] {
        let inliers = &mut inliers[..from.len()];
        for (col, (to, x)) in inliers.iter_mut().zip(from).enumerate() {
            *to = *x;
            if is_outlier(size_bits(x), threshold as i32) {
                *to = F::ZERO;
                // Any order: all write the same. Looked at first, so that a line of memory stays with every thread.
                let flag = &self.0[at + col];
                if flag.load(Ordering::Relaxed) != 1 {
                    flag.store(1, Ordering::Relaxed);
                }
            }
        }
        inliers
    }
}

/// Codes in host memory.
struct Cells(*mut i8);

// SAFETY: tasks write codes of rows of their own; see `zero`.
unsafe impl Send for Cells {}
// SAFETY: as above.
unsafe impl Sync for Cells {}

impl Cells {
    /// # Safety
    /// `at` is the offset of an element of the layout that the memory is lent with, and no other thread is at it.
    unsafe fn zero(&self, at: usize) {
        // SAFETY: inside the memory, and written by one thread, by the caller's promise.
        unsafe { self.0.add(at).write(0) }
    }
}

/// Rows of a task.
const ROWS: usize = 64;

/// Codes in columns whose flag is not 0 become 0.
pub(super) fn zero_columns(codes: &ViewMut<'_>, flags: &View<'_>, kept: usize, cpu: &Cpu) -> Result<()> {
    let cells = match &codes.memory {
        MemoryMut::Host(base, _) => Cells(base.cast()),
        #[cfg(any(feature = "wgpu", feature = "cuda"))]
        _ => return Err(crate::Error::argument("codes", "memory on the host", "memory elsewhere")),
    };
    let (layout, cols) = (codes.layout(), flags.layout().len());
    let rows: usize = layout.shape()[..kept].iter().product();
    if layout.is_empty() {
        return Ok(());
    }
    let first = layout.offset_of(0);
    let is_flagged = |col: &usize| flags.host_integer(*col).is_some_and(|flag| flag != 0);
    // A layout adds up what rows and columns contribute.
    let columns: Vec<usize> =
        (0..cols).filter(is_flagged).map(|col| layout.offset_of(col).wrapping_sub(first)).collect();
    if columns.is_empty() {
        return Ok(());
    }
    cpu.for_each(rows.div_ceil(ROWS), ROWS * columns.len(), |task| {
        // A reference to all of it, which threads may share.
        let cells = &cells;
        for row in task * ROWS..rows.min((task + 1) * ROWS) {
            let start = layout.offset_of(row * cols);
            for column in &columns {
                // SAFETY: the sum is the offset of an element of this row, of an injective layout, and each row is in one task.
                unsafe { cells.zero(start.wrapping_add(*column)) };
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Isa;
    use super::*;

    #[test]
    fn outliers_do_not_count_and_nan_is_none() {
        let largest = |of: &[f32]| Isa::best().run(Largest { of, threshold: 6f32.to_bits() });
        assert_eq!(largest(&[0.5, -1.0, 2.0, 7.0]), (2.0, true));
        assert_eq!(largest(&[-6.0, 6f32.next_down()]), (6f32.next_down(), true));
        assert_eq!(largest(&[f32::INFINITY, f32::NEG_INFINITY, -0.0]), (0.0, true));
        assert_eq!(largest(&[1.0; 100]), (1.0, false));
        let (most, is_any) = largest(&[1.0, f32::NAN]);
        assert!(most.is_nan() && !is_any);
    }
}
