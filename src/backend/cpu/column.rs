//! The `column` schedule, for rows whose elements lie far apart while neighbouring rows lie side by side: blocks of
//! neighbouring rows are brought into a tile and handled together, each row's numbers being those of the `row` schedule.
//!
//! A row that is out of the ordinary (out of range, or with a mean far from its first guess) is picked out of the tile
//! and handled like any other row.

use super::lanes::BLOCK;
use super::launch::with_scratch;
use super::leaf;
use super::memory::finish_streaming;
use super::operand::Source;
use super::real::{Real, two_sum};
use super::row::Forward;
use super::statistics::{Constants, Measure, Moments, Statistics};
use super::tile::{
    ApplyLines, Lines, LoadLines, TileFactor, TileShifted, TileSizes, TileStatistics, TileSums, guesses,
};
use crate::plan::tree::LEAF;
use crate::tensor::DType;
use half::{bf16, f16};
use std::marker::PhantomData;
use std::ops::Range;

/// Numbers of a tile, about: half of a second-level cache of 512 KiB. Tiles of 4 and 16 times as many were no quicker
/// (`normalize` over 256 channels, weight normalization of 4096 x 4096 over its second axis).
const TILE: usize = 1 << 16;
/// Fewer rows side by side are left to the `row` schedule.
pub(super) const LEAST_ROWS: usize = 8;

/// Rows side by side in a tile, of columns `leaf` at a time.
pub(super) fn width(adjacent: usize, leaf: usize) -> usize {
    let wanted = (TILE / leaf.max(1)).clamp(2 * BLOCK, 16 * BLOCK);
    wanted.min(adjacent).next_multiple_of(BLOCK)
}

/// Whether a row's statistic has a form for tiles.
pub(super) fn has_tiles<F: Real>(c: &Constants<F>) -> bool {
    c.prefix == c.cols && c.rounded.is_none() && c.cols > 1 && !matches!(c.measure, Measure::Powers(_))
}

/// Whether a parameter is one number a row, or one a column.
pub(super) fn is_simple(parameter: Option<&Source<'_>>) -> bool {
    parameter.is_none_or(|source| source.is_constant_in_row() || source.is_same_in_adjacent_rows())
}

/// Whether the schedule can run a forward pass: `adjacent` rows are side by side.
pub(super) fn is_possible<F: Real>(job: &Forward<'_, F>, adjacent: usize) -> bool {
    job.mask.is_none()
        && has_tiles(&job.constants)
        && job.constants.measure != Measure::Largest
        && adjacent >= LEAST_ROWS
        && job.input.has_adjacent_rows()
        && job.output.is_none_or(|sink| sink.has_adjacent_rows())
        && is_simple(job.weight.as_ref())
        && is_simple(job.bias.as_ref())
}

/// A block of neighbouring rows.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) first: usize,
    pub(super) count: usize,
    /// The rows in whole blocks.
    pub(super) pitch: usize,
}

impl Rows {
    /// The block `index` of those that axes of `adjacent` rows are cut into.
    pub(super) fn block(index: usize, adjacent: usize, width: usize) -> Rows {
        let blocks = adjacent.div_ceil(width);
        let (outer, at) = (index / blocks, index % blocks * width);
        let count = width.min(adjacent - at);
        Rows { first: outer * adjacent + at, count, pitch: count.next_multiple_of(BLOCK) }
    }

    /// How many blocks there are in all.
    pub(super) fn blocks(rows: usize, adjacent: usize, width: usize) -> usize {
        rows / adjacent.max(1) * adjacent.div_ceil(width)
    }
}

/// Columns of a block of rows, brought into `tile`.
pub(super) fn load<F: Real>(
    c: &Constants<F>,
    source: &Source<'_>,
    rows: Rows,
    cols: Range<usize>,
    tile: &mut [F],
) {
    let first = cols.start;
    for run in source.runs(rows.first, cols) {
        let Rows { count: width, pitch, .. } = rows;
        let lines = Lines { at: run.at, stride: run.stride, count: run.count, width, pitch };
        let tile = &mut tile[(run.col - first) * pitch..][..run.count * pitch];
        match source.dtype() {
            DType::F16 => c.isa.run(LoadLines { source, lines, tile, of: PhantomData::<f16> }),
            DType::BF16 => c.isa.run(LoadLines { source, lines, tile, of: PhantomData::<bf16> }),
            _ => c.isa.run(LoadLines { source, lines, tile, of: PhantomData::<F> }),
        }
    }
}

