//! Tiles of the `column` schedule: the same columns of neighbouring rows, `[cols, PITCH]`, a column's numbers side by
//! side, so that arithmetic goes along rows. The sums are the ones of [`lanes`](super::lanes), for 32 rows at a time.
#![allow(clippy::needless_range_loop, reason = "several arrays are walked by one index")]

use super::lanes::{BLOCK, Block, read, write};
use super::leaf::guess_len;
use super::memory::{Ahead, is_aligned, stream};
use super::operand::{Sink, Source};
use super::real::Real;
use super::stored::Stored;
use pulp::NullaryFnOnce;

/// Lines that are asked for ahead of the one being read.
const AHEAD: isize = 12;

/// Columns of `width` neighbouring rows, `count` of them `stride` apart in memory from element `at` on.
#[derive(Clone, Copy)]
pub(super) struct Lines {
    pub(super) at: isize,
    pub(super) stride: isize,
    pub(super) count: usize,
    pub(super) width: usize,
    /// From a column to the next in the tile: `width` in whole blocks.
    pub(super) pitch: usize,
}

/// Reads lines into a tile; what is beyond `width` is zero.
pub(super) struct LoadLines<'s, 'a, T, F> {
    pub(super) source: &'s Source<'a>,
    pub(super) lines: Lines,
    pub(super) tile: &'s mut [F],
    pub(super) of: std::marker::PhantomData<T>,
}

impl<T: Stored, F: Real> NullaryFnOnce for LoadLines<'_, '_, T, F> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        let LoadLines { source, lines: Lines { at, stride, count, width, pitch }, tile, .. } = self;
        for (i, to) in tile.chunks_exact_mut(pitch).take(count).enumerate() {
            let line: &[T] = source.slice(at + i as isize * stride, width);
            let ahead = Ahead::of(line).after_signed(AHEAD * stride);
            let whole = width - width % BLOCK;
            for from in (0..whole).step_by(BLOCK) {
                ahead.touch(from);
                write::<true, F, F>(&read::<true, T, F>(line, from, BLOCK), to, from, BLOCK);
            }
            if whole < width {
                ahead.touch(whole);
                write::<true, F, F>(&read::<false, T, F>(line, whole, width - whole), to, whole, BLOCK);
            }
        }
    }
}

/// One number for each row of a tile.
pub(super) type Each<'a, F> = &'a [F];

/// A parameter in a tile: none, one for each row, or one for each column.
#[derive(Clone, Copy)]
pub(super) enum TileFactor<'a, F> {
    Absent,
    Rows(Each<'a, F>),
    Columns(&'a [F]),
}

impl<F: Real> TileFactor<'_, F> {
    /// The numbers for a column's block of rows.
    #[inline(always)]
    fn block(self, col: usize, at: usize) -> Option<Block<F>> {
        match self {
            TileFactor::Absent => None,
            TileFactor::Rows(each) => Some(read::<true, F, F>(each, at, BLOCK)),
            TileFactor::Columns(each) => Some([each[col]; BLOCK]),
        }
    }

    #[inline(always)]
    fn times(self, col: usize, at: usize, y: &mut Block<F>) {
        if let Some(w) = self.block(col, at) {
            for i in 0..BLOCK {
                y[i] = y[i] * w[i];
            }
        }
    }

    #[inline(always)]
    fn plus(self, col: usize, at: usize, y: &mut Block<F>) {
        if let Some(b) = self.block(col, at) {
            for i in 0..BLOCK {
                y[i] += b[i];
            }
        }
    }
}

/// The statistics of a tile's rows; `mean` and `correction` only where rows are centred.
#[derive(Clone, Copy)]
pub(super) struct TileStatistics<'a, F> {
    pub(super) mean: Each<'a, F>,
    pub(super) correction: Each<'a, F>,
    pub(super) rstd: Each<'a, F>,
}

impl<F: Real> TileStatistics<'_, F> {
    /// `x` becomes `x_hat`.
    #[inline(always)]
    fn normalize<const CENTRED: bool>(&self, at: usize, x: &mut Block<F>) {
        if CENTRED {
            let mean = read::<true, F, F>(self.mean, at, BLOCK);
            let correction = read::<true, F, F>(self.correction, at, BLOCK);
            for i in 0..BLOCK {
                x[i] = (x[i] - mean[i]) - correction[i];
            }
        }
        let rstd = read::<true, F, F>(self.rstd, at, BLOCK);
        for i in 0..BLOCK {
            x[i] = x[i] * rstd[i];
        }
    }
}

