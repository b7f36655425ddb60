//! The gradients of a row whose sums are known: of the input, and the row's terms of the parameters'.
//!
//! A parameter that varies in the row cuts it into *sub-rows*, the elements that share one value of it. Axes are
//! ordered so that a sub-row's elements follow each other; a single column is a sub-row of one.

use super::affine::Accumulators;
use super::lanes::{Plain, Products, TreeSums};
use super::reader::Reader;
use super::real::Real;
use super::row::{clear_masked, piece_end};
use super::row_backward::{RowTerms, Rows};
use super::statistics::{Statistics, Sums};
use crate::plan::tree::{LEAF, Pairwise, lanes};
use std::ops::Range;

impl<F: Real> Rows<'_, '_, F> {
    /// The gradient of the input, and the terms of the parameters' gradients, for the sub-rows `subs` of a row (columns,
    /// if there are no sub-rows); the first one's parameter is `param` in the accumulators.
    pub(super) fn gradients(
        &mut self,
        row: usize,
        s: Statistics<F>,
        sums: &Sums<F>,
        subs: Range<usize>,
        param: usize,
        accumulators: &mut Accumulators<'_, F>,
    ) {
        let cols = self.job.constants.cols;
        let RowTerms::SubRows(count) = self.job.terms else {
            if self.job.terms == RowTerms::Sums && subs.start == 0 {
                accumulators.add_sums(param, sums);
            }
            let mut at = subs.start;
            while at < subs.end {
                let sink = self.job.grad_input.map_or(cols, |sink| sink.run_end(at));
                let source = self.job.input.run_end(at).min(self.job.grad_output.run_end(at));
                let end = subs.end.min(piece_end(at, [sink, source]));
                if !self.usual_piece(row, s, sums, (at, end - at), None) {
                    self.piece(row, s, sums, at, end - at);
                }
                at = end;
            }
            return;
        };
        let length = cols / count.max(1);
        if length == 0 {
            return;
        }
        let start = subs.start;
        if length > LEAF {
            for sub in subs {
                let param = param + sub - start;
                self.long_sub_row(row, s, sums, sub, length, param, accumulators);
            }
            return;
        }
        let at_once = LEAF / length;
        for first in subs.clone().step_by(at_once) {
            let subs = first..subs.end.min(first + at_once);
            if length == 1 {
                let at_params = Some((param + first - start, &mut *accumulators));
                if self.usual_piece(row, s, sums, (first, subs.len()), at_params) {
                    continue;
                }
            }
            let (at, len) = (first * length, subs.len() * length);
            // All of a row's are usual, or none.
            let mut others = subs.clone();
            while length > 1 && !others.is_empty() {
                let place = (others.start * length, length);
                let Some(of_sub_row) = self.usual_sub_row(row, s, sums, place, lanes(length)) else { break };
                accumulators.add_terms(param + others.start - start, of_sub_row[1], of_sub_row[0]);
                others.start += 1;
            }
            if others.is_empty() {
                continue;
            }
            self.piece(row, s, sums, at, len);
            let isa = self.job.constants.isa;
            let g = masked_copy(self.g.get(row, at, len), self.mask.as_mut(), row, at, self.u);
            let hat = &self.hat[..len];
            if length == 1 {
                if let Some(to) = &mut accumulators.bias {
                    to.add(param + first - start, g, None);
                }
                if let Some(to) = &mut accumulators.weight {
                    to.add(param + first - start, g, Some(hat));
                }
                continue;
            }
            let lanes = lanes(length);
            for (index, sub) in subs.enumerate() {
                let part = index * length..(index + 1) * length;
                if let Some(to) = &mut accumulators.bias {
                    let sum = isa.run(TreeSums::new(lanes, Plain(&g[part.clone()])));
                    to.add(param + sub - start, &sum, None);
                }
                if let Some(to) = &mut accumulators.weight {
                    let sum = isa.run(TreeSums::new(lanes, Products(&g[part.clone()], &hat[part])));
                    to.add(param + sub - start, &sum, None);
                }
            }
        }
    }

    /// A sub-row of several leaves.
    fn long_sub_row(
        &mut self,
        row: usize,
        s: Statistics<F>,
        sums: &Sums<F>,
        sub: usize,
        length: usize,
        param: usize,
        accumulators: &mut Accumulators<'_, F>,
    ) {
        let (isa, lanes) = (self.job.constants.isa, lanes(length));
        let (mut weight, mut bias) = (Pairwise::default(), Pairwise::default());
        for leaf in (0..length).step_by(LEAF) {
            let (at, len) = (sub * length + leaf, LEAF.min(length - leaf));
            if let Some(of_leaf) = self.usual_sub_row(row, s, sums, (at, len), lanes) {
                bias.push(of_leaf[0]);
                weight.push(of_leaf[1]);
                continue;
            }
            self.piece(row, s, sums, at, len);
            let g = masked_copy(self.g.get(row, at, len), self.mask.as_mut(), row, at, self.u);
            if accumulators.bias.is_some() {
                bias.push(isa.run(TreeSums::new(lanes, Plain(g)))[0]);
            }
            if accumulators.weight.is_some() {
                weight.push(isa.run(TreeSums::new(lanes, Products(g, &self.hat[..len])))[0]);
            }
        }
        accumulators.add_terms(param, weight.total(), bias.total());
    }
}

/// `g`, with zeros where the mask is.
fn masked_copy<'s, F: Real>(
    g: &'s [F],
    mask: Option<&mut Reader<'_, F>>,
    row: usize,
    at: usize,
    tile: &'s mut [F],
) -> &'s [F] {
    let Some(mask) = mask else { return g };
    let tile = &mut tile[..g.len()];
    tile.copy_from_slice(g);
    clear_masked(mask.get(row, at, g.len()), tile);
    tile
}
