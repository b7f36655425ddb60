//! Sums over the columns of neighbouring rows, read line by line: every lane of every row at once, in the order of
//! [`plan::tree`](crate::plan::tree).

use super::Isa;
use super::isa::Operation;
use super::lanes::{read, write};
use super::lines::{Each, LineFactor, LineStatistics, Lines, LinesOf};
use super::real::Real;
use super::simd::{BLOCK, Block, Numbers, Simd};
use super::stored::Stored;

/// `M` numbers computed from each element of lines.
pub(super) trait LineTerms<F: Real, const M: usize> {
    /// Whether a lane starts from zero, and not from its first term. They differ for a negative zero.
    const FROM_ZERO: bool = true;
    /// Of line `index`, the rows from `at` on: a block if `WHOLE`, else `len`.
    fn terms<S: Simd, const WHOLE: bool>(&self, index: usize, at: usize, len: usize) -> [Block<S, F>; M];
}

/// Sums of a block of rows of a leaf, `[lanes, M, pitch]`.
pub(super) struct LaneSums<'s, F, const M: usize> {
    isa: Isa,
    lanes: usize,
    pitch: usize,
    sums: &'s mut [F],
}

impl<'s, F: Real, const M: usize> LaneSums<'s, F, M> {
    /// Of a leaf of `cols` columns, of rows that are `pitch` in whole blocks.
    pub(super) fn new(isa: Isa, lanes: usize, pitch: usize, cols: usize, sums: &'s mut [F]) -> Self {
        let sums = &mut sums[..lanes * M * pitch];
        sums[cols.min(lanes) * M * pitch..].fill(F::ZERO);
        LaneSums { isa, lanes, pitch, sums }
    }

    /// Adds the terms of lines, the first of which is column `first` of the leaf.
    pub(super) fn add(&mut self, first: usize, lines: Lines, terms: impl LineTerms<F, M>) {
        let Self { isa, lanes, pitch, sums } = self;
        isa.run(AddLines { terms, first, lines, pitch: *pitch, lanes: *lanes, sums });
    }

    /// The sums of the rows, `[M, pitch]`.
    pub(super) fn halved(self) -> [&'s [F]; M] {
        let Self { isa, lanes, pitch, sums } = self;
        isa.run(HalveLanes { sums: &mut *sums, lanes, len: M * pitch });
        let sums: &[F] = sums;
        std::array::from_fn(|m| &sums[m * pitch..(m + 1) * pitch])
    }
}

/// Adds the terms of lines to the sums of their lanes.
struct AddLines<'s, T, F, const M: usize> {
    terms: T,
    first: usize,
    lines: Lines,
    pitch: usize,
    lanes: usize,
    sums: &'s mut [F],
}

impl<T: LineTerms<F, M>, F: Real, const M: usize> Operation for AddLines<'_, T, F, M> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(self) {
        let AddLines { terms, first, lines: Lines { count, width, .. }, pitch, lanes, sums } = self;
        let whole = width - width % BLOCK;
        for index in 0..count {
            let col = first + index;
            let sums = &mut sums[col % lanes * M * pitch..][..M * pitch];
            let begins = col < lanes;
            for at in (0..whole).step_by(BLOCK) {
                add::<S, T, F, M>(terms.terms::<S, true>(index, at, BLOCK), sums, at, pitch, begins);
            }
            if whole < width {
                let terms = terms.terms::<S, false>(index, whole, width - whole);
                add::<S, T, F, M>(terms, sums, whole, pitch, begins);
            }
        }
    }
}

/// Adds a block of terms to the sums of their lane, which `begins` with them or not.
#[inline(always)]
fn add<S: Simd, T: LineTerms<F, M>, F: Real, const M: usize>(
    terms: [Block<S, F>; M],
    sums: &mut [F],
    at: usize,
    pitch: usize,
    begins: bool,
) {
    for (m, terms) in terms.into_iter().enumerate() {
        let place = m * pitch + at;
        let sum = if !begins {
            read::<S, true, F, F>(sums, place, BLOCK) + terms
        } else if T::FROM_ZERO {
            Block::<S, F>::splat(F::ZERO) + terms
        } else {
            terms
        };
        write::<S, true, F, F>(sum, sums, place, BLOCK);
    }
}

