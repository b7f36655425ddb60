//! The norm of a branch that a residual is added to: its rows pass through the same scratch memory as those of the norm around
//! it, where its results are taken from and the gradients of its results are brought to.

use super::launch::Tiles;
use super::real::Real;
use super::row;
use super::row_backward;
use super::sink::Sink;
use super::source::Source;
use crate::plan::{Grid, Walk};
use std::ops::Range;

/// Where rows lie in scratch memory.
pub(super) struct Place<'l> {
    pub(super) grid: &'l Grid,
    pub(super) walk: &'l Walk,
}

/// The norm of a branch in a backward pass.
pub(super) struct Backward<'a, F> {
    /// The gradient of its output is always in scratch memory.
    pub(super) job: row_backward::Backward<'a, F>,
    /// Needed where the hidden value is made again.
    pub(super) bias: Option<Source<'a>>,
}

/// Normalizes some rows into `line`.
pub(super) fn forward<'l, F: Real>(
    job: &row::Forward<'_, F>,
    rows: Range<usize>,
    line: &'l mut [F],
    place: Place<'l>,
    tiles: &mut Tiles<'_, F>,
) -> Source<'l> {
    let to = Sink::of_line(line, place.grid, place.walk, job.constants.isa);
    let of_line = row::Forward { output: Some(to), streamed: None, ..*job };
    row::Rows::new(&of_line, tiles.each_mut().map(|tile| &mut **tile)).forward(rows);
    Source::of_sink(&to).lent()
}

impl<F: Real> Backward<'_, F> {
    /// What makes the branch's normalized values again, from the statistics that were saved.
    pub(super) fn again(&self) -> row::Forward<'_, F> {
        let job = &self.job;
        row::Forward {
            constants: job.constants,
            rows: job.rows,
            streamed: None,
            input: job.input,
            weight: job.weight,
            bias: self.bias,
            mask: None,
            given: Some(job.statistics),
            output: None,
            statistics: None,
            moments: None,
        }
    }

    /// Whether any gradient on this side of the sum is asked for.
    pub(super) fn is_wanted(&self) -> bool {
        self.job.grad_input.is_some() || self.job.wanted() > 0
    }
}
