//! The backward passes of norms with something before or after them: as [`fused`](super::fused), from the gradient of the output
//! to that of the normalized value, and from that of what is normalized to those of the input and of the other operands.

use super::affine::Accumulators;
use super::branch::Branch;
use super::dropout::Kept;
use super::fused::{BLOCK, Hiding, pieces, put, side_by_side, write, write_with};
use super::fusion::{
    GateGradients, Gated, GeluSlope, GeluTanhSlope, ReluSlope, Scaled, SiluSlope, Sum, SumScaled,
};
use super::inner::{self, Place};
use super::launch::Tiles;
use super::memory::Streaming;
use super::real::Real;
use super::rotary::{Angles, Turn};
use super::row;
use super::row_backward;
use super::sink::Sink;
use super::source::Source;
use super::usual_backward::TaskRows;
use crate::spec::{Activation, Epilogue, Fusion, Prologue};
use std::ops::Range;

/// A backward pass with what surrounds it.
pub(super) struct Backward<'a, F> {
    pub(super) job: row_backward::Backward<'a, F>,
    pub(super) fusion: Fusion,
    pub(super) bias: Option<Source<'a>>,
    /// The norm of the branch, to whose output the gradient of the hidden value goes.
    pub(super) inner: Option<inner::Backward<'a, F>>,
    /// The norm of what is added to that.
    pub(super) residual: Option<inner::Backward<'a, F>>,
    pub(super) before: Option<Source<'a>>,
    pub(super) after: Option<Source<'a>>,
    pub(super) angles: Option<Angles<'a>>,
    pub(super) grad_hidden: Option<Source<'a>>,
    pub(super) grad_before: Option<Sink<'a>>,
    pub(super) grad_after: Option<Sink<'a>>,
    /// Elements of the input that took part.
    pub(super) kept: Option<Kept<'a>>,
    pub(super) branch: Branch<'a>,
}

impl<'a, F: Real> Backward<'a, F> {
    /// Numbers of scratch memory for a task's rows.
    pub(super) fn scratch(&self, rows: &TaskRows) -> usize {
        self.lines() * self.at_once(rows) * rows.beside.len() * self.job.constants.cols
    }

    /// The norms of a branch and of a residual.
    pub(super) fn inners(&self) -> [Option<&row_backward::Backward<'a, F>>; 2] {
        [&self.inner, &self.residual].map(|inner| inner.as_ref().map(|inner| &inner.job))
    }

    /// Lines of scratch memory for each row: what is normalized, its gradient, and what a branch's scale multiplied or the output of
    /// a branch's norm, and that of a residual's.
    fn lines(&self) -> usize {
        if self.residual.is_some() {
            4
        } else if self.job.wants_branch[1] || self.inner.is_some() {
            3
        } else {
            2
        }
    }

    /// How many of the chunk's rows, each with those beside it, are in scratch memory together.
    fn at_once(&self, rows: &TaskRows) -> usize {
        let is_whole = rows.beside.len() == rows.kept;
        let each = (rows.beside.len() * self.job.constants.cols).max(1);
        if is_whole { (BLOCK / each).clamp(1, rows.chunk.len().max(1)) } else { 1 }
    }

    /// The parts of a task's rows that are in scratch memory together: each as a task that ends with it, and the place in
    /// which it begins.
    pub(super) fn blocks(&self, rows: &TaskRows) -> impl Iterator<Item = (TaskRows, usize)> + use<F> {
        let (rows, at_once) = (rows.clone(), self.at_once(rows));
        rows.chunk.clone().step_by(at_once).map(move |start| {
            let end = rows.chunk.end.min(start + at_once);
            let from = (start - rows.chunk.start) * rows.beside.len();
            (TaskRows { chunk: rows.chunk.start..end, ..rows.clone() }, from)
        })
    }

