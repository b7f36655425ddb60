//! The `pointwise` schedule: a function of each element, then scale and shift. Backward sums over rows as it goes.

use super::affine::{self, ColumnSums};
use super::elementwise::{Affine, Factor};
use super::lanes::{Over, Pass, Plain, TreeSums};
use super::launch::{Folded, Order, Shared, Tiles, alone, with_scratch};
use super::math::{self, BATCH, two_prod};
use super::operand::{Sink, Source};
use super::real::Real;
use super::{Cpu, Isa};
use crate::backend;
use crate::plan::tree::{LEAF, Pairwise, chunk_rows, lanes};
use crate::spec::{Function, Pointwise, Spec};
use crate::tensor::{Overlap, View, ViewMut, overlap};
use crate::{Error, Result, Workspace};
use pulp::NullaryFnOnce;
use std::ops::Range;

/// Elements of a forward task, about.
const TASK: usize = 1 << 15;

/// What the tasks of a forward pass work on.
#[derive(Clone, Copy)]
struct Forward<'a, F> {
    isa: Isa,
    function: Function,
    cols: usize,
    alpha: F,
    input: Source<'a>,
    weight: Option<Source<'a>>,
    bias: Option<Source<'a>>,
    output: Sink<'a>,
}

/// What the tasks of a backward pass work on.
#[derive(Clone, Copy)]
struct Backward<'a, F> {
    isa: Isa,
    function: Function,
    cols: usize,
    alpha: F,
    grad_output: Source<'a>,
    input: Source<'a>,
    weight: Option<Source<'a>>,
    grad_input: Option<Sink<'a>>,
    /// Which sums over rows are asked for: the weight's, the bias's, alpha's.
    wanted: [bool; 3],
}

/// Runs the function on a slice.
fn run_forward<F: Real>(job: &Forward<'_, F>, x: &[F], out: &mut [F]) {
    let (alpha, short) = (job.alpha, job.input.dtype().size() == 2);
    match job.function {
        Function::Tanh => job.isa.run(Tanh { alpha, short, x, out }),
        Function::InverseSquareRoot => {
            job.isa.run(Over(InverseRoot { alpha, x, out }));
        }
    }
}

/// The value of the scalar parameter.
fn alpha_of<F: Real>(alpha: Option<&View<'_>>) -> Result<F> {
    let Some(view) = alpha else { return Err(Error::argument("alpha", "a tensor of one element", "none")) };
    let mut one = [F::ZERO];
    alone(Isa::Portable, view.layout(), 0).source("alpha", view, 0, true)?.fill(0, 0, &mut one);
    Ok(one[0])
}

pub(super) fn forward<F: Real>(spec: &Pointwise, operands: &backend::Forward<'_>, cpu: &Cpu) -> Result<()> {
    let backend::Forward { input, weight, bias, alpha, output, .. } = operands;
    let Some(output) = output else { return Ok(()) };
    let in_place = overlap(input, &output.as_view()) == Overlap::Same;
    let tensors = [
        Some(input.layout()),
        Some(output.layout()),
        weight.as_ref().map(View::layout),
        bias.as_ref().map(View::layout),
    ];
    let folded = Folded::new(cpu.isa, &Order::new(spec.shape.len(), &spec.affine.axes), &tensors);
    let (rows, cols) = (folded.grid.rows, folded.grid.cols);
    let job = Forward {
        isa: cpu.isa,
        function: spec.function,
        cols,
        alpha: alpha_of::<F>(alpha.as_ref())?,
        input: folded.source("input", input, 0, in_place)?,
        output: folded.sink("output", output, 1)?,
        weight: folded.optional("weight", weight.as_ref(), 2)?,
        bias: folded.optional("bias", bias.as_ref(), 3)?,
    };
    let step = TASK.div_ceil(cols.max(1));
    cpu.for_each(rows.div_ceil(step), step * cols, |task| {
        with_scratch(0, |tiles, _| forward_rows(&job, task * step..rows.min((task + 1) * step), tiles));
    });
    Ok(())
}

