//! The `column` schedule's backward pass; see [`column`](super::column). It has no parameters that vary within a row.

use super::column::{LEAST_ROWS, Rows, factor, has_tiles, is_simple, load, pick, rescale, settled};
use super::elementwise::Factor;
use super::gradient::{outer_exponent, piece_gradient};
use super::lanes::BLOCK;
use super::launch::with_scratch;
use super::leaf_backward::{Gradients, sums};
use super::memory::finish_streaming;
use super::real::Real;
use super::row_backward::{Backward, RowTerms};
use super::statistics::{Measure, Statistics, Sums};
use super::tile::{GradientLines, Lines, TileFactor, TileGradients, TileStatistics, TileSums};
use crate::plan::tree::LEAF;
use crate::tensor::DType;
use half::{bf16, f16};
use std::marker::PhantomData;
use std::ops::Range;

/// Whether the schedule can run a backward pass.
pub(super) fn is_possible<F: Real>(job: &Backward<'_, F>, adjacent: usize) -> bool {
    job.mask.is_none()
        && has_tiles(&job.constants)
        && matches!(job.constants.measure, Measure::Moments | Measure::Squares)
        && !matches!(job.terms, RowTerms::SubRows(_))
        && adjacent >= LEAST_ROWS
        && job.input.has_adjacent_rows()
        && job.grad_output.has_adjacent_rows()
        && job.grad_input.is_none_or(|sink| sink.has_adjacent_rows())
        && is_simple(job.weight.as_ref())
}

/// Tiles of a leaf of columns of a block of rows, both operands', and the rows' statistics.
struct Loaded<'t, F> {
    g: &'t mut [F],
    x: &'t mut [F],
    w: TileFactor<'t, F>,
    s: TileStatistics<'t, F>,
    cols: Range<usize>,
}

/// Brings columns of a block of rows into tiles and hands them, with four tiles of scratch, to `body`.
fn with_loaded<F: Real, R>(
    job: &Backward<'_, F>,
    rows: Rows,
    cols: Range<usize>,
    s: &dyn Fn(usize) -> Statistics<F>,
    body: impl FnOnce(Loaded<'_, F>, [&mut [F]; 7]) -> R,
) -> R {
    let c = &job.constants;
    let len = cols.len() * rows.pitch;
    with_scratch::<F, _>(2 * len, |[numbers, w, t0, t1, t2, t3, t4, t5, t6], tiles| {
        let (g, x) = tiles.split_at_mut(len);
        load(c, &job.grad_output, rows, cols.clone(), g);
        load(c, &job.input, rows, cols.clone(), x);
        let mut settled = settled(&mut numbers[..3 * rows.pitch]);
        for i in 0..rows.count {
            let s = s(i);
            settled.put(i, s);
            rescale(x, rows.pitch, i, s.exponent);
        }
        let w = factor(job.weight.as_ref(), c.weight_offset, rows, cols.clone(), w);
        let s = settled.get();
        body(Loaded { g, x, w, s, cols }, [t0, t1, t2, t3, t4, t5, t6])
    })
}

/// A row's weight in a tile, as the `row` schedule has it.
fn row_weight<'t, F: Real>(w: TileFactor<'t, F>, i: usize) -> Factor<'t, F> {
    match w {
        TileFactor::Absent => Factor::Absent,
        TileFactor::Rows(each) => Factor::One(each[i]),
        TileFactor::Columns(each) => Factor::Each(each, F::ZERO),
    }
}

/// The sums of each row of a tile.
fn tile_sums<F: Real>(
    job: &Backward<'_, F>,
    rows: Rows,
    loaded: &Loaded<'_, F>,
    s: &dyn Fn(usize) -> Statistics<F>,
    [g_row, x_row, scaled]: [&mut [F]; 3],
    mut put: impl FnMut(usize, Sums<F>),
) {
    let c = &job.constants;
    let Loaded { g, x, w, s: statistics, cols } = loaded;
    let inner = if job.is_outer { TileFactor::Absent } else { *w };
    let count = F::of(cols.len() as f64);
    for at in (0..rows.count).step_by(BLOCK) {
        let (pitch, lanes, bits) = (rows.pitch, c.lanes, [F::Bits::default(); BLOCK]);
        let ([s1, s2], bits) = if c.is_centred() {
            let terms = TileGradients::<F, true> { g, x, pitch, at, s: *statistics, w: inner, bits };
            let (sums, terms) = c.isa.run(TileSums { lanes, terms, of: PhantomData });
            (sums, terms.bits)
        } else {
            let terms = TileGradients::<F, false> { g, x, pitch, at, s: *statistics, w: inner, bits };
            let (sums, terms) = c.isa.run(TileSums { lanes, terms, of: PhantomData });
            (sums, terms.bits)
        };
        for i in 0..BLOCK.min(rows.count - at) {
            let (s1, s2) = (s1[i], s2[i]);
            let regular = s1.abs() < F::SUM_LIMIT && s2.abs() < F::SUM_LIMIT && F::any_large(bits[i]);
            let sums = if regular {
                Sums { count, s1, s2, ties: F::ZERO, g_exponent: 0, w_exponent: 0 }
            } else {
                let row = at + i;
                let (g, x) = (pick(g, pitch, row, g_row), pick(x, pitch, row, x_row));
                let (w, seen) = (row_weight(inner, row), g.len());
                sums(c, Gradients { g, x, w, mask: None, seen }, s(row), scaled)
            };
            put(at + i, sums);
        }
    }
}