    /// Runs `body` on a pass whose rows from place `from` of `rows` on lie in scratch memory, as the gradients of what it
    /// normalizes do, and takes these on to the tensors, and to the sums of a branch's parameters. The first argument of `body` is 0
    /// for the norm, 1 for that of a branch and 2 for that of a residual, which follow it.
    pub(super) fn with_rows(
        &self,
        rows: &TaskRows,
        from: usize,
        lines: &mut [F],
        tiles: &mut Tiles<'_, F>,
        of_branch: &mut Accumulators<'_, F>,
        mut body: impl FnMut(usize, &row_backward::Backward<'_, F>, Tiles<'_, F>),
    ) {
        let Backward { job, fusion, .. } = self;
        let (isa, cols, grid) = (job.constants.isa, job.constants.cols, job.input.grid());
        let (task, first) = (rows, rows.row(from).0);
        let rows = first..first + (rows.len() - from);
        let walk = side_by_side(grid, first);
        let (hidden, others) = lines.split_at_mut(lines.len() / self.lines());
        let (gradient, others) = others.split_at_mut(hidden.len());
        let (third, fourth) = others.split_at_mut(others.len().min(hidden.len()));
        let mut of_line = *job;
        if let Some(before) = &self.before {
            let (input, shifted) = match &self.inner {
                None => (job.input, Some(&mut *third).filter(|_| job.wants_branch[1])),
                Some(inner) => {
                    let place = Place { grid, walk: &walk };
                    (inner::forward(&inner.again(), rows.clone(), &mut *third, place, tiles), None)
                }
            };
            let normalized = self.residual.as_ref().map(|residual| {
                let place = Place { grid, walk: &walk };
                inner::forward(&residual.again(), rows.clone(), &mut *fourth, place, tiles)
            });
            let before = normalized.as_ref().unwrap_or(before);
            let [x, other, ..] = tiles;
            let (input, kept, branch) = (&input, self.kept, self.branch);
            let hiding = Hiding { isa, cols, input, before, hidden: None, streamed: None, kept, branch };
            hiding.run(fusion, rows.clone(), (&mut *hidden, shifted), [x, other]);
            of_line.input = Source::of_sink(&Sink::of_line(hidden, grid, &walk, isa)).lent();
        }
        if let Some(angles) = &self.angles {
            for (row, at, len, place) in pieces(rows.clone(), cols) {
                job.grad_output.fill(row, at, &mut gradient[place..place + len]);
            }
            angles.rotate(isa, Turn::Back, rows.clone(), gradient, tiles);
        }
        let to = Sink::of_line(&mut *gradient, grid, &walk, isa);
        match fusion.epilogue {
            Epilogue::None => {}
            Epilogue::Residual => self.copy_gradient(rows.clone(), tiles),
            Epilogue::Activation(_) | Epilogue::Gate => {
                self.bend(&of_line, to, rows.clone(), tiles);
                of_line.grad_output = Source::of_sink(&to);
            }
            Epilogue::Rotary { .. } => of_line.grad_output = Source::of_sink(&to),
        }
        let wants_branch = job.wants_branch != [false; 2];
        let is_line = job.grad_input.is_some()
            || self.grad_before.is_some()
            || wants_branch
            || [&self.inner, &self.residual].into_iter().flatten().any(inner::Backward::is_wanted);
        let is_line = is_line && fusion.prologue != Prologue::None;
        if is_line {
            of_line.grad_input = Some(to);
            of_line.streamed = None;
        }
        body(0, &of_line, tiles.each_mut().map(|tile| &mut **tile));
        if !is_line {
            return;
        }
        if !self.branch.is_none() {
            self.leave_branch((task, from), gradient, [hidden, third], tiles, of_branch);
            return;
        }
        let of_norm = Source::of_sink(&to).lent();
        let Some(inner) = &self.inner else {
            self.unhide(of_norm, (job.grad_input, job.streamed), self.grad_before, rows, tiles);
            return;
        };
        let to_inner = Sink::of_line(&mut *third, grid, &walk, isa);
        let to_residual = self.residual.as_ref().map(|_| Sink::of_line(&mut *fourth, grid, &walk, isa));
        self.unhide(of_norm, (Some(to_inner), None), to_residual.or(self.grad_before), rows, tiles);
        let inners = [(1, Some(inner), Some(to_inner)), (2, self.residual.as_ref(), to_residual)];
        for (norm, inner, to) in inners {
            if let Some((inner, to)) = inner.filter(|inner| inner.is_wanted()).zip(to) {
                let of_line =
                    row_backward::Backward { grad_output: Source::of_sink(&to).lent(), ..inner.job };
                body(norm, &of_line, tiles.each_mut().map(|tile| &mut **tile));
            }
        }
    }

    /// The gradient of a residual that was added last.
    fn copy_gradient(&self, rows: Range<usize>, [g, out, ..]: &mut Tiles<'_, F>) {
        let Some(sink) = &self.grad_after else { return };
        let c = &self.job.constants;
        for (row, at, len, _) in pieces(rows, c.cols) {
            let g = self.job.grad_output.load(row, at, g, len);
            write((c.isa, None), Scaled(F::ONE), g, sink, (row, at), out);
        }
    }

