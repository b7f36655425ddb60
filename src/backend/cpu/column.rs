//! The `column` schedule, for rows whose elements lie far apart while neighbouring rows lie side by side: blocks of
//! neighbouring rows are handled together, in the order of memory, each row's numbers being those of the `row` schedule.
//!
//! A row that is out of the ordinary (out of range, or with a mean far from its first guess) is gathered and handled like
//! any other row.

use super::Cpu;
use super::launch::with_scratch;
use super::leaf;
use super::line_sums::{LaneSums, PlainLines, ShiftedLines, SizesOfLines};
use super::lines::{ApplyLines, LineFactor, LineStatistics, Lines, LinesOf, LinesTo};
use super::memory::finish_streaming;
use super::real::{Real, two_sum};
use super::row::Forward;
use super::runs::Run;
use super::simd::BLOCK;
use super::source::Source;
use super::statistics::{Constants, Measure, Moments, Statistics};
use super::stored::typed;
use crate::plan::tree::LEAF;
use crate::spec::STATISTICS;
use std::ops::Range;

/// Sums of lanes that a block of rows has, at most, so that they stay in a second-level cache.
const SUMS: usize = 1 << 18;
/// Rows side by side, at most: as many float32 as a page of memory has. With 64, weight normalization of 4096 x 4096 over
/// its second axis spent more time on looking up pages than on anything else.
const WIDEST: usize = 1024;
/// Fewer rows side by side are left to the `row` schedule.
pub(super) const LEAST_ROWS: usize = 8;

/// How many of `adjacent` rows are handled together, where each has `sums` sums in each lane and there are `rows` in all.
pub(super) fn width<F: Real>(
    cpu: &Cpu,
    c: &Constants<F>,
    rows: usize,
    adjacent: usize,
    sums: usize,
) -> usize {
    let fits = (SUMS / (sums * c.lanes).max(1)).clamp(2 * BLOCK, WIDEST);
    // Enough tasks that every thread has some; a leaf of a block is one.
    let leaves = rows * c.cols.div_ceil(LEAF);
    let shared_out = (leaves / (4 * cpu.thread_count())).max(2 * BLOCK);
    fits.min(shared_out).min(adjacent).next_multiple_of(BLOCK)
}

/// Whether a row's statistic has a form for lines.
pub(super) fn has_lines<F: Real>(c: &Constants<F>) -> bool {
    c.prefix == c.cols && c.rounded.is_none() && c.cols > 1 && !matches!(c.measure, Measure::Powers(_))
}

/// Whether a parameter is one number a row, or one a column.
pub(super) fn is_simple(parameter: Option<&Source<'_>>) -> bool {
    parameter.is_none_or(|source| source.is_constant_in_row() || source.is_same_in_adjacent_rows())
}

/// Whether the schedule can run a forward pass: `adjacent` rows are side by side.
pub(super) fn is_possible<F: Real>(job: &Forward<'_, F>, adjacent: usize) -> bool {
    job.mask.is_none()
        && has_lines(&job.constants)
        && job.constants.measure != Measure::Largest
        && adjacent >= LEAST_ROWS
        && job.input.has_adjacent_rows()
        && job.output.is_none_or(|sink| sink.has_adjacent_rows() && sink.dtype() == job.input.dtype())
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

/// The lines of columns of a block of rows, run by run: the first one's place among `cols`, and the lines.
pub(super) fn lines_of<'s>(
    runs: impl Iterator<Item = Run> + 's,
    rows: Rows,
    cols: &Range<usize>,
) -> impl Iterator<Item = (usize, Lines)> + 's {
    let first = cols.start;
    runs.map(move |run| {
        let lines = Lines { at: run.at, stride: run.stride, count: run.count, width: rows.count };
        (run.col - first, lines)
    })
}

/// A parameter's numbers for columns of a block of rows, in `numbers`.
pub(super) fn factor<'t, F: Real>(
    source: Option<&Source<'_>>,
    offset: F,
    rows: Rows,
    cols: Range<usize>,
    numbers: &'t mut [F],
) -> LineFactor<'t, F> {
    let Some(source) = source else { return LineFactor::Absent };
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
    if source.is_constant_in_row() { LineFactor::Rows(numbers) } else { LineFactor::Columns(numbers) }
}

/// How many sums a row has in each lane.
fn sums_per_lane<F>(c: &Constants<F>) -> usize {
    if c.measure == Measure::Moments { 2 } else { 1 }
}

/// How many sums of lanes a block of rows has.
fn sums_len<F: Real>(c: &Constants<F>, rows: Rows) -> usize {
    c.lanes.max(BLOCK) * sums_per_lane(c) * rows.pitch
}

/// How many rows are handled together.
pub(super) fn forward_width<F: Real>(cpu: &Cpu, job: &Forward<'_, F>, adjacent: usize) -> usize {
    let c = &job.constants;
    width(cpu, c, job.rows, adjacent, sums_per_lane(c))
}

