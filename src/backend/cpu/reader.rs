//! Operands as a schedule asks for them, piece by piece.

use super::elementwise::Factor;
use super::real::Real;
use super::source::Source;
use crate::plan::RowOffsets;

/// A source and the tile for what it cannot lend; a piece that is asked for again is not loaded again.
pub(super) struct Reader<'t, F> {
    source: Source<'t>,
    tile: &'t mut [F],
    /// Place in memory of the row, first column and length of what the tile holds. Rows may share their elements, as the
    /// tokens of a sample do its scale.
    held: Option<(isize, usize, usize)>,
    offsets: RowOffsets<'t>,
}

impl<'t, F: Real> Reader<'t, F> {
    pub(super) fn new(source: Source<'t>, tile: &'t mut [F]) -> Self {
        Reader { offsets: source.offsets(), source, tile, held: None }
    }

    /// Columns `col..col + len` of `row`.
    pub(super) fn get(&mut self, row: usize, col: usize, len: usize) -> &[F] {
        if let Some(lent) = self.source.lend(row, col, len) {
            return lent;
        }
        let wanted = Some((self.offsets.of(row), col, len));
        if self.held != wanted {
            self.source.fill(row, col, &mut self.tile[..len]);
            self.held = wanted;
        }
        &self.tile[..len]
    }
}

impl<F: Real> Reader<'_, F> {
    /// Every `step`-th element of a row, of which there are no more than a tile holds.
    fn get_every(&mut self, row: usize, step: usize) -> &[F] {
        let count = self.source.cols() / step;
        // A length of 0 stands for these elements, which no piece is.
        let wanted = Some((self.offsets.of(row), step, 0));
        if self.held != wanted {
            self.source.fill_every(row, step, &mut self.tile[..count]);
            self.held = wanted;
        }
        &self.tile[..count]
    }
}

/// A weight or bias, as a row needs it.
pub(super) struct Parameter<'t, F> {
    reader: Option<Reader<'t, F>>,
    offset: F,
    /// Whether a row has one number for all its elements.
    constant: bool,
    /// Elements in a run that share a number; 1 where they are too few to be worth a run.
    run: usize,
}

/// From this many elements on that share a parameter they are handled as a run, with the parameter in a register.
const LEAST_RUN: usize = 64;

impl<'t, F: Real> Parameter<'t, F> {
    pub(super) fn new(source: Option<Source<'t>>, offset: F, tile: &'t mut [F]) -> Self {
        let constant = source.is_some_and(|source| source.is_constant_in_row());
        let run = source.map_or(1, |source| source.constant_run());
        let fits = source.is_some_and(|source| source.cols() / run <= tile.len());
        let run = if run < LEAST_RUN || !fits { 1 } else { run };
        Parameter { reader: source.map(|source| Reader::new(source, tile)), offset, constant, run }
    }

    /// Where the run ends that column `col` is in, if parameters come in runs.
    pub(super) fn run_end(&self, col: usize) -> Option<usize> {
        (self.run > 1 && !self.constant).then(|| (col / self.run + 1) * self.run)
    }

    /// Whether every row has the same numbers, and not in runs.
    pub(super) fn is_shared(&self) -> bool {
        self.reader
            .as_ref()
            .is_none_or(|reader| reader.source.is_shared_by_rows() && (self.run == 1 || self.constant))
    }

    /// The numbers for columns `col..col + len` of `row`.
    pub(super) fn get(&mut self, row: usize, col: usize, len: usize) -> Factor<'_, F> {
        let in_run = self.run_end(col).is_some_and(|end| col + len <= end);
        let Some(reader) = &mut self.reader else { return Factor::Absent };
        if self.constant {
            return Factor::One(Factor::offset(reader.get(row, 0, 1)[0], self.offset));
        }
        if in_run {
            return Factor::One(Factor::offset(reader.get_every(row, self.run)[col / self.run], self.offset));
        }
        Factor::Each(reader.get(row, col, len), self.offset)
    }
}