/// `y = tanh(alpha * x) * w + b` for rows `rows`.
fn forward_rows<F: Real>(job: &Forward<'_, F>, rows: Range<usize>, tiles: Tiles<'_, F>) {
    let [x_tile, w_tile, b_tile, out_tile, ..] = tiles;
    for first in (0..job.cols).step_by(LEAF) {
        let len = LEAF.min(job.cols - first);
        let w = job.weight.map(|w| w.load(0, first, w_tile, len));
        let b = job.bias.map(|b| b.load(0, first, b_tile, len));
        for row in rows.clone() {
            let x = job.input.load(row, first, x_tile, len);
            let out = job.output.begin(row, first, out_tile, len);
            run_forward(job, x, out);
            let (w, b) = (Factor::each(w, F::ZERO), Factor::each(b, F::ZERO));
            job.isa.run(Over(Affine { w, b, out: &mut *out }));
            job.output.commit(row, first, out);
        }
    }
}

pub(super) fn backward<F: Real>(
    spec: &Pointwise,
    operands: &backend::Backward<'_>,
    workspace: &mut Workspace,
    cpu: &Cpu,
) -> Result<()> {
    let backend::Backward { grad_output, input, weight, alpha, grad_input, .. } = operands;
    let in_place =
        (grad_input.as_ref()).is_some_and(|to| overlap(grad_output, &to.as_view()) == Overlap::Same);
    let tensors = [
        Some(grad_output.layout()),
        Some(input.layout()),
        grad_input.as_ref().map(ViewMut::layout),
        weight.as_ref().map(View::layout),
    ];
    let order = Order::new(spec.shape.len(), &spec.affine.axes);
    let folded = Folded::new(cpu.isa, &order, &tensors);
    let (rows, cols) = (folded.grid.rows, folded.grid.cols);
    let targets = [&operands.grad_weight, &operands.grad_bias, &operands.grad_alpha];
    let job = Backward {
        isa: cpu.isa,
        function: spec.function,
        cols,
        alpha: alpha_of::<F>(alpha.as_ref())?,
        grad_output: folded.source("grad_output", grad_output, 0, in_place)?,
        input: folded.source("input", input, 1, false)?,
        grad_input: folded.optional_sink("grad_input", grad_input.as_ref(), 2)?,
        weight: folded.optional("weight", weight.as_ref(), 3)?,
        wanted: targets.map(|target| target.is_some()),
    };
    let stride = cols * job.wanted.into_iter().filter(|&wanted| wanted).count();
    let params = backend::params_per_column(&Spec::Pointwise(spec.clone()));
    let chunk = chunk_rows(rows, cols, params, size_of::<F>());
    let partials = workspace.host::<F>(rows.div_ceil(chunk) * stride)?;
    let shared = Shared::new(&mut *partials);
    cpu.for_each(rows.div_ceil(chunk), chunk * cols, |index| {
        let range = index * chunk..rows.min((index + 1) * chunk);
        // SAFETY: this task alone has this chunk.
        let sums = unsafe { shared.part(index * stride..(index + 1) * stride) };
        with_scratch(stride, |tiles, leaves| backward_rows(&job, range, sums, leaves, tiles));
    });
    let mut offset = 0;
    for (name, target) in ["grad_weight", "grad_bias"].into_iter().zip(targets) {
        let Some(target) = target else { continue };
        let alone = alone(cpu.isa, &order.parameter(&spec.affine.axes, target.layout()), 0);
        affine::finish(&alone.sink(name, target, 0)?, partials, stride, offset, cols, cpu);
        offset += cols;
    }
    let Some(target) = &operands.grad_alpha else { return Ok(()) };
    let alone = alone(cpu.isa, target.layout(), 0);
    finish_alpha(&alone.sink("grad_alpha", target, 0)?, partials, stride, offset, cols, cpu);
    Ok(())
}