/// Halves `lanes` of `len` sums each down to one, which is left in the first.
struct HalveLanes<'s, F> {
    sums: &'s mut [F],
    lanes: usize,
    len: usize,
}

impl<F: Real> Operation for HalveLanes<'_, F> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(self) {
        let HalveLanes { sums, lanes, len } = self;
        let mut half = lanes / 2;
        while half > 0 {
            let (low, high) = sums.split_at_mut(half * len);
            for (low, high) in low.iter_mut().zip(&*high) {
                *low += *high;
            }
            half /= 2;
        }
    }
}

/// `x`.
pub(super) struct PlainLines<'s, 'a, T>(pub(super) LinesOf<'s, 'a, T>);

impl<T: Stored, F: Real> LineTerms<F, 1> for PlainLines<'_, '_, T> {
    const FROM_ZERO: bool = false;
    #[inline(always)]
    fn terms<S: Simd, const WHOLE: bool>(&self, index: usize, at: usize, len: usize) -> [Block<S, F>; 1] {
        [self.0.block::<S, WHOLE, F>(index, at, len)]
    }
}

/// `x - shift` and its square.
pub(super) struct ShiftedLines<'s, 'a, T, F> {
    pub(super) x: LinesOf<'s, 'a, T>,
    pub(super) shift: Each<'s, F>,
}

impl<T: Stored, F: Real> LineTerms<F, 2> for ShiftedLines<'_, '_, T, F> {
    #[inline(always)]
    fn terms<S: Simd, const WHOLE: bool>(&self, index: usize, at: usize, len: usize) -> [Block<S, F>; 2] {
        let shift = read::<S, true, F, F>(self.shift, at, BLOCK);
        let d = self.x.block::<S, WHOLE, F>(index, at, len) - shift;
        [d, d * d]
    }
}

/// `x²`, or `|x|`.
pub(super) struct SizesOfLines<'s, 'a, T, const SQUARES: bool>(pub(super) LinesOf<'s, 'a, T>);

impl<T: Stored, F: Real, const SQUARES: bool> LineTerms<F, 1> for SizesOfLines<'_, '_, T, SQUARES> {
    #[inline(always)]
    fn terms<S: Simd, const WHOLE: bool>(&self, index: usize, at: usize, len: usize) -> [Block<S, F>; 1] {
        let x: Block<S, F> = self.0.block::<S, WHOLE, F>(index, at, len);
        [if SQUARES { x * x } else { x.abs() }]
    }
}

/// `ghat` and `ghat * x_hat`.
pub(super) struct GradientsOfLines<'s, 'a, T, F, const CENTRED: bool> {
    pub(super) g: LinesOf<'s, 'a, T>,
    pub(super) x: LinesOf<'s, 'a, T>,
    pub(super) s: LineStatistics<'s, F>,
    pub(super) w: LineFactor<'s, F>,
    /// The first line's column in `w`.
    pub(super) col: usize,
}

impl<T: Stored, F: Real, const CENTRED: bool> LineTerms<F, 2> for GradientsOfLines<'_, '_, T, F, CENTRED> {
    #[inline(always)]
    fn terms<S: Simd, const WHOLE: bool>(&self, index: usize, at: usize, len: usize) -> [Block<S, F>; 2] {
        let hat = self.s.normalized::<S, CENTRED>(at, self.x.block::<S, WHOLE, F>(index, at, len));
        let ghat = self.w.times::<S>(self.col + index, at, self.g.block::<S, WHOLE, F>(index, at, len));
        [ghat, ghat * hat]
    }
}
