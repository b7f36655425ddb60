//! Several problems at once: what is launched for each, step by step, as one launch where their kernels are the same.

use super::geometry::MOST_BLOCKS;
use super::launch::{Planned, enqueue};
use super::params::{Axis, Told};
use super::variant::Variant;
use super::{CudaStream, norm, norm_backward, pointwise};
use crate::backend::{Backward, Forward, workspace_size_together};
use crate::spec::{Norm, Spec};
use crate::{Result, Workspace};

/// Bytes of a kernel's parameters that every GPU takes.
const MOST_BYTES: usize = 4096;

/// Enqueues forward passes of which none writes what another reads or writes.
pub(super) fn forward(problems: &[(Spec, Forward<'_>)], stream: &CudaStream<'_>) -> Result<()> {
    let mut kept = Vec::new();
    let planned = problems.iter().map(|(spec, operands)| match spec {
        Spec::Norm(spec) => norm::launches(spec, operands, stream, &mut kept),
        Spec::Pointwise(spec) => pointwise::launches(spec, operands, stream),
    });
    let planned: Vec<Vec<Planned>> = planned.collect::<Result<_>>()?;
    enqueue(stream, "forward", joined(planned))
}

/// Enqueues backward passes of which none writes what another reads or writes. Each has a part of the workspace; where that cannot
/// grow, they come one after the other and share it.
pub(super) fn backward<const N: usize>(
    problems: [(Spec, Backward<'_>); N],
    workspace: &mut Workspace,
    stream: &CudaStream<'_>,
) -> Result<()> {
    let norms: Option<Vec<_>> = problems.iter().map(norm_with_rows).collect();
    let sizes = problems.each_ref().map(|(spec, operands)| match has_parameters(operands) {
        true => workspace_size_together([(spec, operands.input.dtype())]),
        false => 0,
    });
    let all = sizes.iter().fold(0usize, |all, size| all.saturating_add(*size));
    let has_room = stream.has_room(workspace, all)?;
    let Some(norms) = norms.filter(|_| has_room) else { return apart(problems, workspace, stream) };
    if all > 0 {
        stream.workspace(workspace, all)?;
    }
    let (mut kept, mut lists, mut from) = (Vec::new(), Vec::with_capacity(N), 0);
    for ((spec, operands), size) in norms.into_iter().zip(sizes) {
        workspace.from = from;
        let planned = norm_backward::own_launches(spec, operands, workspace, stream, &mut kept);
        workspace.from = 0;
        lists.push(planned?);
        from += size;
    }
    enqueue(stream, "backward", joined(lists))
}

/// Whether the gradient of a parameter is wanted, which takes sums over rows.
fn has_parameters(operands: &Backward<'_>) -> bool {
    let Backward { grad_weight, grad_bias, grad_branch_bias, grad_branch_scale, .. } = operands;
    [grad_weight, grad_bias, grad_branch_bias, grad_branch_scale].iter().any(|target| target.is_some())
}

/// One after the other.
fn apart<const N: usize>(
    problems: [(Spec, Backward<'_>); N],
    workspace: &mut Workspace,
    stream: &CudaStream<'_>,
) -> Result<()> {
    problems.into_iter().try_for_each(|(spec, operands)| super::backward(&spec, operands, workspace, stream))
}

/// A norm that has none of a branch inside, and rows, without which the workspace that it takes is not as large as it says.
fn norm_with_rows<'p, 'a>(
    (spec, operands): &'p (Spec, Backward<'a>),
) -> Option<(&'p Norm, &'p Backward<'a>)> {
    match spec {
        Spec::Norm(norm) if operands.inner.is_none() && spec.rows() * spec.cols() > 0 => {
            Some((norm, operands))
        }
        _ => None,
    }
}

/// The launches of problems that do not need each other's results, `lists` having those of each in their order.
fn joined(lists: impl IntoIterator<Item = Vec<Planned>>) -> Vec<Planned> {
    let mut lists: Vec<_> = lists.into_iter().map(Vec::into_iter).collect();
    let mut all: Vec<Planned> = Vec::new();
    loop {
        let step: Vec<Planned> = lists.iter_mut().filter_map(Iterator::next).collect();
        if step.is_empty() {
            return all;
        }
        let first = all.len();
        for planned in step.into_iter().filter(|planned| planned.blocks() > 0) {
            // What one takes is not offered to the next.
            let left = all[first..].iter_mut().try_fold(planned, |planned, other| other.take(planned));
            all.extend(left);
        }
    }
}

impl Planned {
    /// Takes the problems of another launch into this one, or gives them back where kernels differ or there is no room.
    fn take(&mut self, mut other: Planned) -> Option<Planned> {
        let Variant { axes, problems, .. } = other.variant;
        let axes = (axes.0.max(self.variant.axes.0), axes.1.max(self.variant.axes.1));
        let all = self.variant.problems + problems;
        let of_both = Variant { axes, problems: all, ..self.variant.clone() };
        if (Variant { axes, problems: all, ..other.variant.clone() }) != of_both
            || self.blocks().saturating_add(other.blocks()) > MOST_BLOCKS
        {
            return Some(other);
        }
        let problems = || self.problems.iter().chain(&other.problems);
        if problems().map(|told| told.bytes(of_both.compute, axes)).sum::<usize>() > MOST_BYTES {
            return Some(other);
        }
        self.problems.append(&mut other.problems);
        for told in &mut self.problems {
            told.lengthen(axes);
        }
        self.variant = of_both;
        None
    }
}

impl Told {
    /// Makes the tables of axes as long as these, by axes of one index before the others.
    fn lengthen(&mut self, (outer, inner): (u32, u32)) {
        let slots = self.addresses.len();
        for (axes, length) in [(&mut self.outer, outer), (&mut self.inner, inner)] {
            let missing = (length as usize).saturating_sub(axes.len());
            axes.splice(0..0, vec![Axis::single(slots); missing]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::geometry;
    use super::super::params::Scalars;
    use super::super::variant::{Access, Entry, Flags, Slot};
    use super::*;
    use crate::tensor::DType;
    use smallvec::smallvec;

    /// A launch over tensors of `axes` axes of rows.
    fn planned(entry: Entry, axes: u32, blocks: usize) -> Planned {
        let slot = Slot { name: "input", dtype: DType::F32, access: Access::Vector };
        let variant = Variant {
            entry,
            compute: DType::F32,
            slots: smallvec![slot],
            axes: (axes, 1),
            wide: false,
            problems: 1,
            shape: geometry::apart(2),
            flags: Flags::default(),
        };
        let axis = |size| Axis { size, strides: vec![1] };
        let told = Told {
            scalars: Scalars::default(),
            addresses: smallvec![64],
            outer: (0..axes).map(|_| axis(3)).collect(),
            inner: vec![axis(4)],
            blocks,
        };
        Planned { variant, problems: smallvec![told] }
    }

    fn found(all: &[Planned]) -> Vec<(Entry, (u32, u32), Vec<usize>)> {
        let blocks = |planned: &Planned| planned.problems.iter().map(|told| told.blocks).collect();
        all.iter().map(|planned| (planned.variant.entry, planned.variant.axes, blocks(planned))).collect()
    }

    #[test]
    fn launches_of_one_kernel_are_joined_step_by_step() {
        use Entry::{Finish, NormForward};
        let first = vec![planned(NormForward, 2, 5), planned(Finish, 1, 1)];
        let second = vec![planned(NormForward, 1, 3), planned(Finish, 1, 2)];
        let both = joined([first.clone(), second.clone()]);
        assert_eq!(found(&both), [(NormForward, (2, 1), vec![5, 3]), (Finish, (1, 1), vec![1, 2])]);
        let [_, told] = &both[0].problems[..] else { panic!("two problems") };
        assert_eq!(told.outer.iter().map(|axis| axis.size).collect::<Vec<_>>(), [1, 3]);
        assert_eq!((told.outer[0].strides.as_slice(), both[0].variant.problems), (&[0][..], 2));
        // Three, of which two have the same kernel, and one has a step more.
        let other = vec![planned(Finish, 1, 7), planned(Finish, 1, 8), planned(Finish, 1, 9)];
        let three = joined([other, first.clone(), second]);
        let expected = [
            (Finish, (1, 1), vec![7]),
            (NormForward, (2, 1), vec![5, 3]),
            (Finish, (1, 1), vec![8, 1, 2]),
            (Finish, (1, 1), vec![9]),
        ];
        assert_eq!(found(&three), expected);
        // Nothing is launched for a problem without rows.
        let none = vec![planned(NormForward, 1, 0), planned(Finish, 1, 4)];
        let expected = [(NormForward, (2, 1), vec![5]), (Finish, (1, 1), vec![1, 4])];
        assert_eq!(found(&joined([first, none])), expected);
    }

    #[test]
    fn launches_stay_apart_where_there_is_no_room() {
        let one = || vec![planned(Entry::NormForward, 1, MOST_BLOCKS)];
        assert_eq!(joined([one(), one()]).len(), 2);
        // Of 4096 bytes for both, the scalars take 264 each.
        for (axes, launches) in [(110, 1), (120, 2)] {
            let one = || vec![planned(Entry::NormForward, axes, 1)];
            let both = joined([one(), one()]);
            assert_eq!(both.len(), launches);
            let size = super::super::params::bytes(DType::F32, &both[0].problems).len();
            assert!(size <= MOST_BYTES, "{size}");
        }
    }
}