/// Writes the block of rows from `at` on of a column, past the caches if `streamed`.
#[inline(always)]
fn store<T: Stored, F: Real>(y: &Block<F>, line: &mut [T], at: usize, streamed: bool) {
    let len = (line.len() - at).min(BLOCK);
    if len < BLOCK {
        write::<false, T, F>(y, line, at, len);
    } else if streamed {
        stream(y, line, at);
    } else {
        write::<true, T, F>(y, line, at, BLOCK);
    }
}

/// Normalizes a tile's columns from `col` on and writes them.
pub(super) struct ApplyLines<'s, 'a, T, F, const CENTRED: bool> {
    pub(super) tile: &'s [F],
    pub(super) s: TileStatistics<'s, F>,
    pub(super) w: TileFactor<'s, F>,
    pub(super) b: TileFactor<'s, F>,
    pub(super) col: usize,
    pub(super) sink: &'s Sink<'a>,
    pub(super) lines: Lines,
    pub(super) streamed: bool,
    pub(super) of: std::marker::PhantomData<T>,
}

impl<T: Stored, F: Real, const CENTRED: bool> NullaryFnOnce for ApplyLines<'_, '_, T, F, CENTRED> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        let ApplyLines { tile, s, w, b, col, sink, lines, streamed, .. } = self;
        let Lines { at, stride, count, width, pitch } = lines;
        for (i, from) in tile.chunks_exact(pitch).take(count).enumerate() {
            let line: &mut [T] = sink.slice(at + i as isize * stride, width);
            let streamed = streamed && is_aligned(line);
            for at in (0..width).step_by(BLOCK) {
                let mut y = read::<true, F, F>(from, at, BLOCK);
                s.normalize::<CENTRED>(at, &mut y);
                w.times(col + i, at, &mut y);
                b.plus(col + i, at, &mut y);
                store(&y, line, at, streamed);
            }
        }
    }
}

/// The gradient of the input in a tile's columns from `col` on, written.
pub(super) struct GradientLines<'s, 'a, T, F, const CENTRED: bool> {
    pub(super) g: &'s [F],
    pub(super) x: &'s [F],
    pub(super) s: TileStatistics<'s, F>,
    pub(super) c1: Each<'s, F>,
    pub(super) c2: Each<'s, F>,
    pub(super) w: TileFactor<'s, F>,
    pub(super) outer: TileFactor<'s, F>,
    pub(super) col: usize,
    pub(super) sink: &'s Sink<'a>,
    pub(super) lines: Lines,
    pub(super) streamed: bool,
    pub(super) of: std::marker::PhantomData<T>,
}

impl<T: Stored, F: Real, const CENTRED: bool> NullaryFnOnce for GradientLines<'_, '_, T, F, CENTRED> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        let GradientLines { g, x, s, c1, c2, w, outer, col, sink, lines, streamed, .. } = self;
        let Lines { at, stride, count, width, pitch } = lines;
        for (i, (g, x)) in g.chunks_exact(pitch).zip(x.chunks_exact(pitch)).take(count).enumerate() {
            let line: &mut [T] = sink.slice(at + i as isize * stride, width);
            let streamed = streamed && is_aligned(line);
            for at in (0..width).step_by(BLOCK) {
                let mut hat = read::<true, F, F>(x, at, BLOCK);
                s.normalize::<CENTRED>(at, &mut hat);
                let mut d = read::<true, F, F>(g, at, BLOCK);
                w.times(col + i, at, &mut d);
                let c1 = read::<true, F, F>(c1, at, BLOCK);
                let c2 = read::<true, F, F>(c2, at, BLOCK);
                let rstd = read::<true, F, F>(s.rstd, at, BLOCK);
                for i in 0..BLOCK {
                    d[i] = rstd[i] * ((d[i] - c1[i]) - hat[i] * c2[i]);
                }
                outer.times(col + i, at, &mut d);
                store(&d, line, at, streamed);
            }
        }
    }
}

/// `M` numbers computed from a column of 32 rows.
pub(super) trait TileTerms<F, const M: usize> {
    /// Columns of the leaf.
    fn len(&self) -> usize;
    fn terms(&mut self, col: usize) -> [Block<F>; M];
}

/// A leaf's tree sums for 32 rows: an operation for [`Isa::run`](super::Isa).
pub(super) struct TileSums<T, F, const M: usize> {
    pub(super) lanes: usize,
    pub(super) terms: T,
    pub(super) of: std::marker::PhantomData<F>,
}