    /// Puts the gradient of what the epilogue was given to `to`, and writes that of its other operand.
    fn bend(
        &self,
        of_line: &row_backward::Backward<'_, F>,
        to: Sink<'_>,
        rows: Range<usize>,
        tiles: &mut Tiles<'_, F>,
    ) {
        let Backward { job, fusion, .. } = self;
        let (isa, cols) = (job.constants.isa, job.constants.cols);
        if fusion.epilogue.is_curved() || self.grad_after.is_some() {
            let forward = row::Forward {
                constants: job.constants,
                rows: job.rows,
                streamed: None,
                input: of_line.input,
                weight: job.weight,
                bias: self.bias,
                mask: job.mask,
                given: Some(job.statistics),
                output: Some(to),
                statistics: None,
                moments: None,
            };
            let lent = tiles.each_mut().map(|tile| &mut **tile);
            row::Rows::new(&forward, lent).forward(rows.clone());
        }
        let [g, v, z, out, more, ..] = tiles;
        for (row, at, len, _) in pieces(rows, cols) {
            let g = job.grad_output.load(row, at, g, len);
            let v = Source::of_sink(&to).load(row, at, v, len);
            let of_norm = to.begin(row, at, more, len);
            match (fusion.epilogue, &self.after) {
                (Epilogue::Activation(Activation::Relu), _) => put(isa, ReluSlope, g, v, of_norm),
                (Epilogue::Activation(Activation::Silu), _) => put(isa, SiluSlope, g, v, of_norm),
                (Epilogue::Activation(Activation::Gelu), _) => put(isa, GeluSlope, g, v, of_norm),
                (Epilogue::Activation(Activation::GeluTanh), _) => put(isa, GeluTanhSlope, g, v, of_norm),
                (_, Some(after)) => {
                    let z = after.load(row, at, z, len);
                    let Some(sink) = &self.grad_after else {
                        put(isa, Gated, g, z, of_norm);
                        continue;
                    };
                    let of_gate = sink.begin(row, at, out, len);
                    isa.run(GateGradients { a: g, b: v, z, of_factor: of_norm, of_gate: &mut *of_gate });
                    sink.commit(row, at, of_gate);
                }
                (_, None) => {}
            }
        }
    }

    /// From the gradient of what is normalized, to which that of the hidden value is added, to those of the prologue's operands,
    /// which go to `grad_input` and `grad_before`.
    fn unhide(
        &self,
        of_norm: Source<'_>,
        (grad_input, streamed): (Option<Sink<'_>>, Option<Streaming>),
        grad_before: Option<Sink<'_>>,
        rows: Range<usize>,
        tiles: &mut Tiles<'_, F>,
    ) {
        let Backward { job, fusion, .. } = self;
        let isa = job.constants.isa;
        let [d, more, x, z, out, of_gate, summed, ..] = tiles;
        for (row, at, len, _) in pieces(rows, job.constants.cols) {
            let (place, write_to) = ((row, at), (isa, job.streamed));
            let d = of_norm.load(row, at, d, len);
            if let Prologue::Residual { .. } = fusion.prologue {
                let [first, second] = fusion.scales().map(F::of);
                let targets =
                    [(grad_input, first, self.kept, streamed), (grad_before, second, None, job.streamed)];
                for (sink, factor, kept, streamed) in targets {
                    let Some(sink) = &sink else { continue };
                    let write_to = (isa, streamed);
                    if let Some(kept) = kept {
                        let to = &mut summed[..len];
                        match &self.grad_hidden {
                            Some(gradient) => {
                                let own = gradient.load(row, at, more, len);
                                put(isa, SumScaled(factor), d, own, to);
                            }
                            None => put(isa, Scaled(factor), d, d, to),
                        }
                        kept.apply(isa, row, at, to);
                        write(write_to, Scaled(F::ONE), to, sink, place, out);
                        continue;
                    }
                    match &self.grad_hidden {
                        Some(gradient) => {
                            let f = SumScaled(factor);
                            write_with(write_to, f, (d, gradient), sink, place, [&mut *more, &mut *out]);
                        }
                        None => write(write_to, Scaled(factor), d, sink, place, out),
                    }
                }
                continue;
            }
            let (Prologue::Gate, Some(before)) = (fusion.prologue, &self.before) else { continue };
            let z = before.load(row, at, z, len);
            let x = job.input.load(row, at, x, len);
            let d = match &self.grad_hidden {
                Some(gradient) => {
                    let to = &mut summed[..len];
                    put(isa, Sum::PLAIN, d, gradient.load(row, at, more, len), to);
                    &*to
                }
                None => d,
            };
            let (to_input, to_gate) = (&mut out[..len], &mut of_gate[..len]);
            isa.run(GateGradients { a: d, b: x, z, of_factor: &mut *to_input, of_gate: &mut *to_gate });
            for (sink, values) in [(grad_input, &*to_input), (grad_before, &*to_gate)] {
                if let Some(sink) = &sink {
                    write(write_to, Scaled(F::ONE), values, sink, place, more);
                }
            }
        }
    }
}
