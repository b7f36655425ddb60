//! Which part of which buffer a launch binds.

use super::fault::limit;
use super::fusion::Rotation;
use super::launch::Problem;
use super::operand::Operand;
use super::variant::Role;
use crate::plan::Walk;
use crate::{Error, Result};
use std::ops::Range;

/// The part of a buffer that an operand is bound to, and where its index zero lies in it, in elements.
pub(super) struct Binding {
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) start: u32,
}

/// Operands that may lie side by side in one buffer, to be bound as one where there are too many.
const GROUPS: [&[&str]; 3] = [
    &["branch_bias", "branch_scale"],
    &["statistics", "given"],
    &["weight", "bias", "inner_weight", "inner_bias", "mix_weight"],
];

/// Smallest and largest offset of the indices `range` of a row-major space, from index zero; conservative.
fn reach(sizes: &[usize], strides: &[isize], range: &Range<usize>) -> (i128, i128) {
    let (mut low, mut high) = (0i128, 0i128);
    let (mut first, mut last) = (range.start, range.end.max(range.start + 1) - 1);
    let mut below: usize = sizes.iter().product();
    let mut whole = false;
    for (&size, &stride) in sizes.iter().zip(strides) {
        below /= size.max(1);
        // Once an axis differs between the two ends, the axes after it are walked in full.
        let (from, to) = if whole { (0, size - 1) } else { (first / below, last / below) };
        whole |= from != to;
        first %= below;
        last %= below;
        let (a, b) = (from as i128 * stride as i128, to as i128 * stride as i128);
        low += a.min(b);
        high += a.max(b);
    }
    (low, high)
}

impl Problem<'_> {
    pub(super) fn most_bindings(&self) -> usize {
        self.device.limits().max_storage_buffers_per_shader_stage as usize
    }

    pub(super) fn count_bindings(&self) -> usize {
        self.hosts().iter().filter(|host| host.is_none()).count()
    }

    /// Whether a launch of the device can have all operands.
    pub(super) fn fits_bindings(&self) -> bool {
        self.count_bindings() <= self.most_bindings()
    }

    /// For each operand the one whose binding it shares, if there are more operands than can be bound.
    pub(super) fn hosts(&self) -> Vec<Option<usize>> {
        let mut hosts = vec![None; self.operands.len()];
        if hosts.len() > self.most_bindings() {
            let at = |name: &str| self.operands.iter().position(|(op, _)| op.name == name);
            for group in GROUPS {
                let mut members = group.iter().filter_map(|name| at(name));
                let Some(host) = members.next() else { continue };
                for guest in members.filter(|&guest| self.are_alike(host, guest)) {
                    hosts[guest] = Some(host);
                }
            }
        }
        hosts
    }

    /// Whether two operands lie in one buffer, which a binding holds, and are read in the same way.
    fn are_alike(&self, a: usize, b: usize) -> bool {
        let ((a, walk_a), (b, walk_b)) = (&self.operands[a], &self.operands[b]);
        let (Some(walk_a), Some(walk_b)) = (walk_a, walk_b) else { return false };
        // Four elements begin at a multiple of four in both or in neither.
        let first = |op: &Operand, walk: &Walk| op.range.start() as usize / op.dtype.size() + walk.offset;
        let is_walked_alike = (&walk_a.inner, &walk_a.outer) == (&walk_b.inner, &walk_b.outer)
            && (first(a, walk_a) % 4 == first(b, walk_b) % 4);
        a.role == b.role
            && !a.role.writes()
            && a.dtype == b.dtype
            && a.range.buffer() == b.range.buffer()
            && a.range.buffer().size() <= self.device.limits().max_storage_buffer_binding_size
            && (is_walked_alike || !a.is_tensor())
    }

    /// The bindings of a launch, operands that share one having the same.
    pub(super) fn bindings(&self, rows: &Range<usize>, cols: &Range<usize>) -> Result<Vec<Binding>> {
        let bind = |(op, walk): &(Operand, Option<Walk>)| self.bind(op, walk.as_ref(), rows, cols);
        let mut all = self.operands.iter().map(bind).collect::<Result<Vec<_>>>()?;
        let hosts = self.hosts();
        for host in (0..all.len()).filter(|&host| hosts.contains(&Some(host))) {
            let members = || (0..hosts.len()).filter(|&at| at == host || hosts[at] == Some(host));
            let offset = members().map(|at| all[at].offset).min().unwrap_or(0);
            let end = members().map(|at| all[at].offset + all[at].size).max().unwrap_or(0);
            for at in members() {
                let (own, size) = (&mut all[at], self.operands[at].0.dtype.size() as u64);
                own.start = own.start.wrapping_add(((own.offset - offset) / size) as u32);
                (own.offset, own.size) = (offset, end - offset);
            }
        }
        Ok(all)
    }

    /// First and last element, from the range's start, that rows and columns of a launch reach; conservative.
    fn span(
        &self,
        op: &Operand,
        walk: Option<&Walk>,
        rows: &Range<usize>,
        cols: &Range<usize>,
    ) -> (i128, i128) {
        let Some(walk) = walk else { return (0, (op.range.size() / op.dtype.size() as u64) as i128 - 1) };
        // A column may be read for another of its head.
        let cols = if self.rotation.is_some() { &(0..self.grid.cols) } else { cols };
        let outer = reach(&self.grid.outer, &walk.outer, rows);
        let mut inner = reach(&self.grid.inner, &walk.inner, cols);
        if let (Role::Table, Some(Rotation { pairs, head, .. })) = (op.role, &self.rotation) {
            // Only so many of a head's columns are there.
            let missing = (head - pairs) as i128 * walk.inner.last().map_or(0, |&stride| stride as i128);
            if missing > 0 {
                inner.1 -= missing
            } else {
                inner.0 -= missing
            }
            inner = (inner.0 + op.away.min(0), inner.1 + op.away.max(0));
        }
        let offset = walk.offset as i128;
        (offset + outer.0 + inner.0, offset + outer.1 + inner.1 + op.numbers as i128 - 1)
    }

    pub(super) fn bind(
        &self,
        operand: &Operand,
        walk: Option<&Walk>,
        rows: &Range<usize>,
        cols: &Range<usize>,
    ) -> Result<Binding> {
        let limits = self.device.limits();
        let (low, high) = self.span(operand, walk, rows, cols);
        let (size, base) = (operand.dtype.size() as i128, i128::from(operand.range.start()));
        let align = i128::from(limits.min_storage_buffer_offset_alignment.max(16));
        let offset = (base + low * size) / align * align;
        // Bindings are whole words; the last may hold a neighbour's element, which is never changed.
        let end = (base + (high + 1) * size + 3) / 4 * 4;
        let bytes = end - offset;
        // Offsets are counted in 32 bits.
        let most = i128::from(limits.max_storage_buffer_binding_size).min(i128::from(i32::MAX) * size);
        if bytes > most {
            let found = format!("{bytes} bytes in one piece");
            return Err(limit(operand.name, format!("{most} bytes a binding"), found));
        }
        if end > i128::from(operand.range.buffer().size()) {
            let expected = "a buffer of whole 4-byte words";
            return Err(Error::argument(
                operand.name,
                expected,
                format!("{} bytes", operand.range.buffer().size()),
            ));
        }
        let first = walk.map_or(0, |walk| walk.offset as i128);
        let start = (base + first * size - offset) / size;
        Ok(Binding { offset: offset as u64, size: bytes as u64, start: start as u32 })
    }
}