/// A parameter's numbers for a tile, in `numbers`.
pub(super) fn factor<'t, F: Real>(
    source: Option<&Source<'_>>,
    offset: F,
    rows: Rows,
    cols: Range<usize>,
    numbers: &'t mut [F],
) -> TileFactor<'t, F> {
    let Some(source) = source else { return TileFactor::Absent };
    let numbers = if source.is_constant_in_row() {
        for (i, to) in numbers[..rows.count].iter_mut().enumerate() {
            source.fill(rows.first + i, 0, std::slice::from_mut(to));
        }
        &mut numbers[..rows.pitch]
    } else {
        source.fill(rows.first, cols.start, &mut numbers[..cols.len()]);
        &mut numbers[..cols.len()]
    };
    if offset != F::ZERO {
        numbers.iter_mut().for_each(|w| *w += offset);
    }
    if source.is_constant_in_row() { TileFactor::Rows(numbers) } else { TileFactor::Columns(numbers) }
}

/// Row `row` of a tile, put side by side.
pub(super) fn pick<'t, F: Real>(tile: &[F], pitch: usize, row: usize, to: &'t mut [F]) -> &'t [F] {
    let count = tile.len() / pitch;
    for (to, from) in to.iter_mut().zip(tile.chunks_exact(pitch)) {
        *to = from[row];
    }
    &to[..count]
}

/// The moments of each row of a tile, of a leaf of columns. `row` and `scaled` are scratch of a leaf.
pub(super) fn moments<F: Real>(
    c: &Constants<F>,
    tile: &[F],
    rows: Rows,
    [row, scaled]: [&mut [F]; 2],
    mut put: impl FnMut(usize, Moments<F>),
) {
    let (pitch, cols) = (rows.pitch, tile.len() / rows.pitch);
    let count = F::of(cols as f64);
    let (inv, zero) = (count.recip(), [F::ZERO; BLOCK]);
    let lanes = c.lanes;
    for at in (0..rows.count).step_by(BLOCK) {
        let (mut shift, mut correction, mut m2) = (zero, zero, zero);
        let mut close = [true; BLOCK];
        match c.measure {
            Measure::Moments => {
                shift = guesses(tile, pitch, at);
                let mut next = shift;
                for round in 0..2 {
                    let terms = TileShifted { tile, pitch, at, shift: next };
                    let ([s1, s2], _) = c.isa.run(TileSums { lanes, terms, of: PhantomData });
                    for i in 0..BLOCK {
                        if round > 0 && close[i] {
                            continue;
                        }
                        (shift[i], correction[i]) = (next[i], s1[i] * inv);
                        let p = s1[i] * correction[i];
                        close[i] = leaf::is_close(p, s2[i]);
                        m2[i] = s2[i] - p;
                        if !close[i] {
                            next[i] = shift[i] + correction[i];
                        }
                    }
                    if close[..BLOCK.min(rows.count - at)].iter().all(|&close| close) {
                        break;
                    }
                }
            }
            Measure::Magnitudes => {
                let terms = TileSizes::<F, false> { tile, pitch, at };
                [m2] = c.isa.run(TileSums { lanes, terms, of: PhantomData }).0;
            }
            _ => {
                let terms = TileSizes::<F, true> { tile, pitch, at };
                [m2] = c.isa.run(TileSums { lanes, terms, of: PhantomData }).0;
            }
        }
        for i in 0..BLOCK.min(rows.count - at) {
            let regular = close[i] && leaf::is_regular(c.measure, m2[i], inv);
            let moments = if regular {
                let (mean, correction) = two_sum(shift[i], correction[i]);
                Moments { count, mean, correction, m2: m2[i], exponent: 0 }
            } else {
                leaf::moments(c, pick(tile, pitch, at + i, row), None, scaled)
            };
            put(at + i, moments);
        }
    }
}

/// The statistics of a block of rows, as slices.
pub(super) struct Settled<'t, F> {
    mean: &'t mut [F],
    correction: &'t mut [F],
    rstd: &'t mut [F],
}

impl<F: Real> Settled<'_, F> {
    pub(super) fn put(&mut self, i: usize, s: Statistics<F>) {
        (self.mean[i], self.correction[i], self.rstd[i]) = (s.mean, s.correction, s.rstd);
    }

    pub(super) fn get(&self) -> TileStatistics<'_, F> {
        TileStatistics { mean: self.mean, correction: self.correction, rstd: self.rstd }
    }
}

/// A thread's numbers for a block of rows.
pub(super) fn settled<F: Real>(numbers: &mut [F]) -> Settled<'_, F> {
    let third = numbers.len() / 3;
    let (mean, rest) = numbers.split_at_mut(third);
    let (correction, rstd) = rest.split_at_mut(third);
    Settled { mean, correction, rstd }
}

