//! The branch that a residual is added to: what its bias and its scale make of the input, and the terms of their gradients.

use super::Isa;
use super::affine::{Accumulators, ColumnSums};
use super::fused::{pieces, put, write, write_with};
use super::fused_backward::Backward;
use super::fusion::{OfElements, Scaled, SumScaled};
use super::isa::Operation;
use super::lanes::{Plain, Products, TreeSums};
use super::launch::Tiles;
use super::real::Real;
use super::simd::Simd;
use super::source::Source;
use super::usual_backward::TaskRows;
use crate::plan::tree::{LEAF, Pairwise, lanes};

/// What the input is shifted and then scaled by, where it is.
#[derive(Clone, Copy)]
pub(super) struct Branch<'a> {
    pub(super) bias: Option<Source<'a>>,
    pub(super) scale: Option<Source<'a>>,
}

/// `a + b`
#[derive(Clone, Copy)]
struct Plus;

impl<F: Real> OfElements<F> for Plus {
    #[inline(always)]
    fn of(self, a: F, b: F) -> F {
        a + b
    }
}

/// `a * b`
#[derive(Clone, Copy)]
struct Times;

impl<F: Real> OfElements<F> for Times {
    #[inline(always)]
    fn of(self, a: F, b: F) -> F {
        a * b
    }
}

/// `to = f(to, b)`
struct Become<'s, O, F> {
    f: O,
    to: &'s mut [F],
    b: &'s [F],
}

impl<O: OfElements<F>, F: Real> Operation for Become<'_, O, F> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(self) {
        for (to, &b) in self.to.iter_mut().zip(self.b) {
            *to = self.f.of(*to, b);
        }
    }
}

impl Branch<'_> {
    pub(super) fn is_none(&self) -> bool {
        self.bias.is_none() && self.scale.is_none()
    }

    /// Adds the bias to columns of a row.
    pub(super) fn shift<F: Real>(&self, isa: Isa, (row, at): (usize, usize), x: &mut [F], tile: &mut [F]) {
        if let Some(bias) = &self.bias {
            let b = bias.load(row, at, tile, x.len());
            isa.run(Become { f: Plus, to: x, b });
        }
    }

    /// Multiplies columns of a row by the scale.
    pub(super) fn scale<F: Real>(&self, isa: Isa, (row, at): (usize, usize), x: &mut [F], tile: &mut [F]) {
        if let Some(scale) = &self.scale {
            let b = scale.load(row, at, tile, x.len());
            isa.run(Become { f: Times, to: x, b });
        }
    }
}

/// Adds the terms of a row, `a` or `a * b`, to the sums of its parameters, each of which `length` neighbouring elements share.
fn add_row<F: Real>(
    isa: Isa,
    to: &mut ColumnSums<'_, F>,
    param: usize,
    length: usize,
    a: &[F],
    b: Option<&[F]>,
) {
    if length == 1 {
        for at in (0..a.len()).step_by(LEAF) {
            let part = at..a.len().min(at + LEAF);
            to.add(param + at, &a[part.clone()], b.map(|b| &b[part]));
        }
        return;
    }
    let lanes = lanes(length);
    for (index, first) in (0..a.len()).step_by(length.max(1)).enumerate() {
        let mut sum = Pairwise::default();
        for at in (first..first + length).step_by(LEAF) {
            let part = at..(first + length).min(at + LEAF);
            let [of_leaf] = match b {
                Some(b) => isa.run(TreeSums::new(lanes, Products(&a[part.clone()], &b[part]))),
                None => isa.run(TreeSums::new(lanes, Plain(&a[part]))),
            };
            sum.push(of_leaf);
        }
        to.add(param + index, &[sum.total()], None);
    }
}

impl<F: Real> Backward<'_, F> {
    /// From the gradients of what is normalized, in `gradient`, to which that of the hidden value is added, to those of the input
    /// and of the residual; and the terms of the gradients of the branch's bias and scale, to `sums`, the scale's as those of a
    /// weight. They need `input + bias` in `shifted`. `inner` is scratch.
    pub(super) fn leave_branch(
        &self,
        (rows, from): (&TaskRows, usize),
        gradient: &mut [F],
        [inner, shifted]: [&mut [F]; 2],
        tiles: &mut Tiles<'_, F>,
        sums: &mut Accumulators<'_, F>,
    ) {
        let Backward { job, fusion, branch, .. } = self;
        let (isa, cols) = (job.constants.isa, job.constants.cols);
        let write_to = (isa, job.streamed);
        let [first, second] = fusion.scales().map(F::of);
        let length = cols / job.params_per_row().max(1);
        let [more, out, ..] = tiles;
        for place in from..rows.len() {
            let (row, index, param) = rows.row(place);
            let of_row = (place - from) * cols..(place - from + 1) * cols;
            let (dx, inner) = (&mut gradient[of_row.clone()], &mut inner[of_row.clone()]);
            for (_, at, len, _) in pieces(row..row + 1, cols) {
                let (d, inner) = (&mut dx[at..at + len], &mut inner[at..at + len]);
                // Before what may take its place is written.
                match &self.grad_hidden {
                    Some(own) => put(isa, SumScaled(first), d, own.load(row, at, more, len), inner),
                    None => put(isa, Scaled(first), d, d, inner),
                }
                if let Some(kept) = self.kept {
                    kept.apply(isa, row, at, inner);
                }
                if let Some(sink) = &self.grad_before {
                    match &self.grad_hidden {
                        Some(own) => {
                            let tiles = [&mut **more, &mut **out];
                            write_with(write_to, SumScaled(second), (d, own), sink, (row, at), tiles);
                        }
                        None => write(write_to, Scaled(second), d, sink, (row, at), out),
                    }
                }
                d.copy_from_slice(inner);
                branch.scale(isa, (row, at), d, more);
                if let Some(sink) = &job.grad_input {
                    write(write_to, Scaled(F::ONE), d, sink, (row, at), out);
                }
            }
            if place.is_multiple_of(rows.beside.len()) {
                sums.begin_row(index, rows.all_params());
            }
            if let Some(to) = &mut sums.bias {
                add_row(isa, to, param, length, dx, None);
            }
            if let Some(to) = &mut sums.weight {
                add_row(isa, to, param, length, inner, Some(&shifted[of_row]));
            }
        }
    }
}