/// The first guesses of the means of rows: their first columns, halved.
fn guesses<F: Real>(job: &Forward<'_, F>, rows: Rows, cols: &Range<usize>, sums: &mut [F], to: &mut [F]) {
    let q = leaf::guess_len(cols.len());
    let isa = job.constants.isa;
    let mut lanes = LaneSums::<F, 1>::new(isa, q, rows.pitch, q, sums);
    let cols = cols.start..cols.start + q;
    for (first, lines) in lines_of(job.input.runs(rows.first, cols.clone()), rows, &cols) {
        macro_rules! run {
            ($t:ty) => {
                lanes.add(first, lines, PlainLines(LinesOf::<$t>::new(&job.input, lines)))
            };
        }
        typed!(job.input.dtype(), F, run);
    }
    let [sums] = lanes.halved();
    let inv = F::of(1.0 / q as f64);
    to.iter_mut().zip(sums).for_each(|(to, sum)| *to = *sum * inv);
}

/// The sums of what remains of a leaf's elements less a shift, and of the squares.
fn shifted_sums<'s, F: Real>(
    job: &Forward<'_, F>,
    rows: Rows,
    cols: &Range<usize>,
    shift: &[F],
    sums: &'s mut [F],
) -> [&'s [F]; 2] {
    let c = &job.constants;
    let mut lanes = LaneSums::<F, 2>::new(c.isa, c.lanes, rows.pitch, cols.len(), sums);
    for (first, lines) in lines_of(job.input.runs(rows.first, cols.clone()), rows, cols) {
        macro_rules! run {
            ($t:ty) => {
                lanes.add(first, lines, ShiftedLines { x: LinesOf::<$t>::new(&job.input, lines), shift })
            };
        }
        typed!(job.input.dtype(), F, run);
    }
    lanes.halved()
}

/// The sums of a leaf's squares, or of its magnitudes.
fn size_sums<'s, F: Real, const SQUARES: bool>(
    job: &Forward<'_, F>,
    rows: Rows,
    cols: &Range<usize>,
    sums: &'s mut [F],
) -> &'s [F] {
    let c = &job.constants;
    let mut lanes = LaneSums::<F, 1>::new(c.isa, c.lanes, rows.pitch, cols.len(), sums);
    for (first, lines) in lines_of(job.input.runs(rows.first, cols.clone()), rows, cols) {
        macro_rules! run {
            ($t:ty) => {
                lanes.add(first, lines, SizesOfLines::<$t, SQUARES>(LinesOf::new(&job.input, lines)))
            };
        }
        typed!(job.input.dtype(), F, run);
    }
    let [sums] = lanes.halved();
    sums
}

/// The moments of each row of a block, of a leaf of columns. `sums` has [`sums_len`]; the others are scratch of a leaf.
fn moments<F: Real>(
    job: &Forward<'_, F>,
    rows: Rows,
    cols: Range<usize>,
    sums: &mut [F],
    [row, scaled, work]: [&mut [F]; 3],
    mut put: impl FnMut(usize, Moments<F>),
) {
    let c = &job.constants;
    let count = F::of(cols.len() as f64);
    let inv = count.recip();
    let mut parts = work.chunks_exact_mut(rows.pitch);
    let [shift, next, correction, m2] =
        std::array::from_fn(|_| parts.next().expect("four rows' numbers in a leaf"));
    let mut close = [true; WIDEST];
    match c.measure {
        Measure::Moments => {
            guesses(job, rows, &cols, sums, next);
            for round in 0..2 {
                let [s1, s2] = shifted_sums(job, rows, &cols, next, sums);
                for i in 0..rows.count {
                    if round > 0 && close[i] {
                        continue;
                    }
                    let of_row = leaf::Round::new(next[i], [s1[i], s2[i]], inv);
                    (shift[i], correction[i], m2[i]) = (of_row.shift, of_row.correction, of_row.m2);
                    close[i] = of_row.is_close;
                    if !close[i] {
                        next[i] = shift[i] + correction[i];
                    }
                }
                if close[..rows.count].iter().all(|&close| close) {
                    break;
                }
            }
        }
        Measure::Magnitudes => m2.copy_from_slice(size_sums::<F, false>(job, rows, &cols, sums)),
        _ => m2.copy_from_slice(size_sums::<F, true>(job, rows, &cols, sums)),
    }
    for i in 0..rows.count {
        let is_regular = close[i] && leaf::is_regular(c.measure, m2[i], inv);
        let moments = if !is_regular {
            let row = &mut row[..cols.len()];
            job.input.fill(rows.first + i, cols.start, row);
            leaf::moments(c, row, None, scaled)
        } else if c.is_centred() {
            let (mean, correction) = two_sum(shift[i], correction[i]);
            Moments { count, mean, correction, m2: m2[i], exponent: 0 }
        } else {
            Moments { count, m2: m2[i], exponent: 0, ..Moments::none() }
        };
        put(i, moments);
    }
}