impl<F: Real, T: TileTerms<F, M>, const M: usize> NullaryFnOnce for TileSums<T, F, M> {
    type Output = ([Block<F>; M], T);
    /// Lanes one after the other, in the order of their reversed bits: adding pairwise in that order is halving.
    #[inline(always)]
    fn call(self) -> ([Block<F>; M], T) {
        let TileSums { lanes, mut terms, .. } = self;
        let len = terms.len();
        let mut stack = [[[F::ZERO; BLOCK]; M]; 9];
        let bits = lanes.trailing_zeros();
        for index in 0..lanes {
            let lane = index.reverse_bits() >> (usize::BITS - bits);
            let mut sum = [[F::ZERO; BLOCK]; M];
            for col in (lane..len).step_by(lanes) {
                let terms = terms.terms(col);
                for m in 0..M {
                    for i in 0..BLOCK {
                        sum[m][i] += terms[m][i];
                    }
                }
            }
            let level = index.trailing_ones() as usize;
            for low in &stack[..level] {
                for m in 0..M {
                    for i in 0..BLOCK {
                        sum[m][i] = low[m][i] + sum[m][i];
                    }
                }
            }
            stack[level] = sum;
        }
        (stack[bits as usize], terms)
    }
}

/// `x - shift` and its square.
pub(super) struct TileShifted<'a, F> {
    pub(super) tile: &'a [F],
    pub(super) pitch: usize,
    pub(super) at: usize,
    pub(super) shift: Block<F>,
}

impl<F: Real> TileTerms<F, 2> for TileShifted<'_, F> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.tile.len() / self.pitch
    }
    #[inline(always)]
    fn terms(&mut self, col: usize) -> [Block<F>; 2] {
        let mut d = read::<true, F, F>(self.tile, col * self.pitch + self.at, BLOCK);
        let mut square = d;
        for i in 0..BLOCK {
            d[i] = d[i] - self.shift[i];
            square[i] = d[i] * d[i];
        }
        [d, square]
    }
}

/// `x²`, or `|x|`.
pub(super) struct TileSizes<'a, F, const SQUARES: bool> {
    pub(super) tile: &'a [F],
    pub(super) pitch: usize,
    pub(super) at: usize,
}

impl<F: Real, const SQUARES: bool> TileTerms<F, 1> for TileSizes<'_, F, SQUARES> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.tile.len() / self.pitch
    }
    #[inline(always)]
    fn terms(&mut self, col: usize) -> [Block<F>; 1] {
        let mut x = read::<true, F, F>(self.tile, col * self.pitch + self.at, BLOCK);
        for i in 0..BLOCK {
            x[i] = if SQUARES { x[i] * x[i] } else { x[i].abs() };
        }
        [x]
    }
}

/// `ghat` and `ghat * x_hat`, and the OR of the magnitude bits of each row's `ghat`.
pub(super) struct TileGradients<'a, F: Real, const CENTRED: bool> {
    pub(super) g: &'a [F],
    pub(super) x: &'a [F],
    pub(super) pitch: usize,
    pub(super) at: usize,
    pub(super) s: TileStatistics<'a, F>,
    pub(super) w: TileFactor<'a, F>,
    pub(super) bits: [F::Bits; BLOCK],
}

impl<F: Real, const CENTRED: bool> TileTerms<F, 2> for TileGradients<'_, F, CENTRED> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.g.len() / self.pitch
    }
    #[inline(always)]
    fn terms(&mut self, col: usize) -> [Block<F>; 2] {
        let mut hat = read::<true, F, F>(self.x, col * self.pitch + self.at, BLOCK);
        self.s.normalize::<CENTRED>(self.at, &mut hat);
        let mut ghat = read::<true, F, F>(self.g, col * self.pitch + self.at, BLOCK);
        self.w.times(col, self.at, &mut ghat);
        for i in 0..BLOCK {
            self.bits[i] = F::or(self.bits[i], ghat[i].magnitude());
            hat[i] = ghat[i] * hat[i];
        }
        [ghat, hat]
    }
}

/// The first guesses of the means of 32 rows: the first columns, halved.
pub(super) fn guesses<F: Real>(tile: &[F], pitch: usize, at: usize) -> Block<F> {
    let q = guess_len(tile.len() / pitch);
    let mut lanes = [[F::ZERO; BLOCK]; BLOCK];
    for (col, lane) in lanes[..q].iter_mut().enumerate() {
        *lane = read::<true, F, F>(tile, col * pitch + at, BLOCK);
    }
    let mut half = q / 2;
    while half > 0 {
        for col in 0..half {
            for i in 0..BLOCK {
                lanes[col][i] += lanes[col + half][i];
            }
        }
        half /= 2;
    }
    let inv = F::of(1.0 / q as f64);
    lanes[0].map(|sum| sum * inv)
}