/// Gradients of the rows of one chunk. `partials` receives the chunk's sums: weight's, bias's, alpha's, of those asked.
fn backward_rows<F: Real>(
    job: &Backward<'_, F>,
    rows: Range<usize>,
    mut partials: &mut [F],
    mut leaves: &mut [F],
    tiles: Tiles<'_, F>,
) {
    let (isa, cols) = (job.isa, job.cols);
    let [x_tile, g_tile, w_tile, out_tile, b_tile, bl_tile, t_tile, s_tile, ..] = tiles;
    let mut sums: [Option<ColumnSums<'_, F>>; 3] = job.wanted.map(|wanted| {
        let len = if wanted { cols } else { 0 };
        let (chunk, leaf);
        (chunk, partials) = std::mem::take(&mut partials).split_at_mut(len);
        (leaf, leaves) = std::mem::take(&mut leaves).split_at_mut(len);
        wanted.then(|| ColumnSums::new(isa, leaf, chunk))
    });
    for first in (0..cols).step_by(LEAF) {
        let len = LEAF.min(cols - first);
        // Without a weight, one of ones: multiplying by it changes nothing.
        let w = match &job.weight {
            Some(w) => w.load(0, first, w_tile, len),
            None => {
                w_tile[..len].fill(F::ONE);
                &w_tile[..len]
            }
        };
        let (b, bl) = (&mut b_tile[..len], &mut bl_tile[..len]);
        for ((b, bl), &w) in b.iter_mut().zip(bl.iter_mut()).zip(w) {
            (*b, *bl) = two_prod(w, job.alpha);
        }
        for (index, row) in rows.clone().enumerate() {
            let x = job.input.load(row, first, x_tile, len);
            let g = job.grad_output.load(row, first, g_tile, len);
            let (t, s) = (&mut t_tile[..len], &mut s_tile[..len]);
            let dx = match &job.grad_input {
                Some(sink) => sink.begin(row, first, out_tile, len),
                None => &mut out_tile[..len],
            };
            let alpha = job.alpha;
            match job.function {
                Function::Tanh => {
                    isa.run(Slopes { alpha, x, g, w, b, bl, t: &mut *t, s: &mut *s, dx: &mut *dx });
                }
                Function::InverseSquareRoot => {
                    isa.run(Over(InverseRootSlopes { alpha, x, g, w, t: &mut *t, s: &mut *s, dx: &mut *dx }));
                }
            }
            if let Some(sink) = &job.grad_input {
                // In place, `g` has been copied to its tile before this replaces it.
                sink.commit(row, first, dx);
            }
            let terms: [(&[F], Option<&[F]>); 3] = [(g, Some(t)), (g, None), (s, None)];
            for (sums, (a, b)) in sums.iter_mut().zip(terms) {
                let Some(sums) = sums else { continue };
                sums.begin_row(index, first..first + len);
                sums.add(first, a, b);
            }
        }
    }
    for sums in sums.into_iter().flatten() {
        sums.finish();
    }
}

/// `out = tanh(alpha x)`.
struct Tanh<'a, F> {
    alpha: F,
    /// Whether the result is rounded to 16 bits.
    short: bool,
    x: &'a [F],
    out: &'a mut [F],
}

impl<F: Real> NullaryFnOnce for Tanh<'_, F> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        let Tanh { alpha, short, x, out } = self;
        if short {
            for (y, &x) in out.iter_mut().zip(x) {
                *y = math::tanh_product_short(alpha, x);
            }
        } else {
            let (mut batch, mut t) = ([F::ZERO; BATCH], [F::ZERO; BATCH]);
            for (x, out) in x.chunks(BATCH).zip(out.chunks_mut(BATCH)) {
                batch[..x.len()].copy_from_slice(x);
                math::tanh(alpha, &batch, &mut t);
                out.copy_from_slice(&t[..x.len()]);
            }
        }
    }
}

/// `t = tanh(alpha x)`, `s = g w x sech²(alpha x)`, and `dx = g (b + bl) sech²(alpha x)`.
struct Slopes<'a, F> {
    alpha: F,
    x: &'a [F],
    g: &'a [F],
    w: &'a [F],
    b: &'a [F],
    bl: &'a [F],
    t: &'a mut [F],
    s: &'a mut [F],
    dx: &'a mut [F],
}