/// The moments of a leaf of columns of a block of rows.
pub(super) fn leaf_moments<F: Real>(
    job: &Forward<'_, F>,
    rows: Rows,
    leaf: usize,
    put: impl FnMut(usize, Moments<F>),
) {
    let c = &job.constants;
    let cols = leaf * LEAF..c.cols.min((leaf + 1) * LEAF);
    with_scratch::<F, _>(cols.len() * rows.pitch, |[row, scaled, ..], tile| {
        load(c, &job.input, rows, cols, tile);
        moments(c, tile, rows, [row, scaled], put);
    });
}

/// Row `row` of a tile becomes `x * 2^-exponent`.
pub(super) fn rescale<F: Real>(tile: &mut [F], pitch: usize, row: usize, exponent: i32) {
    if exponent != 0 {
        tile.iter_mut().skip(row).step_by(pitch).for_each(|x| *x = x.scale(-exponent));
    }
}

/// Normalizes columns of a block of rows with statistics that are known, `s(i)` being those of its row `i`.
pub(super) fn apply<F: Real>(
    job: &Forward<'_, F>,
    rows: Rows,
    cols: Range<usize>,
    s: impl Fn(usize) -> Statistics<F>,
) {
    let c = &job.constants;
    with_scratch::<F, _>(cols.len() * rows.pitch, |[_, _, w, b, numbers, ..], tile| {
        load(c, &job.input, rows, cols.clone(), tile);
        let mut settled = settled(&mut numbers[..3 * rows.pitch]);
        for i in 0..rows.count {
            settled.put(i, s(i));
            rescale(tile, rows.pitch, i, s(i).exponent);
        }
        apply_tile(job, rows, cols, tile, &settled, [w, b]);
    });
}

/// Normalizes a tile and writes it.
fn apply_tile<F: Real>(
    job: &Forward<'_, F>,
    rows: Rows,
    cols: Range<usize>,
    tile: &[F],
    settled: &Settled<'_, F>,
    [w, b]: [&mut [F]; 2],
) {
    let Some(sink) = &job.output else { return };
    let c = &job.constants;
    let w = factor(job.weight.as_ref(), c.weight_offset, rows, cols.clone(), w);
    let b = factor(job.bias.as_ref(), F::ZERO, rows, cols.clone(), b);
    let (s, streamed) = (settled.get(), job.streamed);
    for run in sink.runs(rows.first, cols.clone()) {
        let lines =
            Lines { at: run.at, stride: run.stride, count: run.count, width: rows.count, pitch: rows.pitch };
        let col = run.col - cols.start;
        let tile = &tile[col * rows.pitch..][..run.count * rows.pitch];
        macro_rules! write {
            ($t:ty) => {{
                let of = PhantomData::<$t>;
                if c.is_centred() {
                    c.isa.run(ApplyLines::<_, _, true> { tile, s, w, b, col, sink, lines, streamed, of });
                } else {
                    c.isa.run(ApplyLines::<_, _, false> { tile, s, w, b, col, sink, lines, streamed, of });
                }
            }};
        }
        match sink.dtype() {
            DType::F16 => write!(f16),
            DType::BF16 => write!(bf16),
            _ => write!(F),
        }
    }
    if streamed {
        finish_streaming();
    }
}

/// Normalizes a block of rows of a single leaf, from one read of it.
pub(super) fn forward<F: Real>(job: &Forward<'_, F>, rows: Rows) {
    let c = &job.constants;
    with_scratch::<F, _>(c.cols * rows.pitch, |[row, scaled, w, b, numbers, exponents, ..], tile| {
        load(c, &job.input, rows, 0..c.cols, tile);
        let mut settled = settled(&mut numbers[..3 * rows.pitch]);
        let mut settle = |i: usize, taken: Option<Moments<F>>| {
            let row = rows.first + i;
            let s = job.settle(row, taken.map(|moments| job.finish(row, moments)));
            settled.put(i, s);
            exponents[i] = F::of(f64::from(s.exponent));
        };
        if job.given.is_none() || job.moments.is_some() {
            moments(c, tile, rows, [row, scaled], |i, moments| settle(i, Some(moments)));
        } else {
            (0..rows.count).for_each(|i| settle(i, None));
        }
        for (i, exponent) in exponents[..rows.count].iter().enumerate() {
            rescale(tile, rows.pitch, i, exponent.to_f32() as i32);
        }
        if job.output.is_some() {
            apply_tile(job, rows, 0..c.cols, tile, &settled, [w, b]);
        }
    });
}