/// The gradient of the input in a tile, written.
fn tile_gradient<F: Real>(
    job: &Backward<'_, F>,
    rows: Rows,
    loaded: &Loaded<'_, F>,
    s: &dyn Fn(usize) -> Statistics<F>,
    sums: &dyn Fn(usize) -> Sums<F>,
    [c_tile, g_row, x_row, ghat, u, out]: [&mut [F]; 6],
) {
    let Some(sink) = &job.grad_input else { return };
    let c = &job.constants;
    let (c1, c2) = c_tile.split_at_mut(rows.pitch);
    for i in 0..rows.count {
        (c1[i], c2[i]) = sums(i).means(c, &s(i));
    }
    let (inner, outer) =
        if job.is_outer { (TileFactor::Absent, loaded.w) } else { (loaded.w, TileFactor::Absent) };
    let Loaded { g, x, cols, .. } = loaded;
    let pitch = rows.pitch;
    for run in sink.runs(rows.first, cols.clone()) {
        let lines = Lines { at: run.at, stride: run.stride, count: run.count, width: rows.count, pitch };
        let col = run.col - cols.start;
        let part = col * pitch..(col + run.count) * pitch;
        let (g, x) = (&g[part.clone()], &x[part]);
        let (s, w, streamed) = (loaded.s, inner, job.streamed);
        let (c1, c2) = (&c1[..pitch], &c2[..pitch]);
        macro_rules! write {
            ($t:ty, $centred:literal) => {
                c.isa.run(GradientLines::<_, _, $centred> {
                    g,
                    x,
                    s,
                    c1,
                    c2,
                    w,
                    outer,
                    col,
                    sink,
                    lines,
                    streamed,
                    of: PhantomData::<$t>,
                })
            };
        }
        match (sink.dtype(), c.is_centred()) {
            (DType::F16, true) => write!(f16, true),
            (DType::F16, false) => write!(f16, false),
            (DType::BF16, true) => write!(bf16, true),
            (DType::BF16, false) => write!(bf16, false),
            (_, true) => write!(F, true),
            (_, false) => write!(F, false),
        }
    }
    if job.streamed {
        finish_streaming();
    }
    // Rows with powers of two to put back are written once more, one by one, from the tiles.
    for i in 0..rows.count {
        let (statistics, sums) = (s(i), sums(i));
        let w = row_weight(loaded.w, i);
        let is_usual = statistics.exponent == 0
            && sums.exponents() == (0, 0)
            && !(job.is_outer && w.at(0).is_some_and(|w| outer_exponent(w) != 0));
        if is_usual {
            continue;
        }
        let (g, x) = (pick(g, pitch, i, g_row), pick(x, pitch, i, x_row));
        let out = &mut out[..g.len()];
        let operands = Gradients { g, x, w, mask: None, seen: g.len() };
        piece_gradient(job, operands, statistics, &sums, [&mut *ghat, &mut *u], out);
        sink.commit(rows.first + i, cols.start, out);
    }
}

/// The sums of a leaf of columns of a block of rows.
pub(super) fn leaf_sums<F: Real>(
    job: &Backward<'_, F>,
    rows: Rows,
    leaf: usize,
    put: impl FnMut(usize, Sums<F>),
) {
    let cols = leaf * LEAF..job.constants.cols.min((leaf + 1) * LEAF);
    let s = |i: usize| job.saved(rows.first + i);
    with_loaded(job, rows, cols, &s, |loaded, [t0, t1, t2, ..]| {
        tile_sums(job, rows, &loaded, &s, [t0, t1, t2], put);
    });
}

/// The gradient of the input in columns of a block of rows whose sums are known.
pub(super) fn apply<F: Real>(
    job: &Backward<'_, F>,
    rows: Rows,
    cols: Range<usize>,
    sums: impl Fn(usize) -> Sums<F>,
) {
    let s = |i: usize| job.saved(rows.first + i);
    with_loaded(job, rows, cols, &s, |loaded, [t0, t1, t2, t3, t4, t5, _]| {
        tile_gradient(job, rows, &loaded, &s, &sums, [t0, t1, t2, t3, t4, t5]);
    });
}

/// A block of rows of a single leaf, from one read of it; the rows' sums are handed to `put`.
pub(super) fn backward<F: Real>(job: &Backward<'_, F>, rows: Rows, mut put: impl FnMut(usize, &Sums<F>)) {
    let s = |i: usize| job.saved(rows.first + i);
    with_loaded(job, rows, 0..job.constants.cols, &s, |loaded, [t0, t1, t2, t3, t4, t5, numbers]| {
        let per_row = crate::spec::SUMS;
        let mut keep = |i: usize, taken: Option<Sums<F>>| {
            let sums = job.settle(rows.first + i, taken);
            put(i, &sums);
            numbers[i * per_row..][..per_row].copy_from_slice(&sums.to_numbers());
        };
        if job.needs_sums() {
            tile_sums(job, rows, &loaded, &s, [&mut *t0, &mut *t1, &mut *t2], |i, sums| keep(i, Some(sums)));
        } else {
            (0..rows.count).for_each(|i| keep(i, None));
        }
        let sums = |i: usize| Sums::from_numbers(&numbers[i * per_row..][..per_row]);
        tile_gradient(job, rows, &loaded, &s, &sums, [t0, t1, t2, t3, t4, t5]);
    });
}