impl<F: Real> NullaryFnOnce for Slopes<'_, F> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        let Slopes { alpha, x, g, w, b, bl, t, s, dx } = self;
        let mut batch = [F::ZERO; BATCH];
        for first in (0..dx.len()).step_by(BATCH) {
            let piece = first..dx.len().min(first + BATCH);
            let len = piece.len();
            let (x, g, w) = (&x[piece.clone()], &g[piece.clone()], &w[piece.clone()]);
            let (b, bl) = (&b[piece.clone()], &bl[piece.clone()]);
            let (t, s, dx) = (&mut t[piece.clone()], &mut s[piece.clone()], &mut dx[piece]);
            batch[..len].copy_from_slice(x);
            let at = math::slopes(alpha, &batch);
            t.copy_from_slice(&at.t[..len]);
            let (h, hl, power, rest) = (&at.h[..len], &at.hl[..len], &at.power[..len], &at.rest[..len]);
            for i in 0..len {
                s[i] = (((g[i] * w[i]) * (h[i] * x[i] + hl[i] * x[i])) * power[i]) * rest[i];
                let (p, pe) = two_prod(b[i], h[i]);
                let pl = pe + (b[i] * hl[i] + bl[i] * h[i]);
                // An infinite gradient has no low part to add: it would only meet the high part as inf - inf.
                let (high, low) = (g[i] * p, g[i] * pl);
                let sum = if low.abs() <= F::MAX { high + low } else { high };
                dx[i] = (sum * power[i]) * rest[i];
            }
        }
    }
}

/// `x` and alpha without the exponent that keeps their squares out of range, and that exponent.
#[inline(always)]
fn squarable<F: Real>(alpha: F, x: F) -> (F, F, i32) {
    let exponent = |x: F| if x == F::ZERO { F::NONE } else { F::exponent(x.magnitude()) };
    let e = exponent(x).max(exponent(alpha).div_euclid(2));
    let e = if F::SQUARABLE.0 <= e && e <= F::SQUARABLE.1 { 0 } else { e };
    if e == 0 { (alpha, x, 0) } else { (alpha.scale(-2 * e), x.scale(-e), e) }
}

/// `out = x / sqrt(alpha + x²)`.
struct InverseRoot<'a, F> {
    alpha: F,
    x: &'a [F],
    out: &'a mut [F],
}

impl<F: Real> Pass for InverseRoot<'_, F> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.out.len()
    }
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, at: usize, len: usize) {
        for (y, &x) in self.out[at..at + len].iter_mut().zip(&self.x[at..at + len]) {
            let (alpha, x, _) = squarable(self.alpha, x);
            let [r, ..] = F::inverse_square_roots(alpha, x);
            *y = x * r;
        }
    }
}

/// `t = x / sqrt(d)`, `s = -g w x / (2 d^(3/2))`, and `dx = g w alpha / d^(3/2)`, with `d = alpha + x²`.
struct InverseRootSlopes<'a, F> {
    alpha: F,
    x: &'a [F],
    g: &'a [F],
    w: &'a [F],
    t: &'a mut [F],
    s: &'a mut [F],
    dx: &'a mut [F],
}

impl<F: Real> Pass for InverseRootSlopes<'_, F> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.dx.len()
    }
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, at: usize, len: usize) {
        for i in at..at + len {
            let (alpha, x, e) = squarable(self.alpha, self.x[i]);
            let [r, h, k] = F::inverse_square_roots(alpha, x);
            let gw = self.g[i] * self.w[i];
            self.t[i] = x * r;
            let (s, dx) = (F::of(-0.5) * (gw * k), gw * h);
            (self.s[i], self.dx[i]) = if e == 0 { (s, dx) } else { (s.scale(-2 * e), dx.scale(-e)) };
        }
    }
}

/// Writes the scalar parameter's gradient: its sums over rows, added column by column like a row.
fn finish_alpha<F: Real>(
    sink: &Sink<'_>,
    partials: &[F],
    stride: usize,
    offset: usize,
    cols: usize,
    cpu: &Cpu,
) {
    with_scratch::<F, _>(0, |[columns, ..], _| {
        let mut sums = Pairwise::default();
        for first in (0..cols).step_by(LEAF) {
            let columns = &mut columns[..LEAF.min(cols - first)];
            affine::sum_chunks(partials, stride, offset + first, columns);
            sums.push(cpu.isa.run(TreeSums::new(lanes(cols), Plain(&*columns))).0[0]);
        }
        let mut one = [F::ZERO];
        let out = sink.begin(0, 0, &mut one, 1);
        out[0] = sums.total();
        sink.commit(0, 0, out);
    });
}