/// The moments of a leaf of columns of a block of rows.
pub(super) fn leaf_moments<F: Real>(
    job: &Forward<'_, F>,
    rows: Rows,
    cols: Range<usize>,
    put: impl FnMut(usize, Moments<F>),
) {
    let c = &job.constants;
    with_scratch::<F, _>(sums_len(c, rows), |[row, scaled, work, ..], sums| {
        moments(job, rows, cols, sums, [row, scaled, work], put);
    });
}

/// The statistics of a block of rows, number by number.
pub(super) struct Settled<'t, F> {
    numbers: [&'t mut [F]; STATISTICS],
}

impl<'t, F: Real> Settled<'t, F> {
    /// In a tile.
    pub(super) fn new(rows: Rows, tile: &'t mut [F]) -> Self {
        let mut parts = tile.chunks_exact_mut(rows.pitch);
        Settled { numbers: std::array::from_fn(|_| parts.next().expect("four rows' numbers in a leaf")) }
    }

    pub(super) fn put(&mut self, i: usize, s: Statistics<F>) {
        self.numbers.iter_mut().zip(s.to_numbers()).for_each(|(to, number)| to[i] = number);
    }

    pub(super) fn get(&self) -> LineStatistics<'_, F> {
        let [mean, correction, rstd, _] = &self.numbers;
        LineStatistics { mean, correction, rstd }
    }

    fn exponent(&self, i: usize) -> i32 {
        self.numbers[STATISTICS - 1][i].to_f32() as i32
    }
}

/// Normalizes columns of a block of rows with statistics that are known.
fn apply_settled<F: Real>(
    job: &Forward<'_, F>,
    rows: Rows,
    cols: Range<usize>,
    settled: &Settled<'_, F>,
    [w, b, scales]: [&mut [F]; 3],
) {
    let Some(sink) = &job.output else { return };
    let c = &job.constants;
    let w = factor(job.weight.as_ref(), c.weight_offset, rows, cols.clone(), w);
    let b = factor(job.bias.as_ref(), F::ZERO, rows, cols.clone(), b);
    let scales = (0..rows.count).any(|i| settled.exponent(i) != 0).then(|| {
        let mut parts = scales.chunks_exact_mut(rows.pitch);
        let mut scales: [&mut [F]; 3] =
            std::array::from_fn(|_| parts.next().expect("three rows' numbers in a leaf"));
        for i in 0..rows.count {
            let factors = F::scale_factors(-settled.exponent(i));
            scales.iter_mut().zip(factors).for_each(|(to, factor)| to[i] = factor);
        }
        scales.map(|scale| &*scale)
    });
    let s = settled.get();
    let froms = lines_of(job.input.runs(rows.first, cols.clone()), rows, &cols);
    let tos = lines_of(sink.runs(rows.first, cols.clone()), rows, &cols);
    for ((col, from), (_, to)) in froms.zip(tos) {
        macro_rules! run {
            ($t:ty) => {{
                let x = LinesOf::<$t>::new(&job.input, from);
                let out = LinesTo::<$t>::new(sink, to, job.streamed);
                if c.is_centred() {
                    c.isa.run(ApplyLines::<_, _, true> { x, scales, s, w, b, col, out });
                } else {
                    c.isa.run(ApplyLines::<_, _, false> { x, scales, s, w, b, col, out });
                }
            }};
        }
        typed!(job.input.dtype(), F, run);
    }
    if job.streamed.is_some() {
        finish_streaming();
    }
}

/// Normalizes columns of a block of rows with statistics that are known, `s(i)` being those of its row `i`.
pub(super) fn apply<F: Real>(
    job: &Forward<'_, F>,
    rows: Rows,
    cols: Range<usize>,
    s: impl Fn(usize) -> Statistics<F>,
) {
    with_scratch::<F, _>(0, |[w, b, numbers, scales, ..], _| {
        let mut settled = Settled::new(rows, numbers);
        (0..rows.count).for_each(|i| settled.put(i, s(i)));
        apply_settled(job, rows, cols, &settled, [w, b, scales]);
    });
}

/// Normalizes a block of rows of a single leaf.
pub(super) fn forward<F: Real>(job: &Forward<'_, F>, rows: Rows) {
    let c = &job.constants;
    with_scratch::<F, _>(sums_len(c, rows), |[row, scaled, work, w, b, numbers, scales, ..], sums| {
        let mut settled = Settled::new(rows, numbers);
        let mut settle = |i: usize, taken: Option<Moments<F>>| {
            let row = rows.first + i;
            settled.put(i, job.settle(row, taken.map(|moments| job.finish(row, moments))));
        };
        if job.given.is_none() || job.moments.is_some() {
            moments(job, rows, 0..c.cols, sums, [row, scaled, work], |i, moments| settle(i, Some(moments)));
        } else {
            (0..rows.count).for_each(|i| settle(i, None));
        }
        apply_settled(job, rows, 0..c.cols, &settled, [w, b, scales]);
    });
}
